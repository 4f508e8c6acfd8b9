//! Programs of two ages and one value: what the older one reads of the newer, and the other way, through a cache.

use std::{fmt, time::Duration};

use super::*;
use crate::{Expect, GeoCache, GeoCluster, Write};

const NAMED: [Codec; 2] = [Codec::MessagePack, Codec::Json];
const LONG: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u32,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum State {
    Open,
    Paid(u64),
}

/// As of the next version: fields in another order, one more, one with another name, a wider number, and more states.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OrderOfNextYear {
    #[serde(default)]
    note: Option<String>,
    #[serde(rename = "status", alias = "state")]
    state: StateOfNextYear,
    id: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum StateOfNextYear {
    Open,
    Paid(u64),
    Refunded { to: String },
}

/// As of the next version, with the names that the older one knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OrderWithMore {
    #[serde(default)]
    note: Option<String>,
    state: StateOfNextYear,
    id: u64,
}

/// What the next version wants, and the older one has not.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct OrderThatNeeds {
    id: u32,
    customer: String,
}

async fn cache(codec: Codec) -> GeoCache {
    GeoCache::builder().codec(codec).build().await.unwrap()
}

/// Reads what cannot be read: told by type, codec and the codec's own reason, and the value is left as it is.
fn refused<T>(cache: &GeoCache, key: &str, codec: Codec, reason: &str)
where
    T: Serialize + DeserializeOwned + Send + Sync + fmt::Debug + 'static,
{
    let before = cache.peek_item(key.as_bytes()).unwrap();
    let error = cache.get::<T>(key).unwrap_err();
    let name = std::any::type_name::<T>();
    assert_eq!(
        error.to_string(),
        format!("the stored {codec} value cannot be read as {name}; it is left as it is")
    );
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains(reason), "{codec}: {cause}");
    let unchanged = cache.update(key, |_: Option<Arc<T>>| -> Option<T> { panic!("it cannot be read") });
    assert!(unchanged.is_err());
    assert_eq!(cache.peek_item(key.as_bytes()).unwrap(), before, "an update changes nothing either");
}

#[tokio::test]
async fn a_new_program_reads_what_an_old_one_wrote() {
    for codec in NAMED {
        let cache = cache(codec).await;
        cache.put("k", &Order { id: 7, state: State::Paid(12) }).unwrap();
        let read = cache.get::<OrderOfNextYear>("k").unwrap().unwrap();
        assert_eq!(*read, OrderOfNextYear { note: None, state: StateOfNextYear::Paid(12), id: 7 }, "{codec}");
        refused::<OrderThatNeeds>(&cache, "k", codec, "missing field `customer`");
    }
}

#[tokio::test]
async fn an_old_program_reads_what_a_new_one_wrote_as_far_as_it_knows_it() {
    for codec in NAMED {
        let cache = cache(codec).await;
        let note = Some("in a hurry".to_owned());
        cache.put("k", &OrderWithMore { note: note.clone(), state: StateOfNextYear::Open, id: 7 }).unwrap();
        let read = cache.get::<Order>("k").unwrap().unwrap();
        assert_eq!(*read, Order { id: 7, state: State::Open }, "{codec}: the note is passed over");
        cache.put("k", &OrderWithMore { note, state: StateOfNextYear::Open, id: u64::MAX }).unwrap();
        refused::<Order>(&cache, "k", codec, "expected u32");
    }
}

#[tokio::test]
async fn a_state_that_an_old_program_does_not_know_is_an_error_that_leaves_the_value() {
    for codec in NAMED {
        let cache = cache(codec).await;
        let state = StateOfNextYear::Refunded { to: "Ada".to_owned() };
        let order = OrderWithMore { note: None, state, id: 7 };
        cache.put("k", &order).unwrap();
        refused::<Order>(&cache, "k", codec, "unknown variant `Refunded`, expected `Open` or `Paid`");
        assert_eq!(*cache.get::<OrderWithMore>("k").unwrap().unwrap(), order, "{codec}");
    }
}

