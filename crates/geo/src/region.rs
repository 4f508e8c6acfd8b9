//! The name of a region.

#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The longest name, in bytes, that a region, a node or a cache may have.
///
/// ```
/// assert!(geo::check_name(&"x".repeat(geo::NAME_BYTES_MAX)).is_ok());
/// ```
pub const NAME_BYTES_MAX: usize = 63;

/// A region's name: 1 to 63 bytes of `[a-z0-9-]`.
///
/// Cheap to clone. Ordered and compared as text.
///
/// ```
/// let region: geo::RegionId = "eu-central".parse()?;
/// assert_eq!(region.as_str(), "eu-central");
/// assert!("EU Central".parse::<geo::RegionId>().is_err());
/// # Ok::<(), geo::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegionId(Arc<str>);

/// A name that is not 1 to 63 bytes of `[a-z0-9-]`.
///
/// ```
/// let error = geo::RegionId::new("EU").unwrap_err();
/// assert_eq!(error.to_string(), "the name \"EU\" holds 'E'; only a-z, 0-9 and '-' are allowed");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no bytes.
    #[error("a name must not be empty; use 1 to {NAME_BYTES_MAX} bytes of a-z, 0-9 and '-'")]
    Empty,
    /// The name has more than [`NAME_BYTES_MAX`] bytes.
    #[error("the name has {bytes} bytes; at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
    },
    /// The name holds a character outside `[a-z0-9-]`.
    #[error("the name {name:?} holds {found:?}; only a-z, 0-9 and '-' are allowed")]
    Character {
        /// The whole name.
        name: String,
        /// The first character that is not allowed.
        found: char,
    },
}

/// Checks a region, node or cache name: 1 to 63 bytes of `[a-z0-9-]`.
///
/// ```
/// assert!(geo::check_name("eu-central").is_ok());
/// assert_eq!(geo::check_name(""), Err(geo::NameError::Empty));
/// ```
///
/// # Errors
/// A [`NameError`] that says which part of the rule the name breaks.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    match name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        Some(found) => Err(NameError::Character { name: name.to_owned(), found }),
        None => Ok(()),
    }
}

impl RegionId {
    /// A region of this name.
    ///
    /// # Errors
    /// A [`NameError`] if the name breaks the rule of [`check_name`].
    pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
        let name = name.as_ref();
        check_name(name)?;
        Ok(Self(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionId({})", self.0)
    }
}

impl AsRef<str> for RegionId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for RegionId {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl TryFrom<&str> for RegionId {
    type Error = NameError;

    fn try_from(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl TryFrom<String> for RegionId {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl From<RegionId> for String {
    fn from(region: RegionId) -> Self {
        region.0.as_ref().to_owned()
    }
}
