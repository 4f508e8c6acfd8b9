//! A broker's address: parsed once, shown without its password.

use std::{fmt, time::Duration};

use lapin::uri::{AMQPScheme, AMQPUri};

/// One broker of the configuration. Neither `Debug` nor `Display` shows the password.
#[derive(Clone)]
pub(super) struct Endpoint {
    uri: AMQPUri,
}

impl Endpoint {
    /// Parses `amqp://` and `amqps://` URIs.
    ///
    /// The error never repeats the text, which may hold a password.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut uri: AMQPUri = text.parse().map_err(|reason: String| {
            let hint = "expected amqp://user:password@host:5672/virtual-host or amqps://…";
            // Some of the parser's messages repeat the whole text.
            if reason.contains(text) { hint.to_owned() } else { format!("{reason}; {hint}") }
        })?;
        if let Some(host) = ipv6_host(text) {
            // The parser takes no host in brackets and would silently go to localhost.
            uri.authority.host = host.to_owned();
        }
        if uri.authority.host.is_empty() {
            return Err("names no host".to_owned());
        }
        Ok(Self { uri })
    }

    /// The parameters of a connection. The heartbeat of the configuration replaces the URI's own.
    pub(super) fn uri(&self, heartbeat: Duration) -> AMQPUri {
        let mut uri = self.uri.clone();
        uri.query.heartbeat = Some(u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX));
        uri
    }

    pub(super) fn is_tls(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    pub(super) fn virtual_host(&self) -> &str {
        &self.uri.vhost
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.uri.authority;
        let (open, close) = if authority.host.contains(':') { ("[", "]") } else { ("", "") };
        let user = &authority.userinfo.username;
        write!(f, "{}://{user}:***@{open}{}{close}:{}", self.uri.scheme, authority.host, authority.port)?;
        // The default virtual host needs no path.
        if self.uri.vhost == "/" { Ok(()) } else { write!(f, "/{}", self.uri.vhost.replace('/', "%2f")) }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The host of a URI that writes it in brackets.
fn ipv6_host(text: &str) -> Option<&str> {
    let authority = text.split_once("://")?.1.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.strip_prefix('[')?.split_once(']').map(|(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_shown_nowhere() {
        let endpoint = Endpoint::parse("amqps://ann:s3cr%65t@broker.example:5671/prod").unwrap();
        assert_eq!(endpoint.to_string(), "amqps://ann:***@broker.example:5671/prod");
        assert_eq!(format!("{endpoint:?}"), endpoint.to_string());
        assert!(endpoint.is_tls());
    }

    #[test]
    fn a_text_that_is_no_uri_is_not_repeated() {
        for text in [
            "ann:hunter2@host",
            "http://ann:hunter2@host",
            "amqp://ann:hunter2@host:99999",
            "",
            "amqp:hunter2",
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(!error.is_empty());
        }
    }

    #[test]
    fn an_address_in_brackets_is_kept() {
        let endpoint = Endpoint::parse("amqp://u:p@[::1]:5673/%2f").unwrap();
        assert_eq!(endpoint.uri(Duration::from_secs(5)).authority.host, "::1");
        assert_eq!(endpoint.to_string(), "amqp://u:***@[::1]:5673");
    }

    #[test]
    fn the_configured_heartbeat_replaces_the_uris_own() {
        let endpoint = Endpoint::parse("amqp://localhost?heartbeat=600").unwrap();
        assert_eq!(endpoint.uri(Duration::from_secs(4)).query.heartbeat, Some(4));
        assert_eq!(endpoint.virtual_host(), "/");
    }
}
