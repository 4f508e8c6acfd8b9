//! The client's calls: typed values over whatever engine moves the bytes.

use std::time::Duration;

use bytes::Bytes;
use geo::RegionId;
use serde::{Serialize, de::DeserializeOwned};
use tracing::{Instrument, Span, debug};

use super::{ClientError, GeoClient, Served};
use crate::{
    error::Error,
    read::Item,
    store::Outcome,
    trace::{self, TARGET},
    write::{Expect, TimeToLive, Write},
};

/// How often [`GeoClient::update`] tries before it gives up.
const UPDATE_TRIES_MAX: u32 = 64;

/// How many of those may end with a region that fails between the read and the change.
const UPDATE_OUTAGES_MAX: u32 = 3;

/// The longest pause between two of those tries.
const UPDATE_PAUSE_MAX: Duration = Duration::from_millis(64);

impl GeoClient {
    /// The value of a key; `None` where the region that answered holds none.
    ///
    /// # Errors
    /// A [`ClientError`]; [`Error::Decode`] within it where the stored value is not a `T`, which leaves it stored.
    pub async fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>, ClientError> {
        Ok(self.get_served(key).await?.value)
    }

    /// As [`get`](Self::get), with who answered and whether the value may be older than what another region holds.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_served<T: DeserializeOwned>(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Served<Option<T>>, ClientError> {
        let served = self.item(key.as_ref()).await?;
        decoded(served)
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// As [`get`](Self::get); one key that fails fails all.
    pub async fn get_many<T: DeserializeOwned, K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<T>>, ClientError> {
        let keys: Vec<Bytes> = keys.into_iter().map(|key| Bytes::copy_from_slice(key.as_ref())).collect();
        for key in &keys {
            self.check(key)?;
        }
        let span = trace::client!("client_get_many");
        let served = self.engine().get_many(&keys).instrument(span.clone()).await;
        span.in_scope(|| match &served {
            Ok(served) => debug!(target: TARGET, keys = served.len(), "answered"),
            Err(error) => debug!(target: TARGET, %error, "failed"),
        });
        served?.into_iter().map(|served| Ok(decoded(served)?.value)).collect()
    }

