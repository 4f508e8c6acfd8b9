//! A place on Earth, and how far it is to another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The Earth's mean radius (IUGG), in km.
const EARTH_RADIUS_KM: f64 = 6_371.008_8;

/// A place on Earth: a latitude and a longitude in degrees, both finite and in range.
///
/// North and east are positive.
///
/// ```
/// let frankfurt = geo::Location::new(50.1109, 8.6821)?;
/// let mumbai = geo::Location::new(19.0760, 72.8777)?;
/// assert_eq!(frankfurt.distance_km(mumbai).round(), 6564.0);
/// assert!(geo::Location::new(91.0, 0.0).is_err());
/// # Ok::<(), geo::LocationError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Degrees", into = "Degrees")]
pub struct Location {
    latitude: f64,
    longitude: f64,
}

/// A place that is not on Earth.
///
/// ```
/// let error = geo::Location::new(0.0, f64::NAN).unwrap_err();
/// assert_eq!(error.to_string(), "longitude NaN is not on Earth; use -180 (west) to 180 (east)");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// The latitude is not a number from -90 to 90.
    #[error("latitude {0} is not on Earth; use -90 (south pole) to 90 (north pole)")]
    Latitude(f64),
    /// The longitude is not a number from -180 to 180.
    #[error("longitude {0} is not on Earth; use -180 (west) to 180 (east)")]
    Longitude(f64),
}

/// What a location is on the wire and in a configuration file.
#[derive(Serialize, Deserialize)]
struct Degrees {
    latitude: f64,
    longitude: f64,
}

impl Location {
    /// The place at these degrees.
    ///
    /// # Errors
    /// A [`LocationError`] that names the coordinate which is out of range or not a number.
    pub fn new(latitude: f64, longitude: f64) -> Result<Self, LocationError> {
        if !(-90.0..=90.0).contains(&latitude) {
            return Err(LocationError::Latitude(latitude));
        }
        if !(-180.0..=180.0).contains(&longitude) {
            return Err(LocationError::Longitude(longitude));
        }
        Ok(Self { latitude, longitude })
    }

    /// For the catalogue, whose test checks every row.
    pub(crate) const fn unchecked(latitude: f64, longitude: f64) -> Self {
        Self { latitude, longitude }
    }

    /// Degrees north of the equator, -90 to 90.
    pub fn latitude(self) -> f64 {
        self.latitude
    }

    /// Degrees east of Greenwich, -180 to 180.
    pub fn longitude(self) -> f64 {
        self.longitude
    }

    /// The great-circle distance to `other`, in km.
    ///
    /// By the haversine formula on a sphere, which is at most 0.6 % off the ellipsoid.
    pub fn distance_km(self, other: Self) -> f64 {
        let (from, to) = (self.latitude.to_radians(), other.latitude.to_radians());
        let half_north = (to - from) / 2.0;
        let half_east = (other.longitude - self.longitude).to_radians() / 2.0;
        let h = half_north.sin().powi(2) + from.cos() * to.cos() * half_east.sin().powi(2);
        // Rounding may push it a hair past 1 between antipodes, where the root of 1 - h would be NaN.
        let h = h.clamp(0.0, 1.0);
        2.0 * EARTH_RADIUS_KM * h.sqrt().atan2((1.0 - h).sqrt())
    }
}

/// The great-circle distance between two places, in km; see [`Location::distance_km`].
///
/// ```
/// let pole = geo::Location::new(90.0, 0.0)?;
/// let equator = geo::Location::new(0.0, 123.0)?;
/// assert_eq!(geo::distance_km(pole, equator).round(), 10_008.0);
/// # Ok::<(), geo::LocationError>(())
/// ```
pub fn distance_km(a: Location, b: Location) -> f64 {
    a.distance_km(b)
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let north = if self.latitude < 0.0 { 'S' } else { 'N' };
        let east = if self.longitude < 0.0 { 'W' } else { 'E' };
        write!(f, "{:.2}°{north} {:.2}°{east}", self.latitude.abs(), self.longitude.abs())
    }
}

impl TryFrom<Degrees> for Location {
    type Error = LocationError;

