//! From a pipeline file to a checked graph of stage instances.
//!
//! [`Pipeline::load`] reads a text and what it includes, evaluates variables and axes, connects the stages, multiplies them out, and
//! holds each instance against its kind of stage ([`Stage`]): all mistakes at once, each with its place. Nothing runs here, and
//! nothing but [`Files`] touches the disk.

mod artifact;
pub mod bounds;
mod build;
mod cell;
mod check;
mod connect;
mod diagnostic;
mod eval;
mod expand;
mod expr;
mod field;
mod files;
mod graph;
mod include;
mod kinds;
pub mod limits;
mod load;
mod matrix;
mod overrides;
mod part;
mod places;
mod read;
mod read_limits;
mod renamed;
mod report;
mod resolved;
mod resources;
mod schema;
mod select;
mod setting;
mod spec;
mod stage;
mod unit_plan;
mod yaml;

pub use artifact::{Accept, ArtifactKind, Kind, Port, PortOf};
pub use build::{PipelineBuilder, StageBuilder, StageName};
pub use diagnostic::{Diagnostic, Diagnostics, Excerpt, Origin, Source, Span};
pub use field::read as read_params;
pub use files::{Disk, Files};
pub use graph::{DEVICE, Instance, Pipeline};
pub use kinds::{Kinds, Params, Stage, StageInfo};
pub use limits::{Limits, read_duration};
pub use part::Part;
pub use renamed::{Renames, first_name, to_new};
pub use resolved::{read_value, read_yaml};
pub use resources::{Cores, Resources};
pub use schema::{part_schema, pipeline_schema};
pub use select::{Chosen, Selection};
pub use setting::Setting;
pub use stage::{Beside, DescribeCx, ExternalFile, Taken};
pub use unit_plan::UnitPlan;
