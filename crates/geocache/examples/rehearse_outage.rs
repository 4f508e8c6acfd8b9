//! Rehearse an outage in a unit test: regions parted, stopped and killed, and what your code makes of it.
//!
//! `cargo run --package geocache --example rehearse_outage` runs the rehearsals one after the other;
//! `cargo test --package geocache --example rehearse_outage` runs the same ones as tests, as your crate would have them.
//! [`GeoCluster`] needs no broker: its regions are whole nodes in this process, and what is between them is yours to break.

use std::{error::Error, sync::Arc, time::Duration};

use geocache::{GeoCluster, PutOptions, WriteConcern};

const REGIONS: [&str; 3] = ["us-east", "eu-central", "ap-south"];
/// No wait here is longer.
const BOUND: Duration = Duration::from_secs(30);

type Outcome = Result<(), Box<dyn Error>>;

/// The code under rehearsal: a shop whose baskets are in the cache of the region that it is asked in.
struct Shop {
    cache: GeoCluster,
}

impl Shop {
    async fn open() -> Result<Self, Box<dyn Error>> {
        Ok(Self { cache: GeoCluster::new(REGIONS).await? })
    }

    /// Puts one more thing into a basket.
    fn add(&self, basket: &str, thing: &str, region: &str) -> Outcome {
        let with_it = |things: Option<Arc<Vec<String>>>| {
            let mut things = things.map_or_else(Vec::new, |things| things.to_vec());
            things.push(thing.to_owned());
            Some(things)
        };
        self.cache.update(basket, with_it, region)?;
        Ok(())
    }

    fn basket(&self, basket: &str, region: &str) -> Result<Vec<String>, Box<dyn Error>> {
        Ok(self.cache.get::<Vec<String>>(basket, region)?.map_or_else(Vec::new, |things| things.to_vec()))
    }
}

/// Two regions do not hear each other: both go on selling, and agree again afterwards.
async fn a_parted_region_goes_on_and_catches_up() -> Outcome {
    let shop = Shop::open().await?;
    shop.add("ada", "tea", "us-east")?;
    shop.cache.settled(BOUND).await?;

    shop.cache.partition("us-east", "eu-central")?;
    shop.cache.partition("us-east", "ap-south")?;
    shop.add("ada", "milk", "us-east")?;
    shop.add("bob", "coffee", "eu-central")?;
    assert_eq!(shop.basket("ada", "eu-central")?, ["tea"], "cut off, it serves what it had");
    assert!(shop.basket("bob", "us-east")?.is_empty(), "what was sold behind the cut is not known here");

    shop.cache.heal();
    shop.cache.settled(BOUND).await?;
    for region in REGIONS {
        assert_eq!(shop.basket("ada", region)?, ["tea", "milk"], "{region}");
        assert_eq!(shop.basket("bob", region)?, ["coffee"], "{region}");
    }
    Ok(())
}

/// A region is stopped and comes back empty: it has the state of the others before it says that it is ready.
async fn a_region_that_comes_back_has_what_it_missed() -> Outcome {
    let shop = Shop::open().await?;
    shop.cache.stop("ap-south").await?;
    shop.add("ada", "tea", "us-east")?;
    assert!(shop.basket("ada", "ap-south").is_err(), "a stopped region answers nobody: ask another one");
    assert!(shop.cache.put("k", "v", "ap-south").is_err());

    shop.cache.start("ap-south").await?;
    tokio::time::timeout(BOUND, shop.cache.region("ap-south")?.ready()).await??;
    assert_eq!(shop.basket("ada", "ap-south")?, ["tea"]);
    Ok(())
}

/// A region dies right after a sale: what a receipt said that another region has is there.
async fn what_a_receipt_names_outlives_the_writer() -> Outcome {
    let shop = Shop::open().await?;
    let two_regions = PutOptions::new().concern(WriteConcern::Regions(2)).timeout(BOUND);
    let receipt = shop.cache.region("us-east")?.put_with("order:7", "paid", two_regions).await?;
    assert!(receipt.reached, "{receipt:?}");
    let other = receipt.have.iter().map(geocache::RegionId::as_str).find(|region| *region != "us-east");
    let other = other.ok_or("the receipt names another region")?;

    shop.cache.kill("us-east").await?;
    let order = shop.cache.get::<String>("order:7", other)?;
    assert_eq!(order.as_deref().map(String::as_str), Some("paid"));
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    a_parted_region_goes_on_and_catches_up().await?;
    println!("a parted region goes on and catches up");
    a_region_that_comes_back_has_what_it_missed().await?;
    println!("a region that comes back has what it missed");
    what_a_receipt_names_outlives_the_writer().await?;
    println!("what a receipt names outlives the writer");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Outcome;

    #[tokio::test]
    async fn a_parted_region_goes_on_and_catches_up() -> Outcome {
        super::a_parted_region_goes_on_and_catches_up().await
    }

    #[tokio::test]
    async fn a_region_that_comes_back_has_what_it_missed() -> Outcome {
        super::a_region_that_comes_back_has_what_it_missed().await
    }

    #[tokio::test]
    async fn what_a_receipt_names_outlives_the_writer() -> Outcome {
        super::what_a_receipt_names_outlives_the_writer().await
    }
}
