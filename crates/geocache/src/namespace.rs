//! Namespaces: a part of the cache behind a prefix, with its own defaults, cleared by itself.
//!
//! A namespace is a [`GeoCache`] handle like any other, whose keys all begin with `name:`. So every operation works in it, and a
//! client that speaks bytes finds the key `1` of the namespace `user` as `user:1`. Rejected: a type of its own, which would repeat
//! the whole interface.
//!
//! **Bound.** At most [`NAMESPACES_MAX`] a node: each may have a clear barrier, which every read and merge of the cache looks at, and
//! which travels between nodes. Name the same ones in every region: where all together are more, a clear may forget more than its own
//! namespace.

use std::{collections::BTreeSet, fmt, ops::Deref, sync::Arc, time::Duration};

use geo::check_name;
use parking_lot::Mutex;
use replication::replica::NAMESPACES_MAX;
use smallvec::SmallVec;

use crate::{error::Error, node::GeoCache, store::Life, value::Codec, write::TimeToLive};

/// Up to this length a key and what is before it are put together on the stack.
const SHORT_BYTES: usize = 64;

/// What a handle adds to each key and takes for a default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Scope {
    /// What its keys begin with.
    prefix: Box<[u8]>,
    ttl: TimeToLive,
    codec: Option<Codec>,
}

/// The namespaces that a node was asked for.
pub(crate) type Namespaces = Mutex<BTreeSet<Box<[u8]>>>;

/// A key as the store has it.
pub(crate) enum FullKey<'a> {
    Given(&'a [u8]),
    Prefixed(Joined),
}

/// A prefix and a key.
type Joined = SmallVec<[u8; SHORT_BYTES]>;

fn joined(prefix: &[u8], key: &[u8]) -> Joined {
    let mut full = Joined::with_capacity(prefix.len() + key.len());
    full.extend_from_slice(prefix);
    full.extend_from_slice(key);
    full
}

impl Deref for FullKey<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Given(key) => key,
            Self::Prefixed(key) => key,
        }
    }
}

impl GeoCache {
    /// A part of the cache: a handle whose keys are apart from all others, and which [`clear`](Self::clear) empties alone.
    ///
    /// The key `1` of the namespace `user` is the key `user:1` of the cache. Namespaces may be nested. A node takes at most 16 names.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use geocache::GeoCache;
    ///
    /// let cache = GeoCache::builder().build().await?;
    /// let users = cache.namespace("user")?.with_default_ttl(Duration::from_secs(60));
    /// users.put("1", "Ada")?;
    /// cache.put("note", "kept")?;
    /// assert!(cache.contains("user:1")?);
    /// users.clear()?;
    /// assert!(!cache.contains("user:1")? && cache.contains("note")?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Namespace`] where the name is not 1 to 63 bytes of `[a-z0-9-]`; [`Error::TooManyNamespaces`].
    pub fn namespace(&self, name: &str) -> Result<Self, Error> {
        check_name(name).map_err(|source| Error::Namespace { source })?;
        let prefix: Box<[u8]> = [self.prefix(), name.as_bytes(), b":"].concat().into();
        let mut names = self.namespaces().lock();
        if !names.contains(&prefix) {
            if names.len() >= NAMESPACES_MAX {
                return Err(Error::TooManyNamespaces { max: NAMESPACES_MAX });
            }
            names.insert(prefix.clone());
        }
        drop(names);
        Ok(self.with_scope(|scope| scope.prefix = prefix))
    }

    /// A handle by which a value lives this long that is written without a time of its own. Default: as the node was built, or as the
    /// handle that this one was made of.
    #[must_use]
    pub fn with_default_ttl(&self, ttl: impl Into<TimeToLive>) -> Self {
        let ttl = ttl.into();
        self.with_scope(|scope| scope.ttl = ttl)
    }

    /// A handle by which typed values are written in another codec; every handle reads every codec. A codec of a number that this
    /// program does not know refuses each write. Default: as the node was built.
    #[must_use]
    pub fn with_codec(&self, codec: Codec) -> Self {
        self.with_scope(|scope| scope.codec = Some(codec))
    }

    fn with_scope(&self, change: impl FnOnce(&mut Scope)) -> Self {
        let mut scope = self.scope().cloned().unwrap_or_default();
        change(&mut scope);
        self.scoped(Arc::new(scope))
    }

