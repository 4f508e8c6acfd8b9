//! An entry in the slab.

/// The heaviest entry that any share can hold: weights are stored in 32 bits.
pub(crate) const WEIGHT_MAX: u64 = u32::MAX as u64;

/// 24 bytes beside the key and the value; the mark's spare bit patterns make a vacant slot free of charge.
pub(crate) struct Entry<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) hash: u64,
    /// The entry is live while the time is before this; [`NEVER`](crate::clock::NEVER) is never reached.
    pub(crate) deadline: u64,
    pub(crate) weight: u32,
    /// Used since it last stood at the cold end of the order.
    pub(crate) marked: bool,
}

/// An entry to be put in, its weight not yet judged.
pub(crate) struct New<K, V> {
    pub(crate) hash: u64,
    pub(crate) key: K,
    pub(crate) value: V,
    pub(crate) weight: u64,
    pub(crate) deadline: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_costs_24_bytes_over_key_and_value() {
        assert_eq!(size_of::<Option<Entry<u64, u64>>>(), 24 + 16);
    }
}
