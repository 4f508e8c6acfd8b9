//! Guides, a page each; their examples are compiled and run.
//!
//! | page | for whom |
//! |---|---|
//! | [`from_memcached_library`] | who knows `GeoDistributedLRU`, the Python library over memcached: where each of its names is here |
//! | [`from_rabbitmq_system`] | who knows `GeoDistributedLRUCache`, the Python system over RabbitMQ: where each of its names is here |

#[doc = include_str!("../../docs/from_memcached_library.md")]
pub mod from_memcached_library {}

#[doc = include_str!("../../docs/from_rabbitmq_system.md")]
pub mod from_rabbitmq_system {}
