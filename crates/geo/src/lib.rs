#![doc = include_str!("../README.md")]

pub mod catalog;
mod error;
mod estimator;
mod location;
// Its tests run without the feature too, on the tokio of the tests.
#[cfg(any(feature = "prober", test))]
mod prober;
mod region;
mod router;
mod suggest;

pub use error::{ConfigError, UnknownRegion};
pub use estimator::Basis;
pub use location::{Location, LocationError, distance_km};
#[cfg(any(feature = "prober", test))]
pub use prober::{Prober, ProberBuilder, Probes};
pub use region::{NAME_BYTES_MAX, NameError, RegionId, check_name};
pub use router::{
    Builder, Candidate, Explained, Explanation, Health, InFlight, Outcome, Plan, REGIONS_MAX, Reason, Router,
    Standing,
};
#[cfg(feature = "watch")]
pub use router::{RegionStatus, Status, Watch};
