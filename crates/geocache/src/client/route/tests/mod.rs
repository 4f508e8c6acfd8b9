//! The engine over endpoints that answer, fail and hang as they are told, in tokio's paused time.

mod cluster;
mod doubt;
mod fault;
mod hedging;
mod order;
mod probing;
mod schedule;
mod setting;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use resilience::{Life, Snapshot};

use super::{RegionRoute, RouteStats, region::Region};
use crate::{
    client::{ClientBuilder, ClientError, Doubt, Endpoint, EndpointError, GeoClient, Pulse},
    error::Error,
    read::Item,
    store::Outcome,
    write::{Expect, TimeToLive, Write},
};

/// Long enough for a probe of each region.
const ROUND: Duration = Duration::from_secs(7);

/// How a fake server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Well,
    /// Nobody listens.
    Dead,
    /// It takes what comes, and never answers.
    Hangs,
    /// It says that it cannot.
    Refuses,
    /// It does what it is asked, and the answer is lost.
    LosesAnswers,
    /// It does not take this value.
    Rejects,
}

/// A server with one map.
pub(super) struct Fake {
    pub(super) name: &'static str,
    state: Mutex<State>,
    /// Calls that began, probes not among them.
    pub(super) calls: AtomicU64,
    pub(super) probes: AtomicU64,
}

#[derive(Debug, Clone)]
struct State {
    mode: Mode,
    /// Whether probes are answered whatever the mode is.
    answers_probes: bool,
    latency: Duration,
    doubt: Option<Doubt>,
    life: u64,
    values: HashMap<Bytes, Bytes>,
}

impl Fake {
    pub(super) fn new(name: &'static str) -> Arc<Self> {
        let state = State {
            mode: Mode::Well,
            answers_probes: false,
            latency: ms(1),
            doubt: None,
            life: 1,
            values: HashMap::new(),
        };
        Arc::new(Self { name, state: Mutex::new(state), calls: AtomicU64::new(0), probes: AtomicU64::new(0) })
    }

    pub(super) fn be(&self, mode: Mode) {
        self.state.lock().mode = mode;
    }

    pub(super) fn answer_probes(&self) {
        self.state.lock().answers_probes = true;
    }

    pub(super) fn take(&self, latency: Duration) {
        self.state.lock().latency = latency;
    }

    pub(super) fn doubt(&self, doubt: Option<Doubt>) {
        self.state.lock().doubt = doubt;
    }

    pub(super) fn restart(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        state.values.clear();
    }

    pub(super) fn hold(&self, key: &'static str, value: &'static str) {
        self.state.lock().values.insert(key.into(), value.into());
    }

    pub(super) fn holds(&self, key: &str) -> Option<Bytes> {
        self.state.lock().values.get(key.as_bytes()).cloned()
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(SeqCst)
    }

    async fn call<T>(&self, act: impl FnOnce(&mut State) -> T + Send) -> Result<T, EndpointError> {
        self.calls.fetch_add(1, SeqCst);
        self.answer(act).await
    }

    async fn answer<T>(&self, act: impl FnOnce(&mut State) -> T + Send) -> Result<T, EndpointError> {
        let address = || self.name.to_owned();
        let (mode, latency) = {
            let state = self.state.lock();
            (state.mode, state.latency)
        };
        if mode != Mode::Dead {
            tokio::time::sleep(latency).await;
        }
        match mode {
            Mode::Well => Ok(act(&mut self.state.lock())),
            Mode::Dead => Err(EndpointError::Unreachable {
                address: address(),
                reason: "connection refused".to_owned(),
                may_be_done: false,
            }),
            Mode::Hangs => std::future::pending().await,
            Mode::Refuses => {
                Err(EndpointError::Refused { address: address(), reason: "too busy".to_owned() })
            }
            Mode::LosesAnswers => {
                act(&mut self.state.lock());
                Err(EndpointError::Unreachable {
                    address: address(),
                    reason: "connection reset".to_owned(),
                    may_be_done: true,
                })
            }
            Mode::Rejects => {
                Err(EndpointError::Rejected { address: address(), reason: "too large".to_owned() })
            }
        }
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fake({})", self.name)
    }
}