#[tokio::test]
async fn a_field_that_was_renamed_is_missed_by_old_programs() {
    for codec in NAMED {
        let cache = cache(codec).await;
        let order = OrderOfNextYear { note: None, state: StateOfNextYear::Open, id: 7 };
        cache.put("k", &order).unwrap();
        refused::<Order>(&cache, "k", codec, "missing field `state`");
    }
}

#[tokio::test]
async fn raw_values_have_no_schema_and_say_so() {
    let cache = cache(Codec::Raw).await;
    let write = Write { bytes: "{\"id\":7,\"state\":\"Open\"}".into(), ..Write::default() };
    cache.write(b"k", write, Expect::Any).unwrap();
    refused::<Order>(&cache, "k", Codec::Raw, "invalid type");
    let error = cache.put("k", &Order { id: 7, state: State::Open }).unwrap_err();
    assert!(matches!(error, Error::Encode { codec: Codec::Raw, .. }), "{error}");
    assert_eq!(cache.get::<String>("k").unwrap().unwrap().len(), 23, "and what was there stays");
}

#[tokio::test]
async fn the_codec_may_be_changed_from_one_version_to_the_next() {
    for (old, new) in [(Codec::MessagePack, Codec::Json), (Codec::Json, Codec::MessagePack)] {
        let cache = cache(old).await;
        cache.put("k", &Order { id: 7, state: State::Open }).unwrap();
        let newer = cache.with_codec(new);
        let read = newer.get::<OrderWithMore>("k").unwrap().unwrap();
        newer.put("k", &*read).unwrap();
        assert_eq!(newer.peek_item(b"k").unwrap().codec, new);
        assert_eq!(*cache.get::<Order>("k").unwrap().unwrap(), Order { id: 7, state: State::Open });
    }
}

/// The region whose program is older keeps what it read decoded as its own type; the newer one's write must reach it all
/// the same, and what it does not know is lost where it writes the value itself.
#[tokio::test]
async fn a_region_of_an_older_program_reads_what_a_newer_one_writes_and_loses_what_it_does_not_know() {
    for codec in NAMED {
        let cluster = GeoCluster::builder().regions(["us-east", "eu-central"]);
        let cluster = cluster.configure(|node| node.codec(codec)).build().await.unwrap();
        let (older, newer) = (cluster.region("us-east").unwrap(), cluster.region("eu-central").unwrap());
        older.put("k", &Order { id: 7, state: State::Open }).unwrap();
        cluster.settled(LONG).await.unwrap();
        let note = Some("in a hurry".to_owned());
        let noted = newer.update("k", |order: Option<Arc<OrderWithMore>>| {
            order.map(|order| OrderWithMore { note: note.clone(), ..(*order).clone() })
        });
        assert_eq!(noted.unwrap().unwrap().note, note, "the newer one reads the older's and adds to it");
        cluster.settled(LONG).await.unwrap();
        assert_eq!(older.get::<Order>("k").unwrap().unwrap().state, State::Open);
        older.touch("k", LONG).unwrap();
        cluster.settled(LONG).await.unwrap();
        assert_eq!(newer.get::<OrderWithMore>("k").unwrap().unwrap().note, note, "a touch keeps the bytes");
        older
            .update("k", |order: Option<Arc<Order>>| {
                order.map(|order| Order { state: State::Paid(12), ..(*order).clone() })
            })
            .unwrap();
        cluster.settled(LONG).await.unwrap();
        let read = newer.get::<OrderWithMore>("k").unwrap().unwrap();
        let without = OrderWithMore { note: None, state: StateOfNextYear::Paid(12), id: 7 };
        assert_eq!(*read, without, "{codec}: the older one cannot keep what it does not know");

        let refund = StateOfNextYear::Refunded { to: "Ada".to_owned() };
        let refunded = OrderWithMore { state: refund, ..without };
        newer.put("k", &refunded).unwrap();
        cluster.settled(LONG).await.unwrap();
        refused::<Order>(&older, "k", codec, "unknown variant `Refunded`");
        assert_eq!(*newer.get::<OrderWithMore>("k").unwrap().unwrap(), refunded);
    }
}
