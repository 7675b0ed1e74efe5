//! After-care: what is done to a change after it was found.
//!
//! A method is a file with one function from a change, and the weight that it is for, to a change.

mod rect;

pub use rect::rect;
