//! Text that is given outright or kept in a file, such as a certificate or a key.

use std::{
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
};

/// The longest file that is read for a credential, a certificate or a key.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Certificates or a key in PEM: the text itself, or the file that holds it.
///
/// A file is read again at each attempt to connect, so a renewed certificate is taken without a restart: at the next
/// connection, for TLS keeps what a connection began with. `Debug` shows the file's name and never the text.
///
/// ```
/// use replication::rabbitmq::Pem;
///
/// let given = Pem::from("-----BEGIN CERTIFICATE-----…");
/// assert_eq!(format!("{given:?}"), "Pem(…)");
/// let kept = Pem::file("/etc/geocache/ca.pem");
/// assert_eq!(format!("{kept:?}"), "Pem(file \"/etc/geocache/ca.pem\")");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(Source);

#[derive(Clone, PartialEq, Eq)]
enum Source {
    Text(Vec<u8>),
    File(PathBuf),
}

impl Pem {
    /// The PEM in this file; at most [`FILE_BYTES_MAX`] are read.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// The text, and a word for where it is.
    pub(super) fn read(&self) -> Result<(Vec<u8>, String), String> {
        match &self.0 {
            Source::Text(text) => Ok((text.clone(), "the text given".to_owned())),
            Source::File(path) => Ok((read(path)?, format!("the file {}", path.display()))),
        }
    }
}

impl From<&str> for Pem {
    fn from(text: &str) -> Self {
        Self(Source::Text(text.into()))
    }
}

impl From<String> for Pem {
    fn from(text: String) -> Self {
        Self(Source::Text(text.into()))
    }
}

impl From<Vec<u8>> for Pem {
    fn from(text: Vec<u8>) -> Self {
        Self(Source::Text(text))
    }
}

impl From<PathBuf> for Pem {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}

impl From<&Path> for Pem {
    fn from(path: &Path) -> Self {
        Self::file(path)
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Text(_) => f.write_str("Pem(…)"),
            Source::File(path) => write!(f, "Pem(file {path:?})"),
        }
    }
}

/// The file's bytes; the error names the file and never what is in it.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let file = fs::File::open(path)
        .map_err(|error| format!("names the file {shown}, which cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    let taken = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    taken.map_err(|error| format!("names the file {shown}, which cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("names the file {shown}, which is longer than {FILE_BYTES_MAX} bytes"));
    }
    Ok(bytes)
}
