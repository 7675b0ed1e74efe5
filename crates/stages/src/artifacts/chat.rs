//! Prompts as messages of a chat.

use std::sync::Arc;

use palinode_engine::Error;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifacts::model::Loaded;
use crate::errors::StageFailure;

/// How prompts become messages of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    /// The system message. The default is what the model's chat template has by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
}

impl Chat {
    /// What tells results in this chat from others.
    pub fn name(&self) -> String {
        format!("in a chat, system message {:?}", self.system)
    }
}

/// The model, with every prompt a user's message where there is a chat.
pub fn in_chat(model: Arc<Loaded>, chat: Option<&Chat>) -> Result<Arc<Loaded>, Error> {
    let Some(chat) = chat else { return Ok(model) };
    let text = model.text.in_chat(chat.system.as_deref()).map_err(StageFailure::stage)?;
    Ok(Arc::new(Loaded { decoder: model.decoder.clone(), text }))
}
