use std::time::Duration;

use super::*;
use crate::{capacity::share, shard::Share};

fn builder() -> Builder<u32, u32> {
    Builder::new()
}

fn field<S, X>(builder: Builder<u32, u32, S, X>) -> &'static str
where
    S: BuildHasher + Send + Sync + 'static,
    X: Sidecar<u32, u32>,
{
    builder.build().expect_err("the configuration is wrong").field
}

#[test]
fn each_wrong_field_is_named() {
    assert_eq!(field(builder()), "capacity");
    assert_eq!(field(builder().capacity(0)), "capacity");
    assert_eq!(field(builder().weight_capacity(0).weigher(|_, _| 1)), "weight_capacity");
    assert_eq!(field(builder().weight_capacity(10)), "weight_capacity");
    assert_eq!(field(builder().capacity(10).default_ttl(Duration::ZERO)), "default_ttl");
    assert_eq!(field(builder().capacity(10).default_ttl(Duration::from_millis(9))), "default_ttl");
    assert_eq!(field(builder().capacity(10).time_to_idle(Duration::from_millis(9))), "time_to_idle");
    for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(field(builder().capacity(10).ttl_jitter(wrong)), "ttl_jitter");
        assert_eq!(field(builder().capacity(10).remote_depth(wrong)), "remote_depth");
    }
    assert_eq!(field(builder().capacity(10).shards(0)), "shards");
    assert_eq!(field(builder().capacity(10).shards(6)), "shards");
    assert_eq!(field(builder().capacity(1 << 20).shards(2048)), "shards");
    assert_eq!(field(builder().capacity(7).shards(8)), "shards");
    assert_eq!(field(builder().capacity(100).weight_capacity(7).weigher(|_, _| 1).shards(8)), "shards");
}

#[test]
fn shares_add_up_to_the_capacity_exactly() {
    for (capacity, weight, shards) in
        [(1, 1, 1), (10, 17, 8), (1_000_003, 999_999_999_999, 64), (5000, 4099, 1024)]
    {
        let of = |index| share(Some(capacity), Some(weight), index, shards);
        let shares: Vec<Share> = (0..shards).map(of).collect();
        assert_eq!(shares.iter().map(|s| s.weight).sum::<u64>(), weight);
        assert_eq!(shares.iter().map(|s| s.entries as u64).sum::<u64>(), weight.min(capacity as u64));
        assert!(shares.iter().all(|share| share.entries >= 1));
    }
}

#[test]
fn small_caches_have_few_shards_and_large_ones_have_many() {
    let shards = |entries| builder().capacity(entries).usual_shards();
    assert_eq!(shards(1), 1);
    assert_eq!(shards(1_000), 1);
    assert_eq!(shards(1_024), 2);
    assert_eq!(shards(100_000), 64);
    assert_eq!(shards(1_000_000), 64);
    assert_eq!(shards(2_000_000), 128);
    assert_eq!(shards(usize::MAX), 1024);
    let shards = |weight| builder().weight_capacity(weight).usual_shards();
    assert_eq!(shards(1), 1);
    assert_eq!(shards(64 << 20), 16);
    assert_eq!(shards(1 << 30), 64);
    assert_eq!(shards(u64::MAX), 1024);
    assert_eq!(builder().capacity(1_000_000).weight_capacity(8 << 20).usual_shards(), 2);
}
