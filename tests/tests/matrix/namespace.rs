//! Parts of the cache.

use std::time::Duration;

use super::{Regions, reads, text};

pub(crate) async fn a_namespace_has_its_own_keys_defaults_and_clear(regions: Regions) {
    let Regions { here, there, .. } = &regions;
    let users = here.namespace("user").unwrap().with_default_ttl(Duration::from_secs(600));
    let users_there = there.namespace("user").unwrap();
    users.put("1", "Ada").unwrap();
    here.put("1", "not a user").unwrap();
    reads(&users_there, "1", Some("Ada")).await;
    reads(there, "1", Some("not a user")).await;
    assert_eq!(text(there, "user:1").as_deref(), Some("Ada"), "it is the same key under its whole name");
    assert!(there.peek_item(b"user:1").unwrap().left.is_some_and(|left| left <= Duration::from_secs(600)));
    assert_eq!(there.peek_item(b"1").unwrap().left, None);
    users_there.clear().unwrap();
    reads(&users, "1", None).await;
    assert_eq!(text(here, "1").as_deref(), Some("not a user"));
}
