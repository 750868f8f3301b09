#![doc = include_str!("../README.md")]

pub mod cache;
pub mod client;
mod describe;
pub mod inbox;
mod nonce;
pub mod products;
pub mod push;
mod recent;
pub mod server;
mod signer;
pub mod stream;

pub use cache::Cache;
pub use client::{BaseUrl, SubstituteClient};
pub use describe::item_nar_url;
pub use inbox::Inbox;
pub use products::Products;
pub use push::PushDoor;
pub use server::{PublishConfig, PublishServer, Relay, StoreSource};
pub use signer::{Signer, TrustedKeys};
