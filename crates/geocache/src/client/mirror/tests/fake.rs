//! A server in this process that fails as it is told to.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use resilience::Life;
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

use crate::{
    client::{
        Endpoint, EndpointError, KEYS_WAITING_MAX, Keys, Pulse,
        mirror::shared::{EPOCH_KEY, now},
    },
    read::Item,
    store::Outcome,
    write::{Expect, TimeToLive, Write},
};

/// How it treats what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// As it should.
    None,
    /// It refuses connections: surely nothing is done.
    Dead,
    /// As one that was sent SIGSTOP: nothing is answered, and what was sent is done when it goes on.
    Stopped,
    /// What it is asked is done, and the answer lost.
    Mute,
}

/// A write, or a remove.
type Change = Option<(Write, Expect)>;

#[derive(Debug, Clone)]
struct Value {
    write: Write,
    ends: Option<Instant>,
    cas: u64,
}

#[derive(Debug)]
struct Inner {
    values: BTreeMap<Bytes, Value>,
    cas: u64,
    fault: Fault,
    /// What is done when it goes on.
    waiting: Vec<(Bytes, Change)>,
    incarnation: u64,
    lists: bool,
    value_bytes_max: usize,
    delay_ms_max: u64,
    /// How long each call takes on its way there, and back.
    slow: Duration,
    /// Whether the answer to the next change is lost.
    mute_once: bool,
    random: fastrand::Rng,
}

#[derive(Clone)]
pub(super) struct Fake {
    name: &'static str,
    inner: Arc<Mutex<Inner>>,
    goes_on: Arc<Notify>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Inner {
    fn live(&mut self, key: &[u8]) -> Option<&Value> {
        if self.values.get(key).is_some_and(|value| value.ends.is_some_and(|ends| ends <= now())) {
            self.values.remove(key);
        }
        self.values.get(key)
    }

    fn judge(&mut self, key: &[u8], expect: Expect) -> Option<Outcome> {
        let cas = self.live(key).map(|value| value.cas);
        match (expect, cas) {
            (Expect::Absent, Some(_)) => Some(Outcome::Present),
            (Expect::Present | Expect::Cas(_), None) => Some(Outcome::Missing),
            (Expect::Cas(wanted), Some(cas)) if wanted != cas => Some(Outcome::Exists),
            _ => None,
        }
    }

    fn write(&mut self, key: &[u8], write: Write, expect: Expect) -> Outcome {
        if let Some(refused) = self.judge(key, expect) {
            return refused;
        }
        self.cas += 1;
        let ends = match write.ttl {
            TimeToLive::For(life) => now().checked_add(life),
            TimeToLive::Never => None,
            other => panic!("a copy has a life of its own, not {other:?}"),
        };
        self.values.insert(Bytes::copy_from_slice(key), Value { write, ends, cas: self.cas });
        Outcome::Done { cas: self.cas }
    }

    fn remove(&mut self, key: &[u8], expect: Expect) -> Outcome {
        if let Some(refused) = self.judge(key, expect) {
            return refused;
        }
        if self.values.remove(key).is_some() { Outcome::Done { cas: 0 } } else { Outcome::Missing }
    }
}

impl Fake {
    pub(super) fn new(name: &'static str) -> Self {
        let inner = Inner {
            values: BTreeMap::new(),
            cas: 0,
            fault: Fault::None,
            waiting: Vec::new(),
            incarnation: 1,
            lists: true,
            value_bytes_max: usize::MAX,
            delay_ms_max: 0,
            slow: Duration::ZERO,
            mute_once: false,
            random: fastrand::Rng::with_seed(0),
        };
        Self { name, inner: Arc::new(Mutex::new(inner)), goes_on: Arc::default() }
    }

    pub(super) fn not_listing(self) -> Self {
        self.inner.lock().lists = false;
        self
    }

    pub(super) fn with_values_up_to(self, bytes: usize) -> Self {
        self.inner.lock().value_bytes_max = bytes;
        self
    }

    /// Each call takes up to so long, on its way there and back.
    pub(super) fn delayed(self, ms_max: u64, seed: u64) -> Self {
        {
            let mut inner = self.inner.lock();
            (inner.delay_ms_max, inner.random) = (ms_max, fastrand::Rng::with_seed(seed));
        }
        self
    }

    /// From now on each call takes so long on its way there, and so long back.
    pub(super) fn slow(&self, way: Duration) {
        self.inner.lock().slow = way;
    }

    /// The next write or remove is done, and its answer lost; what comes after it is answered.
    pub(super) fn mute_once(&self) {
        self.inner.lock().mute_once = true;
    }

    pub(super) fn fault(&self, fault: Fault) {
        let mut inner = self.inner.lock();
        if inner.fault == Fault::Stopped && fault != Fault::Stopped {
            for (key, change) in std::mem::take(&mut inner.waiting) {
                match change {
                    Some((write, expect)) => inner.write(&key, write, expect),
                    None => inner.remove(&key, Expect::Any),
                };
            }
        }
        inner.fault = fault;
        self.goes_on.notify_waiters();
    }

