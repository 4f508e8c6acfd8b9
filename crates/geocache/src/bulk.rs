//! Many keys in one call, and names for values that have none.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{error::Error, node::GeoCache, store::Condition, write::TimeToLive};

impl GeoCache {
    /// The values of many keys, in the order of the keys, as [`get`](Self::get) gives each.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = geocache::GeoCache::builder().build().await?;
    /// cache.put_many([("a", &1_u64), ("b", &2)])?;
    /// let values = cache.get_many::<u64>(["a", "nobody", "b"])?;
    /// let values: Vec<_> = values.iter().map(|value| value.as_deref().copied()).collect();
    /// assert_eq!(values, [Some(1), None, Some(2)]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Many`], which says at which key, with what [`get`](Self::get) says of it.
    pub fn get_many<T>(
        &self,
        keys: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> Result<Vec<Option<Arc<T>>>, Error>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        keys.into_iter()
            .enumerate()
            .map(|(index, key)| self.get(key).map_err(|error| at(index, error)))
            .collect()
    }

    /// Stores many values, each as [`put`](Self::put) does. All are checked and encoded before the first is stored, so an error
    /// changes nothing. Readers may see some of them before the others.
    ///
    /// # Errors
    /// [`Error::Many`], which says at which key, with what [`put`](Self::put) says of it.
    pub fn put_many<'a, K, T>(&self, values: impl IntoIterator<Item = (K, &'a T)>) -> Result<(), Error>
    where
        K: AsRef<[u8]>,
        T: Serialize + ?Sized + 'a,
    {
        self.open()?;
        let encode = |(index, (key, value)): (usize, (K, &T))| {
            let encoded = self.full(key.as_ref()).and_then(|full| {
                let payload = self.encoded(value)?;
                self.fits(&payload)?;
                Ok((Bytes::copy_from_slice(&full), payload))
            });
            encoded.map_err(|error| at(index, error))
        };
        let encoded = values.into_iter().enumerate().map(encode).collect::<Result<Vec<_>, _>>()?;
        let life = self.life(TimeToLive::Default);
        for (key, payload) in encoded {
            self.store().put_stamped(&key, payload, life, Condition::Any);
        }
        Ok(())
    }

    /// A key that no other call gives, on any node: a UUID of version 7 (RFC 9562), whose beginning is the time, so that keys made one
    /// after the other sort so.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = geocache::GeoCache::builder().build().await?;
    /// let key = cache.generate_key();
    /// cache.put(&key, "a value without a name of its own")?;
    /// assert_eq!(key.len(), 36);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn generate_key(&self) -> String {
        new_key()
    }
}

pub(crate) fn new_key() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn at(index: usize, source: Error) -> Error {
    Error::Many { index, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[tokio::test]
    async fn one_that_cannot_be_stored_stops_all_before_anything_is_stored() {
        let cache = GeoCache::builder().value_bytes_max(8).build().await.unwrap();
        let error = cache.put_many([("a", "short"), ("b", "far too long a value"), ("c", "x")]).unwrap_err();
        assert!(
            matches!(&error, Error::Many { index: 1, source } if matches!(**source, Error::ValueTooLarge { .. }))
        );
        assert_eq!(
            error.to_string(),
            "at index 1: the encoded value has 21 bytes, at most 8 are allowed; nothing was changed"
        );
        assert!(!cache.contains("a").unwrap());
        let error = cache.put_many([("a", "x"), ("", "x")]).unwrap_err();
        assert!(matches!(error, Error::Many { index: 1, .. }), "{error}");
        assert!(!cache.contains("a").unwrap());
        let odd = BTreeMap::from([(vec![1_u8], 2_u8)]);
        let json = cache.with_codec(crate::Codec::Json);
        let error = json.put_many([("a", &odd)]).unwrap_err();
        assert!(matches!(error, Error::Many { index: 0, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_value_of_another_type_is_told_by_its_place() {
        let cache = GeoCache::builder().build().await.unwrap();
        cache.put("text", "x").unwrap();
        let error = cache.get_many::<u64>(["nobody", "text"]).unwrap_err();
        assert!(
            matches!(&error, Error::Many { index: 1, source } if matches!(**source, Error::Decode { .. })),
            "{error}"
        );
        assert!(cache.contains("text").unwrap(), "it stays stored");
    }

    #[tokio::test]
    async fn generated_keys_differ_and_rise() {
        let cache = GeoCache::builder().build().await.unwrap();
        let keys: Vec<String> = (0..1_000).map(|_| cache.generate_key()).collect();
        assert!(keys.is_sorted_by(|a, b| a < b));
        let version = |key: &String| uuid::Uuid::parse_str(key).unwrap().get_version_num();
        assert!(keys.iter().all(|key| version(key) == 7));
    }
}
