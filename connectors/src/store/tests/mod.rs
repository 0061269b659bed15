#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod erase;
mod fixture;
mod kept;
#[cfg(feature = "object-store")]
mod moto;
#[cfg(feature = "object-store")]
mod objects;
#[cfg(feature = "object-store")]
mod remote;
#[cfg(feature = "object-store")]
mod remote_damage;
#[cfg(feature = "object-store")]
mod replay;
#[cfg(feature = "object-store")]
mod s3;
mod use_cases;
