//! Proof by fault: a thousand simulated builds run, something is killed, stopped, cut off or filled up, and afterwards the checker
//! must find that every build ended exactly once. See the README beside `tests/run` for the list.

mod checker;
mod clock;
mod crowd;
mod disk;
mod form;
mod kill;
mod liar;
mod partition;
mod restart;
mod servers;
mod shape;
mod stop;
mod wake;
