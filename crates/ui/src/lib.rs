//! A page for a browser on a store: runs as they go, runs side by side, reports, questions to models.
//!
//! It reads the store as others do who look at it: without its lock, so that runs go on, and without writing, so that a store that this
//! user may only read will do. The page is files of plain HTML, CSS and JavaScript within the program; it asks nobody but this server.
//! `guard.rs` says who may come in, `http.rs` what a request may be, `routes.rs` what there is.

mod asking;
mod data;
mod guard;
mod http;
mod known;
mod routes;
mod server;

pub use server::{Options, Server};
