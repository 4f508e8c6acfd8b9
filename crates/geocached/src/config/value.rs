//! The values that a setting may have, as people write them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, de};

/// memcached's.
pub(super) const PORT: u16 = 11211;

/// A broker's URI, which may hold a password: shown by nothing.
///
/// It is checked by the transport that uses it, whose messages do not repeat it either.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpUri(String);

impl AmqpUri {
    /// The URI with its password, to connect with.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AmqpUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AmqpUri(***)")
    }
}

impl FromStr for AmqpUri {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// One URI or a list of them.
pub(crate) fn amqp_uris<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AmqpUri>, D::Error> {
    struct OneOrMany;

    impl<'de> de::Visitor<'de> for OneOrMany {
        type Value = Vec<AmqpUri>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a URI or a list of them")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![AmqpUri(text.to_owned())])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut uris = Vec::new();
            while let Some(uri) = seq.next_element()? {
                uris.push(AmqpUri(uri));
            }
            Ok(uris)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}

/// Where to listen: an address with a port, or a port alone for loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(port) = text.parse() {
            return Ok(Self(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self(SocketAddr::from((ip, PORT))));
        }
        text.parse().map(Self).map_err(|_| {
            format!("{text:?} is no address to listen on; use one such as 127.0.0.1:11211, [::1]:11211 or 0.0.0.0:11211")
        })
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
