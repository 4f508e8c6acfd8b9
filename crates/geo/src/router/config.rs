//! The settings of a router, checked once when it is built.

use std::time::Duration;

use super::{
    Router,
    core::{Core, Settings},
    health::Rules,
};
use crate::{ConfigError, Location, RegionId, catalog, estimator::Smoothing};

/// Settings of a [`Router`] to be; begin with [`Router::builder`].
///
/// All are checked by [`build`](Self::build), whose error names the setting.
///
/// ```
/// use std::time::Duration;
///
/// let router = geo::Router::builder()
///     .from("eu-central")
///     .region("us-east")
///     .region_at("office", 48.1372, 11.5755)
///     .margin(Duration::from_millis(10), 0.2)
///     .round(Duration::from_secs(5))
///     .seed(7)
///     .build()?;
/// assert_eq!(router.regions().len(), 2);
///
/// let error = geo::Router::builder().region_at("office", 91.0, 11.5755).build().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "`region_at` of office: latitude 91 is not on Earth; use -90 (south pole) to 90 (north pole)"
/// );
/// # Ok::<(), geo::ConfigError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    from: Option<Place>,
    regions: Vec<Place>,
    places_required: bool,
    settings: Settings,
    margin: Duration,
    rules: Rules,
    counts: bool,
    seed: Option<u64>,
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
            places_required: false,
            settings: Settings {
                smoothing: Smoothing { weight: 0.2, fresh: Duration::from_secs(600) },
                margin_ms: 0.0,
                margin_share: 0.1,
                round: Duration::from_secs(1),
                rounds: 3,
                balance: true,
                counting: None,
            },
            margin: Duration::from_millis(5),
            rules: Rules { failures: 3, probes: 2, wait: Duration::from_secs(5) },
            counts: true,
            seed: None,
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

    /// Refuses a region by name alone that the catalogue does not have, as one with a slip in its name, instead of
    /// ranking it by measured round trips. Default: it is ranked so.
    pub fn require_places(mut self) -> Self {
        self.places_required = true;
        self
    }

    /// The weight of the newest measurement in the mean. Default 0.2; above 0, at most 1.
    pub fn weight(mut self, weight: f64) -> Self {
        self.settings.smoothing.weight = weight;
        self
    }

    /// How long a measurement is taken at its word; in as much time again it gives way to the distance. Default
    /// 10 minutes, above zero.
    pub fn fresh(mut self, fresh: Duration) -> Self {
        self.settings.smoothing.fresh = fresh;
        self
    }

    /// By how much another region must be closer to become the first choice, and within how much regions are as close
    /// as the first: the longer of a time, and a share of the first choice's round trip. Default 5 ms and 0.1; above
    /// zero, the share at most 1.
    pub fn margin(mut self, time: Duration, share: f64) -> Self {
        self.margin = time;
        self.settings.margin_share = share;
        self
    }

    /// How often the order is looked at. Default 1 s, above zero.
    pub fn round(mut self, round: Duration) -> Self {
        self.settings.round = round;
        self
    }

    /// For how many rounds in a row another region must be closer by the margin to become the first choice. Default
    /// 3, at least 1.
    pub fn rounds(mut self, rounds: u32) -> Self {
        self.settings.rounds = rounds;
        self
    }

    /// Whether plans share their calls among regions as close as the first, by what is in flight. Default true; without,
    /// each plan begins with the first choice, as those want who read what they wrote.
    pub fn balance(mut self, balance: bool) -> Self {
        self.settings.balance = balance;
        self
    }

    /// How many calls in a row must fail to put a region out. Default 3, at least 1.
    pub fn failures(mut self, failures: u32) -> Self {
        self.rules.failures = failures;
        self
    }

    /// How many probes in a row must succeed to bring it back. Default 2, at least 1.
    pub fn probes(mut self, probes: u32) -> Self {
        self.rules.probes = probes;
        self
    }

    /// How long a region that is out waits until it is [due for a probe](Router::probe_due), after a failure and after
    /// a probe. Default 5 s, above zero.
    pub fn probe_wait(mut self, wait: Duration) -> Self {
        self.rules.wait = wait;
        self
    }

    /// Leaves health to what [`Router::set_health`] is told, as by a circuit breaker that counts for itself. Default:
    /// the outcomes of calls are counted too, and the worse of the two holds; a word that takes a region back in
    /// overrules what was counted before it.
    pub fn health_by_caller(mut self) -> Self {
        self.counts = false;
        self
    }

    /// What the draws are made of, so that a run can be repeated. Default: another one for each router.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// A router over these regions, all healthy and none measured.
    ///
    /// # Errors
    /// A [`ConfigError`] that names the setting: no region, too many, one twice, a name or a place that cannot
    /// be, a number out of its range.
    pub fn build(self) -> Result<Router, ConfigError> {
        let Self { from, regions, places_required, mut settings, margin, rules, counts, seed } = self;
        share("weight", settings.smoothing.weight)?;
        share("margin", settings.margin_share)?;
        for (field, time) in [
            ("fresh", settings.smoothing.fresh),
            ("margin", margin),
            ("round", settings.round),
            ("probe_wait", rules.wait),
        ] {
            above_zero(field, time.is_zero())?;
        }
        for (field, count) in
            [("rounds", settings.rounds), ("failures", rules.failures), ("probes", rules.probes)]
        {
            above_zero(field, count == 0)?;
        }
        if regions.is_empty() {
            return Err(ConfigError::NoRegion);
        }
        settings.margin_ms = margin.as_secs_f64() * 1_000.0;
        settings.counting = counts.then_some(rules);
        let from = match from {
            Some(place) => place.check("from", "from_at", places_required)?.1,
            None => None,
        };
        let mut core = Core::new(settings, from, seed.unwrap_or_else(|| fastrand::u64(..)));
        for place in regions {
            let (region, location) = place.check("region", "region_at", places_required)?;
            core.add(region, location)?;
        }
        Ok(Router::new(core))
    }
}

