//! Farms whose builders are simulated: real servers, sessions, wires and databases, and a thousand builds at once.

mod conduct;
mod farm;
mod graph;
mod log_text;
mod random;

pub use conduct::Conduct;
pub use farm::{Clocks, Crew, SecondServer, SimulatedFarm, SimulatedFarmConfig, publish};
pub use graph::Graph;
pub use log_text::LogText;
pub use random::Random;
