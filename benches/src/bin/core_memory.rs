//! What caches hold of memory: a part of the measurement `core`, which runs this program.
//!
//! It is a program of its own because it counts every allocation, which would slow down what else is measured. Counted
//! are the bytes that were requested, not what the allocator makes of them; everybody fills and churns on the one thread
//! that is counted. Everything of a cache counts, also its filters and buffers.

use anyhow::{Result, ensure};
use benches::contest::{self, Drive, Entrant, Footprint};

const CAPACITY: u64 = 100_000;

/// A key and a value of 8 bytes.
const KEY_AND_VALUE: f64 = 16.0;

fn main() -> Result<()> {
    let mut footprints = Vec::new();
    for entrant in contest::entrants().iter().chain(&contest::expiring()) {
        footprints.push(footprint(entrant)?);
    }
    println!("{}", serde_json::to_string(&footprints)?);
    Ok(())
}

fn footprint(entrant: &Entrant<u64>) -> Result<Footprint> {
    let mut cache = None;
    let mut held = allocation_counter::measure(|| {
        cache = Some(entrant.make(CAPACITY as usize).inspect(|cache| cache.fill(&mut (0..CAPACITY))));
    });
    let Some(cache) = cache.transpose()? else { unreachable!("the closure was run") };
    let fresh = per_entry(&*cache, held.bytes_current)?;
    held += allocation_counter::measure(|| cache.fill(&mut (CAPACITY..11 * CAPACITY)));
    let churned = per_entry(&*cache, held.bytes_current)?;
    Ok(Footprint { name: entrant.name.to_owned(), fresh, churned })
}

fn per_entry(cache: &dyn Drive<u64>, bytes: i64) -> Result<f64> {
    let entries = cache.settled();
    ensure!(entries as u64 > CAPACITY * 8 / 10, "it holds {entries} entries only");
    Ok(bytes as f64 / entries as f64 - KEY_AND_VALUE)
}
