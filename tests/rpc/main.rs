//! The RPC of a real process against SPDK's shapes, and against clients that mean harm or make haste.

mod golden;
mod hosts;
mod params;
#[path = "../serving/mod.rs"]
mod serving;
mod shape;
mod torture;
