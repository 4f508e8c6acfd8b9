//! Regions, and which of them is closest and healthy.

mod region;

pub use region::{NAME_BYTES_MAX, NameError, RegionId, check_name};
