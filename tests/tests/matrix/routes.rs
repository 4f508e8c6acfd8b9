//! How the regions of a client stand.

use geocache::client::{ClientError, RouteEvent};

use super::{BOUND, Regions, client::closest_is_here, reads};

pub(crate) async fn a_drained_region_is_asked_last_and_that_is_told(regions: Regions) {
    let client = closest_is_here(&regions);
    let routes = client.routes().unwrap();
    let order = || routes.status().regions.iter().map(|region| region.region.to_string()).collect::<Vec<_>>();
    assert_eq!(order(), ["us-east", "ap-south"]);
    let mut events = routes.watch();
    routes.drain("us-east", true).unwrap();
    let told = async {
        loop {
            let event = events.next().await.unwrap().expect("the client is there");
            if let RouteEvent::Drained { region, drained } = event {
                break (region.to_string(), drained);
            }
        }
    };
    let told = tokio::time::timeout(BOUND, told).await.expect("it is told");
    assert_eq!(told, ("us-east".to_owned(), true));
    assert_eq!(order(), ["ap-south", "us-east"]);

    assert_eq!(client.put("k", "v").await.unwrap().region.as_str(), "ap-south");
    reads(&regions.here, "k", Some("v")).await;
    // A drained region answers where no other does.
    regions.there.close(BOUND).await;
    assert_eq!(client.get_served::<String>("k").await.unwrap().region.as_str(), "us-east");
    let status = routes.status();
    assert!(status.stats.fallbacks > 0 && status.stats.calls >= 2, "{status}");
    let unknown = routes.drain("mars", true).unwrap_err();
    assert!(matches!(unknown, ClientError::Input(_)), "{unknown}");
}
