//! User and password: given, in a file, or in the environment.
//!
//! They are read at each attempt to connect, so that a rotated password needs no restart: the broker's operator changes it,
//! closes the connections, and the next attempt reads the new one. Until the file holds it, the broker refuses the
//! attempts, health says so, and they go on with growing waits.
//!
//! What is not promised: passwords are not wiped from memory after use, and the client library holds its own copies for as
//! long as a connection lives.

use std::{
    env, fmt,
    path::{Path, PathBuf},
};

use super::{error::ConfigError, source};

/// Where the user and the password for the brokers come from, in place of the URIs' own.
///
/// `Debug` shows no password.
///
/// ```
/// use replication::rabbitmq::Credentials;
///
/// let given = Credentials::new("geocache", "hunter2");
/// assert_eq!(format!("{given:?}"), r#"Credentials { user: Some("geocache"), password: "***" }"#);
/// let mounted = Credentials::file("/run/secrets/amqp-password");
/// let variables = Credentials::environment("AMQP_USER", "AMQP_PASSWORD");
/// # let _ = (mounted, variables);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Option<Source>,
    password: Source,
}

#[derive(Clone, PartialEq, Eq)]
enum Source {
    Text(String),
    /// A line of a file.
    File(PathBuf),
    Variable(String),
}

/// A user and a password, as the broker gets them.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    /// `None` leaves the URI's user.
    pub(super) user: Option<String>,
    pub(super) password: String,
}

impl Credentials {
    /// This user and this password. They are taken as they are, with no percent-encoding.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: Some(Source::Text(user.into())), password: Source::Text(password.into()) }
    }

    /// A file of one line, the password of the URI's user; or of two lines, the user and the password. Its last line may
    /// end with a newline; nothing is percent-encoded.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self { user: Some(Source::File(path.clone())), password: Source::File(path) }
    }

    /// Environment variables of these names.
    ///
    /// A process cannot be given another environment while it runs, so this one does not serve rotation.
    pub fn environment(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: Some(Source::Variable(user.into())), password: Source::Variable(password.into()) }
    }

    /// An environment variable with the password of the URI's user.
    pub fn password_variable(name: impl Into<String>) -> Self {
        Self { user: None, password: Source::Variable(name.into()) }
    }

    /// What they are now.
    pub(super) fn read(&self) -> Result<Login, ConfigError> {
        self.login().map_err(|problem| ConfigError { field: "credentials", problem })
    }

    fn login(&self) -> Result<Login, String> {
        // Both are of one file: one read sees one state of it.
        if let Source::File(path) = &self.password {
            return of_file(path);
        }
        let user = self.user.as_ref().map(Source::value).transpose()?;
        Ok(Login { user, password: self.password.value()? })
    }
}

impl Source {
    fn value(&self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Variable(name) => match env::var(name) {
                Ok(value) if !value.is_empty() => Ok(value),
                Ok(_) | Err(env::VarError::NotPresent) => {
                    Err(format!("names the environment variable {name}, which is not set"))
                }
                Err(env::VarError::NotUnicode(_)) => {
                    Err(format!("names the environment variable {name}, which is not UTF-8"))
                }
            },
            Self::File(path) => of_file(path).map(|login| login.password),
        }
    }
}

fn of_file(path: &Path) -> Result<Login, String> {
    let bytes = source::read(path)?;
    let shown = path.display();
    let text = String::from_utf8(bytes).map_err(|_| format!("names the file {shown}, which is not UTF-8"))?;
    let lines: Vec<&str> = text.lines().collect();
    let how = "write one line with the password, or two with the user and the password";
    match lines[..] {
        [password] if !password.is_empty() => Ok(Login { user: None, password: password.to_owned() }),
        [user, password] if !user.is_empty() && !password.is_empty() => {
            Ok(Login { user: Some(user.to_owned()), password: password.to_owned() })
        }
        [] | [""] => Err(format!("names the file {shown}, which is empty; {how}")),
        [_, _] => Err(format!("names the file {shown}, which has an empty line; {how}")),
        _ => Err(format!("names the file {shown}, which has {} lines; {how}", lines.len())),
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Credentials");
        match &self.password {
            Source::Text(_) => shown.field("user", &self.user).field("password", &"***"),
            Source::File(path) => shown.field("file", path),
            Source::Variable(name) => shown.field("user", &self.user).field("password", name),
        };
        shown.finish()
    }
}

/// Of a user; a password is never shown by it.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Variable(text) => text.fmt(f),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8]) -> (tempfile::NamedTempFile, Credentials) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let credentials = Credentials::file(file.path());
        (file, credentials)
    }

    #[test]
    fn a_file_has_the_password_or_user_and_password() {
        for (text, user, password) in [
            ("hunter2", None, "hunter2"),
            ("hunter2\n", None, "hunter2"),
            ("hunter2\r\n", None, "hunter2"),
            ("ann\n p:@/%2f \n", Some("ann"), " p:@/%2f "),
        ] {
            let (_file, credentials) = written(text.as_bytes());
            let login = credentials.read().unwrap();
            assert_eq!((login.user.as_deref(), login.password.as_str()), (user, password), "{text:?}");
        }
    }

    #[test]
    fn a_file_is_read_anew_each_time() {
        let (file, credentials) = written(b"old");
        assert_eq!(credentials.read().unwrap().password, "old");
        std::fs::write(file.path(), "new\n").unwrap();
        assert_eq!(credentials.read().unwrap().password, "new");
    }

    #[test]
    fn what_cannot_be_read_is_named_and_not_shown() {
        let long = vec![b'x'; source::FILE_BYTES_MAX as usize + 1];
        for text in [&b""[..], b"\n", b"hunter2\n\n", b"ann\nhunter2\nbob\n", b"hunter2\xff", &long] {
            let (file, credentials) = written(text);
            let error = credentials.read().unwrap_err();
            let shown = error.to_string();
            assert_eq!(error.field, "credentials");
            assert!(shown.contains(file.path().to_str().unwrap()) && !shown.contains("hunter2"), "{shown}");
        }
        let error = Credentials::file("/nowhere/at-all").read().unwrap_err().to_string();
        assert!(error.contains("/nowhere/at-all"), "{error}");
        let error = Credentials::environment("GEOCACHE_UNSET_A", "GEOCACHE_UNSET_B").read().unwrap_err();
        assert!(error.to_string().contains("GEOCACHE_UNSET_A"), "{error}");
    }

    #[test]
    fn debug_shows_no_password() {
        let all = [
            Credentials::new("ann", "hunter2"),
            Credentials::file("/run/secrets/amqp"),
            Credentials::environment("AMQP_USER", "AMQP_PASSWORD"),
            Credentials::password_variable("AMQP_PASSWORD"),
        ];
        let shown = format!("{all:?} {:?}", all[0].read().unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        for named in ["ann", "/run/secrets/amqp", "AMQP_USER", "AMQP_PASSWORD"] {
            assert!(shown.contains(named), "{shown}");
        }
    }
}
