#![allow(clippy::unwrap_used)]

mod crash;
mod damage;
mod fixture;
mod use_cases;