fn share(field: &'static str, share: f64) -> Result<(), ConfigError> {
    if share > 0.0 && share <= 1.0 {
        return Ok(());
    }
    Err(ConfigError::value(field, format!("is {share}; use a share above 0, at most 1")))
}

fn above_zero(field: &'static str, is_zero: bool) -> Result<(), ConfigError> {
    if is_zero { Err(ConfigError::value(field, "is zero; use more")) } else { Ok(()) }
}

impl Place {
    /// The region and where it is, or the error of the field that said so.
    fn check(
        self,
        named: &'static str,
        placed: &'static str,
        required: bool,
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
            None => match catalog::look_up(region.as_str()) {
                Ok(city) => Some(city.location),
                Err(unknown) if required => {
                    return Err(ConfigError::UnknownPlace { field, region, nearest: unknown.nearest });
                }
                Err(_) => None,
            },
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
            (new().weight(-0.5), "`weight` is -0.5; use a share above 0, at most 1"),
            (new().fresh(Duration::ZERO), "`fresh` is zero; use more"),
            (new().margin(Duration::ZERO, 0.1), "`margin` is zero; use more"),
            (
                new().margin(Duration::from_millis(5), -0.1),
                "`margin` is -0.1; use a share above 0, at most 1",
            ),
            (
                new().margin(Duration::from_millis(5), f64::NAN),
                "`margin` is NaN; use a share above 0, at most 1",
            ),
            (new().round(Duration::ZERO), "`round` is zero; use more"),
            (new().rounds(0), "`rounds` is zero; use more"),
            (new().failures(0), "`failures` is zero; use more"),
            (new().probes(0), "`probes` is zero; use more"),
            (new().probe_wait(Duration::ZERO), "`probe_wait` is zero; use more"),
            (
                new().region("eu-centrall").require_places(),
                "`region`: the catalogue has no eu-centrall, give its coordinates with `region_at`; did you mean \
                 eu-central, eu-central-1 or eu-central-2?",
            ),
            (
                new().from("atlantis").require_places(),
                "`from`: the catalogue has no atlantis, give its coordinates with `from_at`",
            ),
        ] {
            assert_eq!(refused(builder), message);
        }
    }

    #[test]
    fn a_place_that_is_given_need_not_be_in_the_catalogue() {
        assert!(Router::builder().region_at("atlantis", 31.0, -24.0).require_places().build().is_ok());
        assert!(Router::builder().region("atlantis").build().is_ok());
    }

    #[test]
    fn the_number_of_regions_is_bounded() {
        let many =
            |count: usize| (0..count).fold(Router::builder(), |builder, n| builder.region(format!("r{n}")));
        assert!(many(1_024).build().is_ok());
        assert_eq!(refused(many(1_025)), "`region`: 1025 regions are too many; at most 1024 are allowed");
    }
}
