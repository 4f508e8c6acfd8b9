//! The cities of the common cloud regions.
//!
//! One row per city, so that its coordinates stand once, however many clouds are there. The names are those
//! that AWS, Google Cloud and Azure give their regions, and short ones that need no cloud (`us-east`,
//! `eu-central`). Coordinates are of the city that the provider names; where it names only a state or a
//! country, of a large city or known site there, which is near enough for ordering regions by distance.
//!
//! Typed from public knowledge and part of the binary: nothing is looked up at run time. A region that is
//! missing here needs its coordinates from the configuration, or is ranked by measured round trips alone.
//!
//! ```
//! let city = geo::catalog::find("eu-central").expect("it is in the catalogue");
//! assert_eq!((city.name, city.country), ("Frankfurt", "Germany"));
//! assert_eq!(geo::catalog::find("europe-west3"), Some(city));
//! assert_eq!(geo::catalog::find("atlantis-1"), None);
//! assert_eq!(geo::catalog::look_up("eu-centrl").unwrap_err().nearest[0], "eu-central");
//! ```

use crate::{Location, suggest};

/// A city with at least one cloud region: the source of its coordinates.
///
/// ```
/// let city = geo::catalog::find("eu-west").expect("it is in the catalogue");
/// assert_eq!(city.regions, ["eu-west", "eu-west-1", "northeurope"]);
/// assert_eq!(city.location.to_string(), "53.35°N 6.26°W");
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct City {
    /// The city's name in English.
    pub name: &'static str,
    /// The country's name in English.
    pub country: &'static str,
    /// Where it is.
    pub location: Location,
    /// The names of its regions: short aliases, then AWS, Google Cloud, Azure.
    pub regions: &'static [&'static str],
}

/// A region's name that the catalogue does not have.
///
/// ```
/// let error = geo::catalog::look_up("us-eats").unwrap_err();
/// assert_eq!(error.to_string(), "the catalogue has no region us-eats; did you mean us-east, us-east1 or us-east4?");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the catalogue has no region {name}{}", suggest::question(.nearest))]
#[non_exhaustive]
pub struct NotInCatalog {
    /// The name.
    pub name: String,
    /// Names that are like it, the nearest first; at most three.
    pub nearest: Vec<&'static str>,
}

/// The city of the region of this name, or an error that says which names are like it.
///
/// ```
/// assert_eq!(geo::catalog::look_up("japaneast")?.name, "Tokyo");
/// # Ok::<(), geo::catalog::NotInCatalog>(())
/// ```
///
/// # Errors
/// [`NotInCatalog`].
pub fn look_up(region: &str) -> Result<&'static City, NotInCatalog> {
    find(region).ok_or_else(|| {
        let names = CITIES.iter().flat_map(|city| city.regions.iter().copied());
        NotInCatalog { name: region.to_owned(), nearest: suggest::nearest(region, names) }
    })
}

/// The city of the region of this name, if the catalogue has it.
///
/// Names are compared exactly; all are lowercase.
///
/// ```
/// assert_eq!(geo::catalog::find("us-east-1").map(|city| city.name), Some("Ashburn"));
/// assert_eq!(geo::catalog::find("US-EAST-1"), None);
/// ```
pub fn find(region: &str) -> Option<&'static City> {
    CITIES.iter().find(|city| city.regions.contains(&region))
}

/// All cities, continent by continent.
///
/// ```
/// let african: Vec<_> = geo::catalog::cities().iter().filter(|city| city.country == "South Africa").collect();
/// assert_eq!(african.len(), 2);
/// ```
pub fn cities() -> &'static [City] {
    CITIES
}

const fn city(
    name: &'static str,
    country: &'static str,
    latitude: f64,
    longitude: f64,
    regions: &'static [&'static str],
) -> City {
    City { name, country, location: Location::unchecked(latitude, longitude), regions }
}

const USA: &str = "United States";

