#![doc = include_str!("../README.md")]

mod api;
mod app;
mod assets;
mod cache;
mod changes;
mod config;
mod error;
mod failure;
pub mod log;
mod operators;
mod page;
mod product;
mod router;
mod serve;
#[cfg(test)]
mod tests;
mod view;

pub use config::Config;
pub use error::WebError;
pub use operators::{Operators, Tokens, TokensError};
pub use serve::run;
