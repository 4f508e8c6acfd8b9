use super::*;
use crate::node::NodeId;

const NOW_MS: u64 = 100_000;

fn peer(region: &str, heard_ago_ms: u64, fresh_ago_ms: Option<u64>) -> PeerStatus {
    let node = NodeId::new(region.parse().unwrap(), "n").unwrap();
    PeerStatus {
        origin: node.origin(),
        node,
        epoch: 1,
        alive: heard_ago_ms <= 3_000,
        ready: true,
        heard_ago_ms,
        rtt_ms: Some(10),
        drifts: false,
        lag_last_ms: None,
        lag_mean_ms: None,
        lag_max_ms: None,
        behind_records: 0,
        fresh_ago_ms,
    }
}

/// Who keeps a node of these peers from being fresh to 100 ms; the status is 20 ms old.
fn behind_of(peers: Vec<PeerStatus>, regions: &[&str], to: FreshTo) -> Option<Behind> {
    let status = Status { mono_ms: NOW_MS - 20, ready: true, peers, ..Status::default() };
    let regions = regions.iter().map(|region| region.parse().unwrap()).collect();
    let own = "us-east".parse().unwrap();
    behind(&status, (NOW_MS, NOW_MS as i64 - 100), (&regions, &own), to)
}

fn text(behind: Option<Behind>) -> String {
    behind.map_or_else(|| "fresh".to_owned(), |behind| behind.to_string())
}

const ALL: [FreshTo; 3] = [FreshTo::Regions, FreshTo::Heard, FreshTo::Nodes];

#[test]
fn the_age_of_the_status_itself_counts() {
    for to in ALL {
        assert_eq!(behind_of(vec![peer("ap-south", 10, Some(80))], &[], to), None);
        let older = text(behind_of(vec![peer("ap-south", 10, Some(81))], &[], to));
        assert_eq!(older, "what is here of ap-south/n is as of 101ms ago");
    }
}

#[test]
fn of_several_the_furthest_behind_is_named_and_the_unknown_is_further_than_any() {
    let peers = vec![peer("ap-south", 10, Some(500)), peer("eu-west", 10, Some(900))];
    assert_eq!(
        behind_of(peers.clone(), &[], FreshTo::Regions).unwrap().region().unwrap().as_str(),
        "eu-west"
    );
    let unknown = PeerStatus { behind_records: 7, ..peer("eu-central", 10, None) };
    let peers = [peers, vec![unknown]].concat();
    assert_eq!(
        text(behind_of(peers, &[], FreshTo::Regions)),
        "how old what is here of eu-central/n is was not measured yet, with 7 of its records missing"
    );
}

#[test]
fn a_region_that_is_not_heard_counts_unless_only_those_heard_do() {
    let peers = vec![peer("ap-south", 10, Some(10)), peer("eu-west", 60_000, Some(60_000))];
    let told = "no node of the region eu-west is heard, the last one 60.02s ago";
    assert_eq!(text(behind_of(peers.clone(), &[], FreshTo::Regions)), told);
    assert_eq!(text(behind_of(peers.clone(), &["us-east", "ap-south"], FreshTo::Regions)), "fresh");
    assert_eq!(behind_of(peers, &[], FreshTo::Heard), None);
}

#[test]
fn a_configured_region_that_was_never_heard_counts_and_the_own_one_does_not() {
    let peers = || vec![peer("ap-south", 10, Some(10))];
    let regions = ["us-east", "ap-south", "mars"];
    assert_eq!(
        text(behind_of(peers(), &regions, FreshTo::Regions)),
        "no node of the region mars was heard yet"
    );
    assert_eq!(behind_of(peers(), &regions[..2], FreshTo::Regions), None);
    assert_eq!(behind_of(Vec::new(), &[], FreshTo::Nodes), None, "alone");
}

#[test]
fn a_node_that_is_gone_counts_only_where_every_node_does_or_its_region_has_no_other() {
    let gone = PeerStatus {
        node: NodeId::new("ap-south".parse().unwrap(), "gone").unwrap(),
        ..peer("ap-south", 60_000, Some(60_000))
    };
    let both = || vec![peer("ap-south", 10, Some(10)), gone.clone()];
    assert_eq!(behind_of(both(), &[], FreshTo::Regions), None);
    let told = "what is here of ap-south/gone is as of 60.02s ago";
    assert_eq!(text(behind_of(both(), &[], FreshTo::Nodes)), told);
    let told = "no node of the region ap-south is heard, the last one 60.02s ago";
    assert_eq!(text(behind_of(vec![gone.clone()], &[], FreshTo::Regions)), told);
}

#[test]
fn a_node_that_is_warming_is_never_fresh() {
    let status = Status { mono_ms: NOW_MS, ..Status::default() };
    let (regions, own) = (BTreeSet::new(), "us-east".parse().unwrap());
    for to in ALL {
        assert_eq!(behind(&status, (NOW_MS, i64::MIN), (&regions, &own), to), Some(Behind::Warming));
    }
}
