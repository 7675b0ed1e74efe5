//! Context templates on their way between stages.

use palinode_data::ContextTemplates;
use palinode_engine::{Error, Kind, PortOf, StageContext};
use serde::{Deserialize, Serialize};

/// Context templates.
pub struct TemplatesKind;

impl Kind for TemplatesKind {
    const NAME: &'static str = "templates";
    type Facts = TemplatesFacts;
    type Planned = ();
}

/// The templates, which an artifact says itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct TemplatesFacts {
    /// The templates.
    pub templates: ContextTemplates,
}

/// The templates at an optional port; the bare prompt where none is connected.
pub fn at_port(cx: &StageContext, port: PortOf<TemplatesKind>) -> Result<ContextTemplates, Error> {
    Ok(cx.input_opt(port)?.map_or_else(ContextTemplates::bare, |given| given.facts.templates))
}
