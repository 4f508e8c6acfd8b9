//! What a router says when it refuses a setting or a name.

use crate::{LocationError, NameError, RegionId, suggest};

/// A setting that a router or a prober cannot work with; the message names it.
///
/// ```
/// let error = geo::Router::builder().region("us-east").region("us-east").build().unwrap_err();
/// assert_eq!(error.to_string(), "`region`: us-east is given twice; name each region once");
/// ```
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no region to route to.
    #[error("`region`: the router has no region; give it at least one")]
    NoRegion,
    /// There are more regions than a router plans over.
    #[error("`region`: {regions} regions are too many; at most {max} are allowed")]
    TooManyRegions {
        /// How many there are.
        regions: usize,
        /// How many there may be.
        max: usize,
    },
    /// Two regions have the same name.
    #[error("`region`: {region} is given twice; name each region once")]
    DuplicateRegion {
        /// The name.
        region: RegionId,
    },
    /// A name is not a region's name.
    #[error("`{field}`: {source}")]
    Name {
        /// The builder's method that was given the name.
        field: &'static str,
        /// Which rule the name breaks.
        source: NameError,
    },
    /// A region's coordinates are not on Earth.
    #[error("`{field}` of {region}: {source}")]
    Location {
        /// The builder's method that was given the coordinates.
        field: &'static str,
        /// The region's name.
        region: String,
        /// Which coordinate is wrong.
        source: LocationError,
    },
    /// A region's place is not in the catalogue, and the builder was told to
    /// [require places](crate::Builder::require_places).
    #[error("`{field}`: the catalogue has no {region}, give its coordinates with `{field}_at`{}", suggest::question(.nearest))]
    UnknownPlace {
        /// The builder's method that was given the name.
        field: &'static str,
        /// The name.
        region: RegionId,
        /// Names of the catalogue that are like it.
        nearest: Vec<&'static str>,
    },
    /// A number is out of its range.
    #[error("`{field}` {problem}")]
    Value {
        /// The builder's method that was given it.
        field: &'static str,
        /// What is wrong with it, and what is right.
        problem: String,
    },
}

/// A region that the router does not know.
///
/// ```
/// let router = geo::Router::builder().region("us-east").region("eu-central").build()?;
/// let error = router.in_flight(&"us-eats".parse()?).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "unknown region us-eats; the router knows us-east, eu-central; did you mean us-east?"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown region {region}; the router knows {}{}", listed(.known), suggest::question(&self.nearest()))]
#[non_exhaustive]
pub struct UnknownRegion {
    /// The region that was asked for.
    pub region: RegionId,
    /// Those there are, in the order they were given.
    pub known: Vec<RegionId>,
}

impl UnknownRegion {
    /// Those of the known ones whose names are like the one that was asked for, the nearest first; at most three.
    pub fn nearest(&self) -> Vec<&str> {
        suggest::nearest(self.region.as_str(), self.known.iter().map(RegionId::as_str))
    }
}

impl ConfigError {
    pub(crate) fn value(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Value { field, problem: problem.into() }
    }
}

/// The first ten names, and how many more there are.
fn listed(known: &[RegionId]) -> String {
    const SHOWN: usize = 10;
    let names: Vec<&str> = known.iter().take(SHOWN).map(RegionId::as_str).collect();
    let more = known.len().saturating_sub(SHOWN);
    let names = names.join(", ");
    if more == 0 { names } else { format!("{names} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_known_regions_is_cut_short() {
        let known: Vec<RegionId> = (0..12).map(|n| RegionId::new(format!("r{n}")).unwrap()).collect();
        let error = UnknownRegion { region: RegionId::new("mars").unwrap(), known };
        assert_eq!(
            error.to_string(),
            "unknown region mars; the router knows r0, r1, r2, r3, r4, r5, r6, r7, r8, r9 and 2 more"
        );
    }
}
