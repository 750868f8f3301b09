//! What is simulated: builders that make their outputs at once, and what they make.

mod builder;
mod gauge;
mod outputs;
mod work;

pub(crate) use builder::SimulatedBuilder;
pub(crate) use gauge::Gauge;
pub(crate) use outputs::{OUTPUT_SIZE, OutputStore, Outputs, Publication, SharedOutput};
pub(crate) use work::Work;