#[async_trait]
impl Endpoint for Fake {
    fn address(&self) -> String {
        self.name.to_owned()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Item>, EndpointError> {
        self.call(|state| state.values.get(key).cloned().map(Item::new)).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Item>>, EndpointError> {
        self.call(|state| keys.iter().map(|key| state.values.get(key).cloned().map(Item::new)).collect())
            .await
    }

    async fn write(&self, key: &[u8], write: Write, expect: Expect) -> Result<Outcome, EndpointError> {
        self.call(|state| match (expect, state.values.contains_key(key)) {
            (Expect::Absent, true) => Outcome::Exists,
            (Expect::Present, false) => Outcome::Missing,
            _ => {
                state.values.insert(Bytes::copy_from_slice(key), write.bytes);
                Outcome::Done { cas: 1 }
            }
        })
        .await
    }

    async fn remove(&self, key: &[u8], _expect: Expect) -> Result<Outcome, EndpointError> {
        self.call(|state| match state.values.remove(key) {
            Some(_) => Outcome::Done { cas: 0 },
            None => Outcome::Missing,
        })
        .await
    }

    async fn touch(&self, key: &[u8], _ttl: TimeToLive) -> Result<bool, EndpointError> {
        self.call(|state| state.values.contains_key(key)).await
    }

    async fn clear(&self) -> Result<(), EndpointError> {
        self.call(|state| state.values.clear()).await
    }

    async fn probe(&self) -> Result<Pulse, EndpointError> {
        self.probes.fetch_add(1, SeqCst);
        let pulse = |state: &mut State| Pulse::new(Life::new(state.life, 0)).doubt(state.doubt);
        if self.state.lock().answers_probes {
            return Ok(pulse(&mut self.state.lock()));
        }
        self.answer(pulse).await
    }
}

/// Two regions as seen from the first: `eu-central`, then `us-east`.
pub(super) struct Two {
    pub(super) near: Arc<Fake>,
    pub(super) far: Arc<Fake>,
    pub(super) client: GeoClient,
}

impl Two {
    /// Both hold `k`, each its own name, and are measured: 2 and 90 ms.
    pub(super) async fn with(configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        let (near, far) = (Fake::new("eu-central"), Fake::new("us-east"));
        near.take(ms(2));
        far.take(ms(90));
        for fake in [&near, &far] {
            fake.hold("k", fake.name);
        }
        let builder = GeoClient::builder().from("eu-central").seed(7);
        let builder = builder.endpoint("us-east", Arc::<Fake>::clone(&far));
        let builder = configure(builder.endpoint("eu-central", Arc::<Fake>::clone(&near)));
        let client = builder.build().unwrap();
        // The first probes.
        tokio::time::sleep(ms(200)).await;
        Self { near, far, client }
    }

    pub(super) async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    /// Reads `k`, and says who answered.
    pub(super) async fn served_by(&self) -> String {
        self.client.item(b"k").await.unwrap().region.to_string()
    }

    pub(super) fn stats(&self) -> RouteStats {
        stats(&self.client)
    }

    pub(super) fn status(&self, name: &str) -> RegionRoute {
        let status = self.client.routes().unwrap().status();
        status.regions.into_iter().find(|region| region.region.as_str() == name).unwrap()
    }

    pub(super) fn breaker(&self, name: &str) -> Snapshot {
        region(&self.client, name).breaker.snapshot()
    }
}

pub(super) fn stats(client: &GeoClient) -> RouteStats {
    client.routes().unwrap().status().stats
}

pub(super) fn region<'a>(client: &'a GeoClient, name: &str) -> &'a Region {
    let table = &client.routes().unwrap().table;
    table.regions.iter().find(|region| region.id.as_str() == name).unwrap()
}

/// Runs all at once, in one task.
pub(super) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut futures {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if futures.iter().all(|(_, output)| output.is_some()) {
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn put(value: &'static str) -> Write {
    Write { bytes: value.into(), ..Write::default() }
}

/// What an unavailable call says.
pub(super) fn unavailable(error: ClientError) -> (Vec<(String, String)>, Option<Duration>, bool) {
    match error {
        ClientError::Unavailable { failures, retry_after, may_be_done } => {
            let failures = failures.into_iter().map(|(region, reason)| (region.to_string(), reason));
            (failures.collect(), retry_after, may_be_done)
        }
        other => panic!("{other}"),
    }
}

pub(super) fn is_unknown(error: &ClientError) -> bool {
    matches!(error, ClientError::Input(error) if matches!(**error, Error::UnknownRegion { .. }))
}
