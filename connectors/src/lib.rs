//! Everything in Avouch that touches the outside, one room an outside world, each behind a cargo feature.

#[cfg(feature = "ethereum")]
pub mod ethereum;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod store;
