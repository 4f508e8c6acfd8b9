//! What the fuzz targets check. The package `tests` runs the same on the corpus, without a fuzzer.

pub mod decode;
pub mod replica;
