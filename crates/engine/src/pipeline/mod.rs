//! From a pipeline file to a checked graph of stage instances; [`load`] has the steps in order.

mod cell;
mod check;
mod connect;
mod eval;
mod expand;
mod expr;
mod files;
mod graph;
mod include;
mod limits;
mod load;
mod matrix;
mod overrides;
mod places;
mod read;
mod report;
mod resolved;
mod schema;
mod spec;
mod yaml;

pub use files::{Disk, Files};
pub use graph::{Instance, Pipeline};
pub(crate) use resolved::read_value;
pub use schema::pipeline_schema;
