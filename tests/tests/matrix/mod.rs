//! Every operation of [`GeoCache`], [`GeoCluster`] and the clients of several regions as claims, the same over every transport.
//!
//! A claim is a function that takes its [`Subject`] and says what must be so of it: [`Regions`], two ready nodes of a cache of their
//! own, or [`Clusters`], from which it builds a cluster. The table below names each claim and the operations that it is about;
//! `api_matrix.rs` runs the table over the in-memory hub, `rabbitmq_matrix.rs` over RabbitMQ in each of its profiles. `coverage.rs` holds
//! the table to the crate's source: an operation without a claim fails there. So a new operation takes one function here and
//! one line in the table.
//!
//! Claims are about what holds over *every* transport; faults have tests of their own.

pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod life;
pub(crate) mod load;
pub(crate) mod mirror;
pub(crate) mod namespace;
pub(crate) mod read;
pub(crate) mod routes;
pub(crate) mod session;
pub(crate) mod watch;
pub(crate) mod write;

use std::{pin::Pin, sync::Arc, time::Duration};

use geocache::{Builder, ClusterBuilder, GeoCache, GeoCluster, NodeId, Transport};
use tests::{unique_name, wait_until};

/// Gives the table of claims to a macro, as lines `area::claim [operations];`.
macro_rules! matrix {
    ($then:ident) => {
        $then! {
            write::a_put_is_read_here_at_once_and_elsewhere_after_the_lag [put, get, contains];
            write::a_value_with_a_time_to_live_ends_in_every_region [put_with_ttl];
            write::a_remove_is_a_remove_everywhere [remove];
            write::a_touch_lengthens_the_life_everywhere [touch, touch_item];
            write::an_update_builds_on_what_the_other_region_wrote [update];
            write::a_clear_forgets_every_key_everywhere [clear];
            write::many_values_put_at_once_all_arrive [put_many, get_many];
            write::a_generated_key_is_nobody_elses [generate_key];
            write::a_value_keeps_its_bytes_flags_and_life_on_its_way [write, item, peek_item];
            write::a_conditional_change_is_judged_here_and_its_outcome_spreads [write, remove_if];
            write::a_value_is_read_whatever_codec_it_was_written_in [with_codec, codec];
            session::a_receipt_says_who_has_the_write_at_every_concern [put_with];
            write::a_value_weighs_what_its_writer_says_here_alone [put_with];
            session::a_receipt_names_the_region_that_is_missing [put_with];
            session::a_token_names_a_remove_as_any_change [token, receipt];
            session::a_read_with_a_token_is_never_older_than_the_write [get_at_least, at_least];
            session::a_fresh_read_misses_nothing_that_was_written_before_it [get_fresh, get_fresh_with, fresh];
            read::what_a_node_does_not_hold_is_fetched_from_another_region [get_or_fetch, fetch, fetch_item];
            load::one_loader_runs_and_its_value_is_read_elsewhere [get_or_load];
            load::another_region_is_asked_before_the_origin [get_or_load_with];
            load::with_a_lease_one_region_loads_for_all [get_or_load_with];
            load::the_last_known_value_is_served_while_the_origin_is_down [get_or_load_with];
            namespace::a_namespace_has_its_own_keys_defaults_and_clear [namespace, with_default_ttl];
            watch::what_the_other_region_does_is_told [watch];
            life::two_nodes_that_hear_each_other_are_well [
                builder, health, is_ready, failed, region, node, lag, divergence, stats
            ];
            life::a_node_names_its_cache_and_reports_its_transport [cache_name, transport_report];
            life::a_node_tells_clients_of_itself_and_lists_its_keys [pulse, keys_from];
            life::a_node_explains_what_became_of_a_key [explain];
            life::a_late_node_has_the_state_of_the_others_when_it_is_ready [ready];
            life::a_close_hands_over_what_was_written_and_refuses_more [close];
            cluster::what_is_put_in_one_region_is_read_in_the_others [
                new, builder, put, put_with_ttl, get, update, remove, touch, clear, settled
            ];
            cluster::its_regions_are_whole_nodes [region, nodes, stats, endpoint, close];
            cluster::a_region_that_was_away_has_the_state_of_the_others_when_it_is_ready [stop, kill, start];
            cluster::regions_are_parted_where_there_is_a_hub [hub, partition, heal];
            client::what_a_client_writes_is_read_in_every_region [
                builder, put, put_with_ttl, get, get_served, get_many, touch, remove, clear
            ];
            client::an_update_builds_on_what_another_region_wrote [update];
            client::a_key_is_made_for_a_value_that_has_none [put_new, generate_key];
            client::conditions_are_judged_where_the_value_was_seen [
                item, write, write_at, remove_if, remove_at, codec
            ];
            client::an_outage_of_the_closest_region_is_the_next_ones_work [put, get_served, close];
            routes::a_drained_region_is_asked_last_and_that_is_told [status, drain, watch];
            client::a_client_is_of_one_kind_and_says_which [routes, mirrored, mirror];
            mirror::what_is_copied_to_a_region_is_replicated_from_there [
                status, fail_over, fail_back, hold, empty, watch
            ];
        }
    };
}