    /// What all keys of this handle begin with.
    pub(crate) fn prefix(&self) -> &[u8] {
        self.scope().map_or(&[], |scope| &scope.prefix)
    }

    /// The codec of this handle, where it has one of its own.
    pub(crate) fn own_codec(&self) -> Option<Codec> {
        self.scope().and_then(|scope| scope.codec)
    }

    /// How long a value lives that is written by this handle without a time of its own.
    pub(crate) fn default_ttl(&self) -> Option<Duration> {
        match self.scope().map_or(TimeToLive::Default, |scope| scope.ttl) {
            TimeToLive::For(ttl) => Some(ttl),
            TimeToLive::Never => None,
            TimeToLive::Default | TimeToLive::Keep => self.store().default_ttl(),
        }
    }

    /// A time to live as the store takes it.
    pub(crate) fn life(&self, ttl: TimeToLive) -> Life {
        let has_own = self.scope().is_some_and(|scope| scope.ttl != TimeToLive::Default);
        match ttl {
            TimeToLive::Default if has_own => self.default_ttl().map_or(Life::Never, Life::For),
            TimeToLive::Default => Life::Default,
            TimeToLive::Never => Life::Never,
            TimeToLive::For(life) => Life::For(life),
            TimeToLive::Keep if has_own => Life::KeepOr(self.default_ttl()),
            TimeToLive::Keep => Life::Keep,
        }
    }

