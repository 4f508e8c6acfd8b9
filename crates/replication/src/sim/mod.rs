//! A simulated cluster: rehearse an outage in a unit test.

mod map_store;
mod store;

pub use self::{
    map_store::MapStore,
    store::{Held, SimStore, StoreSettings},
};
pub use crate::replica::Rules;
