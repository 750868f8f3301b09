//! What is simulated: builders that make their outputs at once, and what they make.

mod builder;
mod gauge;
mod outputs;
mod work;

pub use builder::{Chatter, SimulatedBuilder};
pub use gauge::Gauge;
pub use outputs::{Contents, OUTPUT_SIZE, OutputStore, Outputs, Publication, SharedOutput, contents_of};
pub use work::Work;