    /// The key as the store has it, if it is within the limits.
    #[inline]
    pub(crate) fn full<'a>(&self, key: &'a [u8]) -> Result<FullKey<'a>, Error> {
        let prefix = self.within_limits(key)?;
        if prefix.is_empty() {
            return Ok(FullKey::Given(key));
        }
        Ok(FullKey::Prefixed(joined(prefix, key)))
    }

    /// As [`full`](Self::full), for reads: where nothing is put before the key, nothing is made or moved, and a short key is
    /// put together on the stack by two copies.
    #[inline]
    pub(crate) fn with_full<R>(&self, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        let prefix = self.within_limits(key)?;
        let (at, bytes) = (prefix.len(), prefix.len() + key.len());
        let mut short = [0; SHORT_BYTES];
        let long;
        let full = if prefix.is_empty() {
            key
        } else if bytes <= SHORT_BYTES {
            short[..at].copy_from_slice(prefix);
            short[at..bytes].copy_from_slice(key);
            &short[..bytes]
        } else {
            long = joined(prefix, key);
            &*long
        };
        Ok(read(full))
    }

    /// What comes before a key, if it is within the limits with that.
    #[inline]
    fn within_limits(&self, key: &[u8]) -> Result<&[u8], Error> {
        let prefix = self.prefix();
        let (bytes, max) = (prefix.len() + key.len(), self.key_bytes_max());
        if key.is_empty() || bytes > max {
            return Err(Error::Key { bytes: if key.is_empty() { 0 } else { bytes }, max });
        }
        Ok(prefix)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prefix.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Expect, GeoCluster, LoadOptions, Outcome, Write};

    const LONG: Duration = Duration::from_secs(20);

    async fn cache() -> GeoCache {
        GeoCache::builder().default_ttl(LONG).build().await.expect("valid")
    }

    fn left(cache: &GeoCache, key: &[u8]) -> Option<Duration> {
        cache.peek_item(key).expect("held").left
    }

    #[tokio::test]
    async fn a_namespace_is_apart_in_every_operation() {
        let cache = cache().await;
        let users = cache.namespace("user").unwrap();
        users.put("k", &1_u64).unwrap();
        cache.put("k", &2_u64).unwrap();
        assert_eq!(
            (*users.get::<u64>("k").unwrap().unwrap(), *cache.get::<u64>("k").unwrap().unwrap()),
            (1, 2)
        );
        users.update("k", |old: Option<Arc<u64>>| old.map(|old| *old + 10)).unwrap();
        assert_eq!(
            *cache.get::<u64>("user:k").unwrap().unwrap(),
            11,
            "it is the same key under its whole name"
        );
        assert!(
            users.item(b"k").is_some() && users.peek_item(b"k").is_some() && users.contains("k").unwrap()
        );
        let raw = Write { bytes: "raw".into(), ..Write::default() };
        assert_eq!(users.write(b"k", raw, Expect::Absent).unwrap(), Outcome::Present);
        assert!(users.touch("k", LONG).unwrap());
        assert!(users.remove("k").unwrap());
        assert!(!users.contains("k").unwrap() && cache.contains("k").unwrap());
        let loaded = users.get_or_load("l", || async { Ok::<_, std::fmt::Error>(7_u64) }).await.unwrap();
        assert_eq!((*loaded, *cache.get::<u64>("user:l").unwrap().unwrap()), (7, 7));
        users.put_many([("a", &1_u64), ("b", &2)]).unwrap();
        assert!(users.get_many::<u64>(["a", "b"]).unwrap().iter().all(Option::is_some));
        assert!(cache.get_many::<u64>(["a", "b"]).unwrap().iter().all(Option::is_none));
    }

    #[tokio::test]
    async fn a_clear_empties_the_namespace_alone_everywhere() {
        let cluster = GeoCluster::new(["us-east", "eu-central"]).await.unwrap();
        let (here, there) = (cluster.region("us-east").unwrap(), cluster.region("eu-central").unwrap());
        let (users, inner) =
            (here.namespace("user").unwrap(), here.namespace("user").unwrap().namespace("old").unwrap());
        users.put("1", "x").unwrap();
        inner.put("1", "x").unwrap();
        here.put("1", "x").unwrap();
        here.put("username", "x").unwrap();
        inner.clear().unwrap();
        cluster.settled(LONG).await.unwrap();
        let held = |key| there.contains(key).unwrap();
        assert_eq!(["user:1", "user:old:1", "1", "username"].map(held), [true, false, true, true]);
        users.clear().unwrap();
        cluster.settled(LONG).await.unwrap();
        assert_eq!(["user:1", "1", "username"].map(held), [false, true, true]);
    }

    #[tokio::test]
    async fn a_handle_has_its_own_defaults() {
        let cache = cache().await;
        let short = cache.namespace("short").unwrap().with_default_ttl(Duration::from_secs(5));
        let kept = cache.with_default_ttl(TimeToLive::Never).with_codec(Codec::Json);
        short.put("k", "v").unwrap();
        kept.put("k", "v").unwrap();
        assert!(left(&short, b"k").unwrap() <= Duration::from_secs(5));
        assert_eq!(left(&kept, b"k"), None);
        assert_eq!(kept.codec(), Codec::Json);
        assert_eq!(&*cache.item(b"k").unwrap().bytes, b"\"v\"");
        cache.put("k", "v").unwrap();
        assert!(left(&cache, b"k").unwrap() > Duration::from_secs(5));
        let raw = Write { bytes: "raw".into(), ttl: TimeToLive::Keep, ..Write::default() };
        short.write(b"new", raw, Expect::Any).unwrap();
        assert!(
            left(&short, b"new").unwrap() <= Duration::from_secs(5),
            "nothing to keep: the handle's default"
        );
        short.update("fresh", |_: Option<Arc<u64>>| Some(1)).unwrap();
        assert!(left(&short, b"fresh").unwrap() <= Duration::from_secs(5));
        let load = || async { Ok::<_, std::fmt::Error>(7_u64) };
        short.get_or_load_with("loaded", LoadOptions::new(), load).await.unwrap();
        assert!(left(&short, b"loaded").unwrap() <= Duration::from_secs(5));
    }

    #[tokio::test]
    async fn names_and_keys_are_checked_and_their_number_is_bounded() {
        let cache = cache().await;
        assert!(matches!(cache.namespace("Not A Name"), Err(Error::Namespace { .. })));
        let users = cache.namespace("user").unwrap();
        assert!(matches!(users.put("", "v"), Err(Error::Key { bytes: 0, .. })));
        let longest = "k".repeat(250 - "user:".len());
        users.put(&longest, "v").unwrap();
        let error = users.put(format!("{longest}k"), "v").unwrap_err();
        assert!(matches!(error, Error::Key { bytes: 251, max: 250 }), "{error}");
        assert!(users.item(&[b'k'; 251]).is_none());
        for n in 1..NAMESPACES_MAX {
            cache.namespace(&format!("n{n}")).unwrap();
        }
        assert!(matches!(cache.namespace("more"), Err(Error::TooManyNamespaces { max: NAMESPACES_MAX })));
        cache.namespace("user").unwrap();
    }
}