#[rustfmt::skip]
static CITIES: &[City] = &[
    // North America
    city("San Francisco", USA, 37.7749, -122.4194, &["us-west-1", "westus"]),
    city("The Dalles", USA, 45.5946, -121.1787, &["us-west1"]),
    city("Quincy", USA, 47.2343, -119.8526, &["westus2"]),
    city("Boardman", USA, 45.8399, -119.7006, &["us-west", "us-west-2", "us-gov-west-1"]),
    city("Los Angeles", USA, 34.0522, -118.2437, &["us-west2"]),
    city("Las Vegas", USA, 36.1716, -115.1391, &["us-west4"]),
    city("Calgary", "Canada", 51.0447, -114.0719, &["ca-west", "ca-west-1"]),
    city("Phoenix", USA, 33.4484, -112.0740, &["westus3", "usgovarizona"]),
    city("Salt Lake City", USA, 40.7608, -111.8910, &["us-west3"]),
    city("Cheyenne", USA, 41.1400, -104.8202, &["westcentralus"]),
    city("Querétaro", "Mexico", 20.5888, -100.3899, &["mx-central", "mx-central-1", "northamerica-south1", "mexicocentral"]),
    city("San Antonio", USA, 29.4241, -98.4936, &["southcentralus", "usgovtexas"]),
    city("Dallas", USA, 32.7767, -96.7970, &["us-south", "us-south1"]),
    city("Council Bluffs", USA, 41.2619, -95.8608, &["us-central", "us-central1"]),
    city("Des Moines", USA, 41.5868, -93.6250, &["centralus"]),
    city("Chicago", USA, 41.8781, -87.6298, &["northcentralus"]),
    city("Columbus", USA, 39.9612, -82.9988, &["us-east-2", "us-gov-east-1", "us-east5"]),
    city("Moncks Corner", USA, 33.1960, -80.0131, &["us-east1"]),
    city("Toronto", "Canada", 43.6532, -79.3832, &["northamerica-northeast2", "canadacentral"]),
    city("Boydton", USA, 36.6676, -78.3875, &["eastus2", "usgovvirginia"]),
    city("Ashburn", USA, 39.0438, -77.4874, &["us-east", "us-east-1", "us-east4", "eastus"]),
    city("Montreal", "Canada", 45.5019, -73.5674, &["ca-central", "ca-central-1", "northamerica-northeast1"]),
    city("Quebec City", "Canada", 46.8139, -71.2080, &["canadaeast"]),
    // South America
    city("Santiago", "Chile", -33.4489, -70.6693, &["sa-west", "southamerica-west1", "chilecentral"]),
    city("São Paulo", "Brazil", -23.5505, -46.6333, &["sa-east", "sa-east-1", "southamerica-east1", "brazilsouth"]),
    city("Rio de Janeiro", "Brazil", -22.9068, -43.1729, &["brazilsoutheast"]),
    // Europe
    city("Dublin", "Ireland", 53.3498, -6.2603, &["eu-west", "eu-west-1", "northeurope"]),
    city("Madrid", "Spain", 40.4168, -3.7038, &["europe-southwest1", "spaincentral"]),
    city("Cardiff", "United Kingdom", 51.4816, -3.1791, &["ukwest"]),
    city("Zaragoza", "Spain", 41.6488, -0.8891, &["eu-south-2"]),
    city("London", "United Kingdom", 51.5074, -0.1278, &["uk-south", "eu-west-2", "europe-west2", "uksouth"]),
    city("Paris", "France", 48.8566, 2.3522, &["eu-west-3", "europe-west9", "francecentral"]),
    city("Saint-Ghislain", "Belgium", 50.4500, 3.8200, &["europe-west1"]),
    city("Brussels", "Belgium", 50.8503, 4.3517, &["belgiumcentral"]),
    city("Amsterdam", "Netherlands", 52.3676, 4.9041, &["westeurope"]),
    city("Marseille", "France", 43.2965, 5.3698, &["francesouth"]),
    city("Stavanger", "Norway", 58.9700, 5.7331, &["norwaywest"]),
    city("Geneva", "Switzerland", 46.2044, 6.1432, &["switzerlandwest"]),
    city("Eemshaven", "Netherlands", 53.4386, 6.8355, &["europe-west4"]),
    city("Turin", "Italy", 45.0703, 7.6869, &["europe-west12"]),
    city("Zurich", "Switzerland", 47.3769, 8.5417, &["eu-central-2", "europe-west6", "switzerlandnorth"]),
    city("Frankfurt", "Germany", 50.1109, 8.6821, &["eu-central", "eu-central-1", "europe-west3", "germanywestcentral"]),
    city("Milan", "Italy", 45.4642, 9.1900, &["eu-south", "eu-south-1", "europe-west8", "italynorth"]),
    city("Oslo", "Norway", 59.9139, 10.7522, &["norwayeast"]),
    city("Copenhagen", "Denmark", 55.6761, 12.5683, &["denmarkeast"]),
    city("Malmö", "Sweden", 55.6050, 13.0038, &["swedensouth"]),
    city("Potsdam", "Germany", 52.3906, 13.0645, &["eusc-de-east-1"]),
    city("Berlin", "Germany", 52.5200, 13.4050, &["europe-west10", "germanynorth"]),
    city("Vienna", "Austria", 48.2082, 16.3738, &["austriaeast"]),
    city("Gävle", "Sweden", 60.6749, 17.1413, &["swedencentral"]),
    city("Stockholm", "Sweden", 59.3293, 18.0686, &["eu-north", "eu-north-1", "europe-north2"]),
    city("Warsaw", "Poland", 52.2297, 21.0122, &["eu-east", "europe-central2", "polandcentral"]),
    city("Hamina", "Finland", 60.5697, 27.1979, &["europe-north1"]),
    // Africa
    city("Cape Town", "South Africa", -33.9249, 18.4241, &["af-south", "af-south-1", "southafricawest"]),
    city("Johannesburg", "South Africa", -26.2041, 28.0473, &["africa-south1", "southafricanorth"]),
    // Middle East
    city("Tel Aviv", "Israel", 32.0853, 34.7818, &["il-central", "il-central-1", "me-west1", "israelcentral"]),
    city("Dammam", "Saudi Arabia", 26.4207, 50.0888, &["me-central2"]),
    city("Manama", "Bahrain", 26.2285, 50.5860, &["me-south", "me-south-1"]),
    city("Doha", "Qatar", 25.2854, 51.5310, &["me-central1", "qatarcentral"]),
    city("Abu Dhabi", "United Arab Emirates", 24.4539, 54.3773, &["uaecentral"]),
    city("Dubai", "United Arab Emirates", 25.2048, 55.2708, &["me-central", "me-central-1", "uaenorth"]),
    // Asia
    city("Jamnagar", "India", 22.4707, 70.0577, &["jioindiawest"]),
    city("Mumbai", "India", 19.0760, 72.8777, &["ap-south", "ap-south-1", "asia-south1", "westindia"]),
    city("Pune", "India", 18.5204, 73.8567, &["centralindia"]),
    city("Delhi", "India", 28.6139, 77.2090, &["asia-south2"]),
    city("Hyderabad", "India", 17.3850, 78.4867, &["ap-south-2", "indiasouthcentral"]),
    city("Nagpur", "India", 21.1458, 79.0882, &["jioindiacentral"]),
    city("Chennai", "India", 13.0827, 80.2707, &["southindia"]),
    city("Bangkok", "Thailand", 13.7563, 100.5018, &["ap-southeast-7", "asia-southeast3"]),
    city("Kuala Lumpur", "Malaysia", 3.1390, 101.6869, &["ap-southeast-5", "malaysiawest"]),
    city("Singapore", "Singapore", 1.3521, 103.8198, &["ap-southeast", "ap-southeast-1", "asia-southeast1", "southeastasia"]),
    city("Zhongwei", "China", 37.5149, 105.1967, &["cn-northwest", "cn-northwest-1"]),
    city("Jakarta", "Indonesia", -6.2088, 106.8456, &["ap-southeast-3", "asia-southeast2", "indonesiacentral"]),
    city("Hong Kong", "China", 22.3193, 114.1694, &["ap-east", "ap-east-1", "asia-east2", "eastasia"]),
    city("Shijiazhuang", "China", 38.0428, 114.5149, &["chinanorth3"]),
    city("Beijing", "China", 39.9042, 116.4074, &["cn-north", "cn-north-1", "chinanorth", "chinanorth2"]),
    city("Shanghai", "China", 31.2304, 121.4737, &["cn-east", "chinaeast", "chinaeast2", "chinaeast3"]),
    city("Changhua", "Taiwan", 24.0518, 120.5161, &["asia-east1"]),
    city("Taipei", "Taiwan", 25.0330, 121.5654, &["ap-east-2", "taiwannorth"]),
    city("Seoul", "South Korea", 37.5665, 126.9780, &["ap-northeast-2", "asia-northeast3", "koreacentral"]),
    city("Busan", "South Korea", 35.1796, 129.0756, &["koreasouth"]),
    city("Osaka", "Japan", 34.6937, 135.5023, &["ap-northeast-3", "asia-northeast2", "japanwest"]),
    city("Tokyo", "Japan", 35.6762, 139.6503, &["ap-northeast", "ap-northeast-1", "asia-northeast1", "japaneast"]),
    // Oceania
    city("Melbourne", "Australia", -37.8136, 144.9631, &["ap-southeast-4", "australia-southeast2", "australiasoutheast"]),
    city("Canberra", "Australia", -35.2809, 149.1300, &["australiacentral", "australiacentral2"]),
    city("Sydney", "Australia", -33.8688, 151.2093, &["au-east", "ap-southeast-2", "australia-southeast1", "australiaeast"]),
    city("Auckland", "New Zealand", -36.8509, 174.7645, &["ap-southeast-6", "newzealandnorth"]),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::RegionId;

    #[test]
    fn every_city_is_on_earth_and_named_once() {
        let mut names = HashSet::new();
        for city in cities() {
            let (latitude, longitude) = (city.location.latitude(), city.location.longitude());
            Location::new(latitude, longitude).unwrap_or_else(|error| panic!("{}: {error}", city.name));
            assert!(names.insert(city.name), "{} is there twice", city.name);
        }
    }

    #[test]
    fn every_region_name_is_valid_and_means_one_city() {
        let mut names = HashSet::new();
        for city in cities() {
            assert!(!city.regions.is_empty(), "{}", city.name);
            for &name in city.regions {
                RegionId::new(name).unwrap_or_else(|error| panic!("{}: {error}", city.name));
                assert!(names.insert(name), "{name} is there twice");
                assert_eq!(find(name).unwrap().name, city.name);
            }
        }
    }

    #[test]
    fn the_short_names_are_where_people_expect_them() {
        for (alias, name) in [
            ("us-east", "Ashburn"),
            ("us-west", "Boardman"),
            ("us-central", "Council Bluffs"),
            ("ca-central", "Montreal"),
            ("sa-east", "São Paulo"),
            ("eu-west", "Dublin"),
            ("eu-central", "Frankfurt"),
            ("eu-north", "Stockholm"),
            ("eu-south", "Milan"),
            ("af-south", "Cape Town"),
            ("me-south", "Manama"),
            ("ap-south", "Mumbai"),
            ("ap-southeast", "Singapore"),
            ("ap-northeast", "Tokyo"),
            ("ap-east", "Hong Kong"),
            ("au-east", "Sydney"),
        ] {
            assert_eq!(find(alias).map(|city| city.name), Some(name), "{alias}");
        }
    }

    /// Counts by the shape of the names, so that a row that goes missing is noticed.
    #[test]
    fn each_clouds_regions_are_there() {
        let names: Vec<&str> = cities().iter().flat_map(|city| city.regions.iter().copied()).collect();
        let ends_in_digit = |name: &&&str| name.ends_with(|c: char| c.is_ascii_digit());
        // `us-east-1` is of AWS, `us-east1` of Google, `eastus` of Azure, and `us-east` of nobody.
        let aws =
            names.iter().filter(ends_in_digit).filter(|name| name.rsplit('-').next().unwrap().len() == 1);
        let dashed = |name: &&&str| name.contains('-');
        let google = names.iter().filter(ends_in_digit).filter(dashed);
        let google = google.filter(|name| name.rsplit('-').next().unwrap().len() > 1);
        let azure = names.iter().filter(|name| !name.contains('-'));
        assert_eq!((aws.count(), google.count(), azure.count()), (39, 43, 70));
    }

    #[test]
    fn a_name_with_a_slip_is_refused_with_those_like_it() {
        for (wrong, nearest) in [
            ("eu-centrall", &["eu-central", "eu-central-1", "eu-central-2"][..]),
            ("US_EAST_1", &["us-east-1", "us-east-2", "us-east1"]),
            ("westeuropa", &["westeurope"]),
            ("atlantis", &[]),
            ("", &[]),
        ] {
            assert_eq!(look_up(wrong).unwrap_err().nearest, nearest, "{wrong}");
        }
    }

    #[test]
    fn the_three_clouds_meet_in_the_same_cities() {
        for (aws, google, azure) in [
            ("us-east-1", "us-east4", "eastus"),
            ("eu-central-1", "europe-west3", "germanywestcentral"),
            ("ap-northeast-1", "asia-northeast1", "japaneast"),
            ("ap-southeast-2", "australia-southeast1", "australiaeast"),
        ] {
            assert_eq!(find(aws), find(google));
            assert_eq!(find(aws), find(azure));
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_not_found() {
        for name in ["", "US-EAST", "us-east ", "us-east-9", "office-basement"] {
            assert_eq!(find(name), None, "{name:?}");
        }
    }
}
