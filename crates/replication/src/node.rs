//! Who wrote a record: a node, and its compact form on the wire.

use std::{fmt, sync::Arc};

use geo::{NameError, RegionId, check_name};
use xxhash_rust::xxh3::xxh3_64;

/// A node of a region: the region's name and the node's own, each 1 to 63 bytes of `[a-z0-9-]`.
///
/// Cheap to clone. Displayed as `region/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    region: RegionId,
    name: Arc<str>,
}

impl NodeId {
    /// The node `name` of `region`.
    ///
    /// # Errors
    /// A [`NameError`] if the node's name breaks the rule of [`check_name`].
    pub fn new(region: RegionId, name: impl AsRef<str>) -> Result<Self, NameError> {
        check_name(name.as_ref())?;
        Ok(Self { region, name: Arc::from(name.as_ref()) })
    }

    /// The region it belongs to.
    pub fn region(&self) -> &RegionId {
        &self.region
    }

    /// Its name within the region.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its compact form in stamps and origin tables.
    pub fn origin(&self) -> Origin {
        Origin(xxh3_64(self.to_string().as_bytes()))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region, self.name)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// A node as eight bytes: the xxh3-64 of `region/name`.
///
/// Stamps carry it in place of the names, so that a stamp is a small `Copy` value whose order is the same on every
/// node. Two names share an origin with a chance of 2⁻⁶⁴ a pair; the names themselves travel in each frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Origin(pub u64);

/// One process life of a node: the stream of records that it numbered 1, 2, 3….
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stream {
    /// The node that wrote the records.
    pub origin: Origin,
    /// Its epoch: the hybrid logical clock at its start, with random low bits.
    pub epoch: u64,
}
