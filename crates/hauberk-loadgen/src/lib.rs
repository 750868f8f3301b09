//! What is simulated, for the benchmarks of this crate and for the fault tests.

pub mod simulated;
