//! A broker's address: parsed once, shown without its password.

use std::{fmt, time::Duration};

use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};

use super::credentials::Login;

/// One broker of the configuration. Neither `Debug` nor `Display` shows the password.
#[derive(Clone)]
pub(super) struct Endpoint {
    uri: AMQPUri,
    has_user: bool,
    has_password: bool,
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
        let userinfo = userinfo(text).unwrap_or_default();
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        Ok(Self { uri, has_user: !user.is_empty(), has_password: !password.is_empty() })
    }

    /// The parameters of a connection. The heartbeat of the configuration replaces the URI's own, as does the login.
    pub(super) fn uri(&self, heartbeat: Duration, login: Option<Login>) -> AMQPUri {
        let mut uri = self.uri.clone();
        if let Some(Login { user, password }) = login {
            let userinfo = &mut uri.authority.userinfo;
            userinfo.password = password;
            if let Some(user) = user {
                userinfo.username = user;
            }
        }
        uri.query.heartbeat = Some(u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX));
        uri
    }

    pub(super) fn is_tls(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    /// Whether the text holds a password.
    pub(super) fn has_password(&self) -> bool {
        self.has_password
    }

    /// Whether the client certificate alone says who this is.
    pub(super) fn is_external(&self) -> bool {
        self.uri.query.auth_mechanism == Some(SASLMechanism::External)
    }

    pub(super) fn virtual_host(&self) -> &str {
        &self.uri.vhost
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.uri.authority;
        let (open, close) = if authority.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{}://", self.uri.scheme)?;
        if self.has_user || self.has_password {
            write!(f, "{}:***@", authority.userinfo.username)?;
        }
        write!(f, "{open}{}{close}:{}", authority.host, authority.port)?;
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
    let authority = authority(text)?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.strip_prefix('[')?.split_once(']').map(|(host, _)| host)
}

/// User and password of a URI, as it writes them.
fn userinfo(text: &str) -> Option<&str> {
    authority(text)?.rsplit_once('@').map(|(userinfo, _)| userinfo)
}

fn authority(text: &str) -> Option<&str> {
    text.split_once("://")?.1.split(['/', '?', '#']).next()
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
        assert_eq!(endpoint.uri(Duration::from_secs(5), None).authority.host, "::1");
        assert_eq!(endpoint.to_string(), "amqp://u:***@[::1]:5673");
    }

    #[test]
    fn percent_encoded_user_password_and_virtual_host_are_decoded() {
        let endpoint = Endpoint::parse("amqp://a%3Ann:p%40%3A%2F%25%20%C3%BC@h/a%2fb%2520c").unwrap();
        let uri = endpoint.uri(Duration::from_secs(5), None);
        let userinfo = &uri.authority.userinfo;
        assert_eq!((userinfo.username.as_str(), userinfo.password.as_str()), ("a:nn", "p@:/% ü"));
        assert_eq!((endpoint.virtual_host(), uri.authority.host.as_str()), ("a/b%20c", "h"));
    }

    #[test]
    fn a_login_takes_the_place_of_the_uris_own() {
        let login = |user: Option<&str>| Login { user: user.map(str::to_owned), password: "p@:/%".into() };
        let uri = |text, user| Endpoint::parse(text).unwrap().uri(Duration::from_secs(5), Some(login(user)));
        let bob = uri("amqp://ann@h", Some("bob")).authority.userinfo;
        assert_eq!((bob.username.as_str(), bob.password.as_str()), ("bob", "p@:/%"));
        assert_eq!(uri("amqp://ann@h", None).authority.userinfo.username, "ann");
        let plain = Endpoint::parse("amqp://h:1/v").unwrap();
        assert_eq!(plain.to_string(), "amqp://h:1/v", "no user is shown where none is named");
        assert!(!plain.has_password() && !Endpoint::parse("amqp://ann@h").unwrap().has_password());
        assert!(Endpoint::parse("amqp://ann:x@h").unwrap().has_password());
    }

    #[test]
    fn the_certificate_alone_can_say_who_this_is() {
        assert!(Endpoint::parse("amqps://h?auth_mechanism=external").unwrap().is_external());
        assert!(!Endpoint::parse("amqps://h").unwrap().is_external());
    }

    #[test]
    fn the_configured_heartbeat_replaces_the_uris_own() {
        let endpoint = Endpoint::parse("amqp://localhost?heartbeat=600").unwrap();
        assert_eq!(endpoint.uri(Duration::from_secs(4), None).query.heartbeat, Some(4));
        assert_eq!(endpoint.virtual_host(), "/");
    }
}
