//! Whether an AMQP broker answers at an address: the protocol header and the first byte of what comes back.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, Result, bail};

const TRY_BOUND: Duration = Duration::from_millis(500);
const HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// The type of a method frame, here `connection.start`.
const METHOD_FRAME: u8 = 1;

/// Whether a broker answers there now.
pub(super) fn answers(addr: SocketAddr) -> bool {
    try_once(addr).unwrap_or(false)
}

fn try_once(addr: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&addr, TRY_BOUND)?;
    stream.set_read_timeout(Some(TRY_BOUND))?;
    stream.write_all(HEADER)?;
    let mut first = [0];
    stream.read_exact(&mut first)?;
    Ok(first[0] == METHOD_FRAME)
}

/// The address that an AMQP URL names, once a broker answers there. A TLS one is only connected to.
pub(super) fn check_url(url: &str) -> Result<SocketAddr> {
    let shown = without_password(url);
    let (scheme, rest) = url.split_once("://").with_context(|| format!("{shown} has no scheme"))?;
    let tls = match scheme {
        "amqp" => false,
        "amqps" => true,
        other => bail!("{shown} has the scheme {other}; use amqp or amqps"),
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let place = if has_port { host.to_owned() } else { format!("{host}:{}", if tls { 5671 } else { 5672 }) };
    let addresses = place.to_socket_addrs().with_context(|| format!("{shown} names no known host"))?;
    addresses
        .into_iter()
        .find(|&addr| if tls { TcpStream::connect_timeout(&addr, TRY_BOUND).is_ok() } else { answers(addr) })
        .with_context(|| format!("no broker answers at {place}, which {shown} names"))
}

fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => format!("{}…{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one connection with `bytes`.
    fn answering(bytes: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; 8]).unwrap();
            stream.write_all(bytes).unwrap();
        });
        addr
    }

    #[test]
    fn only_a_method_frame_is_an_answer() {
        assert!(answers(answering(&[1, 0, 0])));
        assert!(!answers(answering(b"AMQP")), "a server of another version sends its own header back");
    }

    #[test]
    fn an_url_is_refused_without_showing_its_password() {
        for (url, why) in [
            ("host:5672", "no scheme"),
            ("http://user:secret@host", "use amqp"),
            ("amqp://user:secret@127.0.0.1:1/%2f", "no broker answers at 127.0.0.1:1"),
        ] {
            let error = format!("{:#}", check_url(url).unwrap_err());
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_url_that_a_broker_answers_gives_its_address() {
        let addr = answering(&[1]);
        assert_eq!(check_url(&format!("amqp://u:p@{addr}/vhost?heartbeat=5")).unwrap(), addr);
    }
}
