//! Work on a model, block by block; finished blocks are kept, and shared with other stages of the kind that ask the same.

use palinode_engine::Progress;
use palinode_engine::{StageContext, StageError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Runs items in blocks.
pub struct Blocks<'a> {
    /// Where blocks are kept.
    pub cx: &'a StageContext,
    /// Counts items.
    pub bar: &'a Progress,
    /// Items between two looks at Ctrl-C; what is kept of an interrupted stage is a multiple of it.
    pub size: usize,
}

impl Blocks<'_> {
    /// What `work` makes of the items, one for each. `of` is all that a result depends on beside its block. Work counts on
    /// the bar what it has done.
    pub fn run<Q: Serialize, T: Serialize + DeserializeOwned>(
        &self,
        of: &Value,
        items: &[Q],
        mut work: impl FnMut(&[Q]) -> Result<Vec<T>, StageError>,
    ) -> Result<Vec<T>, StageError> {
        let mut all = Vec::with_capacity(items.len());
        for block in items.chunks(self.size) {
            self.cx.check_interrupt()?;
            let unit = self.cx.unit_key(&json!({ "of": of, "block": block }));
            let kept = self.cx.get_unit(&unit).and_then(|bytes| serde_json::from_slice::<Vec<T>>(&bytes).ok());
            let found = if let Some(found) = kept.filter(|found| found.len() == block.len()) {
                self.bar.keep(block.len() as u64);
                found
            } else {
                let found = work(block)?;
                let bytes = serde_json::to_vec(&found).map_err(|error| StageError::internal(error.to_string()))?;
                self.cx.put_unit(&unit, &bytes)?;
                found
            };
            all.extend(found);
        }
        Ok(all)
    }
}