    /// Stores a value of any `serde` type, with the client's default time to live.
    ///
    /// A region that does not answer in time may store the value later, as one that stands still does when it goes on. Then that is what
    /// was written last there, and wins over what was written elsewhere meanwhile.
    ///
    /// # Errors
    /// A [`ClientError`]; where it [may be done](ClientError::Unavailable), some region may hold the value.
    pub async fn put<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
    ) -> Result<Served<()>, ClientError> {
        self.put_with_ttl(key, value, self.default_ttl()).await
    }

    /// As [`put`](Self::put), with a time to live of its own.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_with_ttl<T: Serialize + ?Sized>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: impl Into<TimeToLive>,
    ) -> Result<Served<()>, ClientError> {
        let write = self.encoded(value, ttl.into())?;
        Ok(self.write(key.as_ref(), write, Expect::Any).await?.map(drop))
    }

    /// Stores a value under a new key, [made for it](Self::generate_key), and returns the key.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_new<T: Serialize + ?Sized>(&self, value: &T) -> Result<String, ClientError> {
        let key = self.generate_key();
        self.put(&key, value).await?;
        Ok(key)
    }

    /// Changes a value by a function of what it is, and returns what it is then; `None` from `change` removes it.
    ///
    /// Judged and made in one step at the region that gave the value; run again, at most 64 times, where another writer was faster, and
    /// at another region where that one is gone meanwhile. The value keeps what is left of its life. Two clients that change one key
    /// through two regions at once keep one of the two outcomes.
    ///
    /// # Errors
    /// As [`put`](Self::put) and [`get`](Self::get); [`ClientError::Contended`]. Where the change [may be
    /// done](ClientError::Unavailable), it is not tried again.
    pub async fn update<T, F>(
        &self,
        key: impl AsRef<[u8]>,
        mut change: F,
    ) -> Result<Served<Option<T>>, ClientError>
    where
        T: Serialize + DeserializeOwned,
        F: FnMut(Option<T>) -> Option<T>,
    {
        let key = key.as_ref();
        let mut outages = 0;
        for tried in 0..UPDATE_TRIES_MAX {
            let seen = self.leading_item(key).await?;
            let expect = seen.value.as_ref().map_or(Expect::Absent, |item| Expect::Cas(item.cas));
            let before = decoded::<T>(seen)?;
            let is_absent = before.value.is_none();
            let region = before.region.clone();
            let after = change(before.value);
            let outcome = match &after {
                Some(value) => {
                    let write = self.encoded(value, TimeToLive::Keep)?;
                    self.write_at(&region, key, write, expect).await
                }
                None if is_absent => return Ok(Served::new(None, region)),
                None => self.remove_at(&region, key, expect).await,
            };
            match outcome {
                Ok(outcome) if matches!(outcome.value, Outcome::Done { .. }) => {
                    return Ok(outcome.map(|_| after));
                }
                Ok(_) => let_others_pass(tried).await,
                Err(ClientError::Unavailable { may_be_done: false, .. }) if outages < UPDATE_OUTAGES_MAX => {
                    outages += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::Contended { tries: UPDATE_TRIES_MAX })
    }

    /// Removes a key; says whether the region that answered held a value.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn remove(&self, key: impl AsRef<[u8]>) -> Result<bool, ClientError> {
        let outcome = self.remove_if(key.as_ref(), Expect::Any).await?;
        Ok(matches!(outcome.value, Outcome::Done { .. }))
    }

    /// Gives a value a new life; says whether the region that answered held one.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn touch(
        &self,
        key: impl AsRef<[u8]>,
        ttl: impl Into<TimeToLive>,
    ) -> Result<bool, ClientError> {
        let key = key.as_ref();
        self.check(key)?;
        let touched = told(trace::client!("client_touch", key), self.engine().touch(key, ttl.into()));
        Ok(touched.await?.value)
    }

    /// Forgets every key.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn clear(&self) -> Result<(), ClientError> {
        told(trace::client!("client_clear"), self.engine().clear()).await?;
        Ok(())
    }

    /// The value of a key as it is stored.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn item(&self, key: &[u8]) -> Result<Served<Option<Item>>, ClientError> {
        self.check(key)?;
        told(trace::client!("client_get", key), self.engine().get(key)).await
    }

    /// Stores bytes as they are, if the expectation holds at the region that takes the change.
    ///
    /// # Errors
    /// As [`put`](Self::put); [`ClientError::Unplaced`] where a compare-and-set number is expected.
    pub async fn write(
        &self,
        key: &[u8],
        write: Write,
        expect: Expect,
    ) -> Result<Served<Outcome>, ClientError> {
        placed(expect)?;
        self.check(key)?;
        told(trace::client!("client_put", key), self.engine().write(key, write, expect, None)).await
    }

    /// As [`write`](Self::write), at the region that what is expected was seen at: no other is asked. It is [`Outcome::Exists`] too
    /// where that region does not take changes any more.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn write_at(
        &self,
        region: &RegionId,
        key: &[u8],
        write: Write,
        expect: Expect,
    ) -> Result<Served<Outcome>, ClientError> {
        self.check(key)?;
        told(trace::client!("client_put", key), self.engine().write(key, write, expect, Some(region))).await
    }

    /// Removes a key if the expectation holds at the region that takes the change.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn remove_if(&self, key: &[u8], expect: Expect) -> Result<Served<Outcome>, ClientError> {
        placed(expect)?;
        self.check(key)?;
        told(trace::client!("client_remove", key), self.engine().remove(key, expect, None)).await
    }

    /// As [`remove_if`](Self::remove_if), at the region that what is expected was seen at; see [`write_at`](Self::write_at).
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn remove_at(
        &self,
        region: &RegionId,
        key: &[u8],
        expect: Expect,
    ) -> Result<Served<Outcome>, ClientError> {
        self.check(key)?;
        told(trace::client!("client_remove", key), self.engine().remove(key, expect, Some(region))).await
    }

    /// Ends the client: calls are refused from now on, and what it owes other regions is brought there, until the deadline.
    pub async fn close(&self, deadline: Duration) {
        self.engine().close(deadline).instrument(trace::client!("client_close")).await;
    }

    /// The value of a key at the region that its changes are judged at.
    async fn leading_item(&self, key: &[u8]) -> Result<Served<Option<Item>>, ClientError> {
        self.check(key)?;
        told(trace::client!("client_get", key), self.engine().get_leading(key)).await
    }

    fn encoded<T: Serialize + ?Sized>(&self, value: &T, ttl: TimeToLive) -> Result<Write, ClientError> {
        Ok(Write { ttl, ..Write::encoded(value, self.codec())? })
    }

    /// What no endpoint would take.
    fn check(&self, key: &[u8]) -> Result<(), ClientError> {
        let (bytes, max) = (key.len(), self.key_bytes_max());
        if bytes == 0 || bytes > max { Err(Error::Key { bytes, max }.into()) } else { Ok(()) }
    }
}

/// A call within its span, in which it says how it went.
async fn told<T>(
    span: Span,
    call: impl Future<Output = Result<Served<T>, ClientError>>,
) -> Result<Served<T>, ClientError> {
    let outcome = call.instrument(span.clone()).await;
    span.in_scope(|| match &outcome {
        Ok(Served { region, asked, doubt, .. }) => {
            debug!(target: TARGET, %region, asked, doubt = doubt.map(tracing::field::display), "answered");
        }
        Err(error) => debug!(target: TARGET, %error, "failed"),
    });
    outcome
}

/// A number that another region gave may be that of another value here.
fn placed(expect: Expect) -> Result<(), ClientError> {
    if matches!(expect, Expect::Cas(_)) { Err(ClientError::Unplaced) } else { Ok(()) }
}

/// Without a wait of random length, of many who change one key in turn the one that has just succeeded is always the first with a
/// fresh value, and the others fail until it has enough.
async fn let_others_pass(tried: u32) {
    let max = UPDATE_PAUSE_MAX.min(Duration::from_millis(1 << tried.min(10)));
    tokio::time::sleep(max.mul_f64(fastrand::f64())).await;
}

fn decoded<T: DeserializeOwned>(served: Served<Option<Item>>) -> Result<Served<Option<T>>, ClientError> {
    let Served { value, region, doubt, asked } = served;
    let value = value.map(|item| item.decode()).transpose()?;
    Ok(Served { value, region, doubt, asked })
}
