//! After-care: what is done to a change after it was found.
//!
//! A method is a file with one function from a change, and the weight that it is for, to a change.

mod prune;
mod rect;
mod revive;
mod singular;
mod sphere;

pub use prune::{PruneForm, prune};
pub use rect::rect;
pub use revive::revive;
pub use sphere::{Sides, sphere};
