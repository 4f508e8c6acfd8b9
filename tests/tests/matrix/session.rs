//! How far a write came, and reads that see it.

use std::{collections::BTreeSet, time::Duration};

use geocache::{Error, FreshOptions, FreshTo, PutOptions, RegionId, Token, WriteConcern};

use super::{BOUND, Regions, text};

fn names(names: &[&str]) -> BTreeSet<RegionId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

pub(crate) async fn a_receipt_says_who_has_the_write_at_every_concern(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let options = PutOptions::new().timeout(BOUND);

    let receipt = here.put_with("local", "v", options).await.unwrap();
    assert!(receipt.reached && receipt.have.contains(here.region()), "{receipt:?}");
    assert_eq!(text(here, "local").as_deref(), Some("v"));

    let receipt = here.put_with("published", "v", options.concern(WriteConcern::Published)).await.unwrap();
    assert!(receipt.reached && receipt.published, "{receipt:?}");

    for (key, concern) in [("regions", WriteConcern::Regions(2)), ("all", WriteConcern::All)] {
        let receipt = here.put_with(key, "v", options.concern(concern)).await.unwrap();
        assert!(receipt.reached && receipt.published && receipt.missing.is_empty(), "{receipt:?}");
        assert_eq!(receipt.have, names(&["us-east", "ap-south"]));
        assert_eq!(text(there, key).as_deref(), Some("v"), "a receipt never names who does not have it");
    }

    let life = Duration::from_secs(600);
    let receipt = there.put_with("lives", "v", options.ttl(life).concern(WriteConcern::All)).await.unwrap();
    assert!(receipt.reached);
    assert!(here.peek_item(b"lives").unwrap().left.is_some_and(|left| left <= life));
}

pub(crate) async fn a_receipt_names_the_region_that_is_missing(regions: Regions) {
    let configured = ["us-east", "ap-south", "eu-central", "absent"];
    let third = regions.start("eu-central", |builder| builder.regions(configured)).await;
    let options = PutOptions::new().concern(WriteConcern::Regions(3)).timeout(BOUND);
    let receipt = third.put_with("k", "v", options).await.unwrap();
    assert!(receipt.reached, "{receipt:?}");
    assert_eq!(receipt.missing, names(&["absent"]));
    // Time is the input here: so long a region that is not there is waited for.
    let options = options.concern(WriteConcern::All).timeout(Duration::from_millis(100));
    let receipt = third.put_with("k", "w", options).await.unwrap();
    assert!(!receipt.reached && receipt.missing.contains(&"absent".parse().unwrap()), "{receipt:?}");
    assert_eq!(text(&third, "k").as_deref(), Some("w"), "the write stays");
}

pub(crate) async fn a_token_names_a_remove_as_any_change(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    here.put("k", "v").unwrap();
    here.remove("k").unwrap();
    let receipt = here.receipt(&here.token(), WriteConcern::All, BOUND).await;
    assert!(receipt.reached, "{receipt:?}");
    assert_eq!(text(there, "k"), None);
}

pub(crate) async fn a_read_with_a_token_is_never_older_than_the_write(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    for n in 0..20_u32 {
        here.put("n", &n).unwrap();
        // As it travels in a cookie.
        let token: Token = here.token().to_string().parse().unwrap();
        let read = there.get_at_least::<u32>("n", &token, BOUND).await.unwrap();
        assert_eq!(read.as_deref(), Some(&n));
    }
    here.remove("n").unwrap();
    there.at_least(&here.token(), BOUND).await.unwrap();
    assert!(!there.contains("n").unwrap());

    // What will be written is not here yet, and that is said.
    let mut future = here.token();
    future.hlc.0 += 1 << 40;
    let early = there.at_least(&future, Duration::from_millis(50)).await;
    assert!(matches!(early, Err(Error::Stale { .. })), "{early:?}");
}

pub(crate) async fn a_fresh_read_misses_nothing_that_was_written_before_it(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let options = FreshOptions::new().timeout(BOUND);
    for n in 0..10_u32 {
        here.put("n", &n).unwrap();
        let read = there.get_fresh_with::<u32>("n", Duration::ZERO, options).await.unwrap();
        assert_eq!(read.as_deref(), Some(&n));
    }
    here.remove("n").unwrap();
    there.fresh(Duration::ZERO, options.to(FreshTo::Heard)).await.unwrap();
    assert!(!there.contains("n").unwrap());
    // What may be so old is answered from memory.
    assert!(there.get_fresh::<u32>("n", Duration::from_secs(3_600)).await.unwrap().is_none());
}
