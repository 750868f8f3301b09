//! Simulated workers and queues, for benchmarks and fault tests.

fn main() {}