    /// Begins anew with nothing.
    pub(super) fn restart(&self) {
        {
            let mut inner = self.inner.lock();
            inner.values.clear();
            inner.waiting.clear();
            inner.incarnation += 1;
            // As a server counts anew.
            inner.cas = 0;
        }
        self.fault(Fault::None);
    }

    pub(super) fn plant(&self, key: &str, value: &str) {
        let write = Write {
            bytes: Bytes::copy_from_slice(value.as_bytes()),
            ttl: TimeToLive::Never,
            ..Write::default()
        };
        self.inner.lock().write(key.as_bytes(), write, Expect::Any);
    }

    /// What it holds, its own client's matters apart.
    pub(super) fn held(&self, key: &str) -> Option<String> {
        let mut inner = self.inner.lock();
        let value = inner.live(key.as_bytes())?;
        Some(String::from_utf8_lossy(&value.write.bytes).into_owned())
    }

    pub(super) fn left(&self, key: &str) -> Option<Duration> {
        let mut inner = self.inner.lock();
        inner.live(key.as_bytes())?.ends.map(|ends| ends - now())
    }

    pub(super) fn keys_held(&self) -> usize {
        self.inner.lock().values.keys().filter(|key| *key != EPOCH_KEY).count()
    }

    pub(super) fn remembers(&self) -> bool {
        self.inner.lock().values.contains_key(EPOCH_KEY)
    }

    fn unreachable(&self, may_be_done: bool) -> EndpointError {
        EndpointError::Unreachable { address: self.name.into(), reason: "told so".into(), may_be_done }
    }

    async fn wait(&self) {
        let wait = {
            let mut inner = self.inner.lock();
            let max = inner.delay_ms_max;
            let random = if max == 0 { 0 } else { inner.random.u64(0..=max) };
            inner.slow + Duration::from_millis(random)
        };
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }

    /// Does something as the fault has it; `change` is what is done later if it is stopped.
    async fn done<T>(
        &self,
        change: Option<(&[u8], Change)>,
        act: impl FnOnce(&mut Inner) -> T + Send,
    ) -> Result<T, EndpointError> {
        self.wait().await;
        let done = {
            let mut inner = self.inner.lock();
            let mute = change.is_some() && std::mem::take(&mut inner.mute_once);
            match inner.fault {
                Fault::None if mute => {
                    act(&mut inner);
                    Err(self.unreachable(true))
                }
                Fault::Dead => Err(self.unreachable(false)),
                Fault::Stopped => {
                    if let Some((key, change)) = change {
                        inner.waiting.push((Bytes::copy_from_slice(key), change));
                    }
                    Ok(None)
                }
                Fault::Mute => {
                    act(&mut inner);
                    Err(self.unreachable(true))
                }
                Fault::None => Ok(Some(act(&mut inner))),
            }
        };
        self.wait().await;
        match done? {
            Some(answer) => Ok(answer),
            // Its answer is lost with the connection: nobody waits so long.
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Endpoint for Fake {
    fn address(&self) -> String {
        self.name.into()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Item>, EndpointError> {
        self.done(None, |inner| {
            let value = inner.live(key)?;
            let Write { bytes, flags, codec, .. } = value.write.clone();
            Some(Item { bytes, flags, codec, cas: value.cas, left: value.ends.map(|ends| ends - now()) })
        })
        .await
    }

    async fn write(&self, key: &[u8], write: Write, expect: Expect) -> Result<Outcome, EndpointError> {
        let max = self.inner.lock().value_bytes_max;
        if write.bytes.len() > max {
            let reason = format!("more than {max} bytes");
            return Err(EndpointError::Rejected { address: self.name.into(), reason });
        }
        self.done(Some((key, Some((write.clone(), expect)))), |inner| inner.write(key, write, expect)).await
    }

    async fn remove(&self, key: &[u8], expect: Expect) -> Result<Outcome, EndpointError> {
        self.done(Some((key, None)), |inner| inner.remove(key, expect)).await
    }

    async fn touch(&self, key: &[u8], ttl: TimeToLive) -> Result<bool, EndpointError> {
        self.done(None, |inner| {
            let TimeToLive::For(life) = ttl else { return inner.live(key).is_some() };
            let Some(value) = inner.live(key).cloned() else { return false };
            inner.values.insert(Bytes::copy_from_slice(key), Value { ends: Some(now() + life), ..value });
            true
        })
        .await
    }

    async fn clear(&self) -> Result<(), EndpointError> {
        self.done(None, |inner| inner.values.clear()).await
    }

    async fn probe(&self) -> Result<Pulse, EndpointError> {
        self.done(None, |inner| {
            let life = Life::new(inner.incarnation, inner.values.len() as u64);
            Pulse::new(life.began_empty())
        })
        .await
    }

    async fn keys(&self) -> Result<Keys, EndpointError> {
        if !self.inner.lock().lists {
            return Err(EndpointError::Unsupported { what: "listing keys" });
        }
        let all: Vec<_> = self.done(None, |inner| inner.values.keys().cloned().collect()).await?;
        let (sender, keys) = mpsc::channel(KEYS_WAITING_MAX);
        tokio::spawn(async move {
            for key in all {
                if sender.send(Ok(key)).await.is_err() {
                    return;
                }
            }
        });
        Ok(keys)
    }
}
