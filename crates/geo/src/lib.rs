#![doc = include_str!("../README.md")]

pub mod catalog;
mod error;
mod estimator;
mod location;
mod region;
mod router;
mod suggest;

pub use error::{ConfigError, UnknownRegion};
pub use estimator::Basis;
pub use location::{Location, LocationError, distance_km};
pub use region::{NAME_BYTES_MAX, NameError, RegionId, check_name};
pub use router::{
    Builder, Candidate, Explained, Explanation, Health, InFlight, Outcome, Plan, REGIONS_MAX, Reason, Router,
    Standing,
};
#[cfg(feature = "watch")]
pub use router::{RegionStatus, Status, Watch};