/// Generous: the machine may have two cores, shared with a broker.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// Joins a node of a cache, given by name, to the others: what differs between transports.
pub(crate) type Join = Box<dyn Fn(NodeId, String) -> Joining + Send + Sync>;
pub(crate) type Joining = Pin<Box<dyn Future<Output = Arc<dyn Transport>> + Send>>;

/// How the builder of a cluster is told of the transport, for a cache of this name.
pub(crate) type Joined = Box<dyn Fn(ClusterBuilder, String) -> ClusterBuilder + Send + Sync>;

/// A transport, as claims need it.
pub(crate) struct Means {
    pub(crate) join: Join,
    pub(crate) joined: Joined,
    /// Whether clusters have a hub, whose faults can be set.
    pub(crate) is_hub: bool,
}

/// What a claim is about, over a transport.
pub(crate) trait Subject {
    async fn over(means: Means) -> Self;
}

/// Holds a claim, over a transport.
pub(crate) async fn hold<S: Subject, F: Future<Output = ()>>(claim: impl FnOnce(S) -> F, means: Means) {
    claim(S::over(means).await).await;
}

/// Builds clusters over the transport.
pub(crate) struct Clusters {
    means: Means,
}

impl Subject for Clusters {
    async fn over(means: Means) -> Self {
        Self { means }
    }
}

impl Clusters {
    pub(crate) async fn of<const N: usize>(&self, regions: [&str; N]) -> GeoCluster {
        let cache = unique_name("matrix");
        let builder = GeoCluster::builder().regions(regions).configure(|node| node.cache(&cache));
        let built = (self.means.joined)(builder, cache.clone()).build();
        tokio::time::timeout(BOUND, built).await.unwrap().unwrap()
    }

    pub(crate) const fn have_a_hub(&self) -> bool {
        self.means.is_hub
    }
}

/// Two ready nodes of one cache, in two regions.
pub(crate) struct Regions {
    pub(crate) here: GeoCache,
    pub(crate) there: GeoCache,
    join: Join,
    cache: String,
}

impl Subject for Regions {
    async fn over(Means { join, .. }: Means) -> Self {
        let cache = unique_name("matrix");
        // The first nodes of a cache that is made at once have nobody to ask for a state.
        let first = |region| start(&join, &cache, region, |builder| builder.bootstrap(true));
        let (here, there) = tokio::join!(first("us-east"), first("ap-south"));
        // Each has heard the other: until then a lag, a receipt or a nearest region is nobody's.
        for node in [&here, &there] {
            wait_until(&format!("{} hears the other", node.node()), BOUND, async || {
                node.health().regions.len() == 1 && node.health().is_well()
            })
            .await;
        }
        Self { here, there, join, cache }
    }
}

impl Regions {
    /// A node more, in a region of its own, which becomes ready by itself as a deployed one does.
    pub(crate) async fn start(&self, region: &str, configure: impl FnOnce(Builder) -> Builder) -> GeoCache {
        start(&self.join, &self.cache, region, configure).await
    }
}

async fn start(
    join: &Join,
    cache: &str,
    region: &str,
    configure: impl FnOnce(Builder) -> Builder,
) -> GeoCache {
    let node = NodeId::new(region.parse().unwrap(), "n").unwrap();
    let transport = join(node, cache.to_owned()).await;
    let builder = configure(GeoCache::builder().cache(cache).transport(transport));
    let node = builder.build().await.unwrap();
    tokio::time::timeout(BOUND, node.ready()).await.unwrap().unwrap();
    node
}

/// What a node reads as text for a key.
pub(crate) fn text(node: &GeoCache, key: &str) -> Option<String> {
    node.get::<String>(key).unwrap().map(|value| value.as_ref().clone())
}

/// Waits until a node reads this, after the lag.
pub(crate) async fn reads(node: &GeoCache, key: &str, value: Option<&str>) {
    let what = format!("{} reads {value:?} for {key}", node.node());
    wait_until(&what, BOUND, async || text(node, key).as_deref() == value).await;
}
