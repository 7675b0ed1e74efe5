//! The machine that stages run on: devices, memory, speed.

pub mod devices;
pub mod inspect;
pub mod threads;
pub mod throughput;
