//! The GeoCache daemon: a region's cache for every language, over the memcached protocol.
//!
//! `geocached` runs one node of one region, or a standalone cache; `geocached demo` runs three regions in one process.
//! This library is the daemon without its `main`, so that tests run a server in their own process. In reading order:
//! [`cli`] (what can be said), [`config`] (what it means), [`node`] and [`demo`] (what is run), [`memcached`] (what is
//! served), [`log`] (what is told), [`descriptor`] (room for connections), [`shutdown`] (how it ends).

pub mod cli;
pub mod config;
pub mod demo;
pub mod descriptor;
pub mod log;
pub mod memcached;
pub mod node;
pub mod shutdown;
pub mod status;
