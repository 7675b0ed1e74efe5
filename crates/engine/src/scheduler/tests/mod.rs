//! The scheduler, driven without a thread or a clock.

mod cases;
mod random;
mod scale;
mod world;
