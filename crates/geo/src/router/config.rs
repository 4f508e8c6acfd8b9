//! The settings of a router, checked once when it is built.

use std::time::Duration;

use super::Router;
use crate::{ConfigError, Location, RegionId, catalog, estimator::Smoothing};

/// Settings of a [`Router`] to be; begin with [`Router::builder`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    from: Option<Place>,
    regions: Vec<Place>,
    smoothing: Smoothing,
}

/// What was said of a region; it is checked when the router is built.
#[derive(Debug, Clone)]
struct Place {
    name: String,
    degrees: Option<(f64, f64)>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            from: None,
            regions: Vec::new(),
            smoothing: Smoothing { weight: 0.2, fresh: Duration::from_secs(600) },
        }
    }

    /// The region that the router is in; its place comes from the [catalogue](catalog), and if it is not there,
    /// it is unknown. Default: unknown, so that no distance is.
    pub fn from(mut self, region: impl AsRef<str>) -> Self {
        self.from = Some(Place { name: region.as_ref().to_owned(), degrees: None });
        self
    }

    /// The region that the router is in, and its latitude and longitude in degrees.
    pub fn from_at(mut self, region: impl AsRef<str>, latitude: f64, longitude: f64) -> Self {
        self.from = Some(Place { name: region.as_ref().to_owned(), degrees: Some((latitude, longitude)) });
        self
    }

    /// A region to route to; its place comes from the [catalogue](catalog), and if it is not there, the region
    /// is ranked by measured round trips alone.
    pub fn region(mut self, region: impl AsRef<str>) -> Self {
        self.regions.push(Place { name: region.as_ref().to_owned(), degrees: None });
        self
    }

    /// A region to route to, and its latitude and longitude in degrees.
    pub fn region_at(mut self, region: impl AsRef<str>, latitude: f64, longitude: f64) -> Self {
        self.regions.push(Place { name: region.as_ref().to_owned(), degrees: Some((latitude, longitude)) });
        self
    }

    /// The weight of the newest measurement in the mean. Default 0.2; above 0, at most 1.
    pub fn weight(mut self, weight: f64) -> Self {
        self.smoothing.weight = weight;
        self
    }

    /// How long a measurement is taken at its word; in as much time again it gives way to the distance. Default
    /// 10 minutes, above zero.
    pub fn fresh(mut self, fresh: Duration) -> Self {
        self.smoothing.fresh = fresh;
        self
    }

    /// A router over these regions, all healthy and none measured.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the setting: no region, too many, one twice, a name or a place that cannot
    /// be, a number out of its range.
    pub fn build(self) -> Result<Router, ConfigError> {
        let Self { from, regions, smoothing } = self;
        if !(smoothing.weight > 0.0 && smoothing.weight <= 1.0) {
            let problem = format!("is {}; use a share above 0, at most 1", smoothing.weight);
            return Err(ConfigError::Value { field: "weight", problem });
        }
        if smoothing.fresh.is_zero() {
            return Err(ConfigError::Value { field: "fresh", problem: "is zero; use more".to_owned() });
        }
        if regions.is_empty() {
            return Err(ConfigError::NoRegion);
        }
        let from = match from {
            Some(place) => place.check("from", "from_at")?.1,
            None => None,
        };
        let mut router = Router::empty(from, smoothing);
        for place in regions {
            let (region, location) = place.check("region", "region_at")?;
            router.add(region, location)?;
        }
        Ok(router)
    }
}

impl Place {
    /// The region and where it is, or the error of the field that said so.
    fn check(
        self,
        named: &'static str,
        placed: &'static str,
    ) -> Result<(RegionId, Option<Location>), ConfigError> {
        let field = if self.degrees.is_some() { placed } else { named };
        let region = RegionId::new(&self.name).map_err(|source| ConfigError::Name { field, source })?;
        let location = match self.degrees {
            Some((latitude, longitude)) => {
                Some(Location::new(latitude, longitude).map_err(|source| ConfigError::Location {
                    field,
                    region: self.name,
                    source,
                })?)
            }
            None => catalog::find(region.as_str()).map(|city| city.location),
        };
        Ok((region, location))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(builder: Builder) -> String {
        builder.build().expect_err("the settings are wrong").to_string()
    }

    #[test]
    fn each_wrong_setting_is_refused_by_name() {
        let new = || Router::builder().region("us-east");
        for (builder, message) in [
            (Router::builder(), "`region`: the router has no region; give it at least one"),
            (new().region("us-east"), "`region`: us-east is given twice; name each region once"),
            (new().region_at("us-east", 0.0, 0.0), "`region`: us-east is given twice; name each region once"),
            (new().region("EU"), "`region`: the name \"EU\" holds 'E'; only a-z, 0-9 and '-' are allowed"),
            (new().from(""), "`from`: a name must not be empty; use 1 to 63 bytes of a-z, 0-9 and '-'"),
            (
                new().region_at("lab", 91.0, 0.0),
                "`region_at` of lab: latitude 91 is not on Earth; use -90 (south pole) to 90 (north pole)",
            ),
            (
                new().region_at("lab", 0.0, f64::NAN),
                "`region_at` of lab: longitude NaN is not on Earth; use -180 (west) to 180 (east)",
            ),
            (
                new().from_at("lab", -90.5, 0.0),
                "`from_at` of lab: latitude -90.5 is not on Earth; use -90 (south pole) to 90 (north pole)",
            ),
            (new().weight(0.0), "`weight` is 0; use a share above 0, at most 1"),
            (new().weight(f64::NAN), "`weight` is NaN; use a share above 0, at most 1"),
            (new().fresh(Duration::ZERO), "`fresh` is zero; use more"),
        ] {
            assert_eq!(refused(builder), message);
        }
    }

    #[test]
    fn the_number_of_regions_is_bounded() {
        let many =
            |count: usize| (0..count).fold(Router::builder(), |builder, n| builder.region(format!("r{n}")));
        assert!(many(1_024).build().is_ok());
        assert_eq!(refused(many(1_025)), "`region`: 1025 regions are too many; at most 1024 are allowed");
    }
}