    fn try_from(degrees: Degrees) -> Result<Self, LocationError> {
        Self::new(degrees.latitude, degrees.longitude)
    }
}

impl From<Location> for Degrees {
    fn from(location: Location) -> Self {
        Self { latitude: location.latitude, longitude: location.longitude }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HALF_WAY_ROUND_KM: f64 = std::f64::consts::PI * EARTH_RADIUS_KM;

    fn at(latitude: f64, longitude: f64) -> Location {
        Location::new(latitude, longitude).unwrap()
    }

    fn assert_km(a: Location, b: Location, expected: f64) {
        let km = distance_km(a, b);
        assert!((km - expected).abs() < 1.0, "{a} to {b}: {km} km, not {expected}");
    }

    #[test]
    fn known_distances_between_cities_hold() {
        let (london, new_york, sydney) =
            (at(51.5074, -0.1278), at(40.7128, -74.0060), at(-33.8688, 151.2093));
        assert_km(london, new_york, 5_570.0);
        assert_km(london, sydney, 16_994.0);
    }

    #[test]
    fn all_longitudes_meet_at_a_pole() {
        assert_km(at(90.0, 0.0), at(90.0, 137.0), 0.0);
        assert_km(at(-90.0, -180.0), at(-90.0, 45.0), 0.0);
        assert_km(at(90.0, 12.0), at(0.0, -150.0), HALF_WAY_ROUND_KM / 2.0);
    }

    #[test]
    fn the_antimeridian_is_no_border() {
        assert_km(at(0.0, 179.5), at(0.0, -179.5), 111.2);
        assert_km(at(51.0, 180.0), at(51.0, -180.0), 0.0);
    }

    #[test]
    fn antipodes_are_half_the_way_round() {
        assert_km(at(90.0, 0.0), at(-90.0, 0.0), HALF_WAY_ROUND_KM);
        assert_km(at(0.0, -90.0), at(0.0, 90.0), HALF_WAY_ROUND_KM);
        assert_km(at(37.3, 12.7), at(-37.3, -167.3), HALF_WAY_ROUND_KM);
    }

    #[test]
    fn places_off_the_earth_are_refused_by_coordinate() {
        for latitude in [91.0, -90.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(Location::new(latitude, 0.0), Err(LocationError::Latitude(_))), "{latitude}");
        }
        for longitude in [180.1, -181.0, f64::NAN, f64::NEG_INFINITY] {
            assert!(matches!(Location::new(0.0, longitude), Err(LocationError::Longitude(_))), "{longitude}");
        }
        assert_eq!(
            Location::new(91.0, 0.0).unwrap_err().to_string(),
            "latitude 91 is not on Earth; use -90 (south pole) to 90 (north pole)"
        );
    }

    #[test]
    fn serde_keeps_a_place_and_refuses_one_off_the_earth() {
        let tokyo = at(35.6762, 139.6503);
        let json = serde_json::to_string(&tokyo).unwrap();
        assert_eq!(json, r#"{"latitude":35.6762,"longitude":139.6503}"#);
        assert_eq!(serde_json::from_str::<Location>(&json).unwrap(), tokyo);
        let error = serde_json::from_str::<Location>(r#"{"latitude":0,"longitude":200}"#).unwrap_err();
        assert!(error.to_string().contains("longitude 200"), "{error}");
    }

    proptest! {
        #[test]
        fn distance_is_a_metric_within_half_the_way_round(
            a in (-90.0f64..=90.0, -180.0f64..=180.0),
            b in (-90.0f64..=90.0, -180.0f64..=180.0),
            c in (-90.0f64..=90.0, -180.0f64..=180.0),
        ) {
            let (a, b, c) = (at(a.0, a.1), at(b.0, b.1), at(c.0, c.1));
            let ab = a.distance_km(b);
            prop_assert!((0.0..=HALF_WAY_ROUND_KM + 1e-6).contains(&ab));
            prop_assert!((ab - b.distance_km(a)).abs() < 1e-6);
            prop_assert!(a.distance_km(a) < 1e-6);
            prop_assert!(a.distance_km(c) <= ab + b.distance_km(c) + 1e-3);
        }
    }
}
