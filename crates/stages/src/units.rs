//! Units of work: where a long stage is cut, kept and joined.
//!
//! A killed stage goes on from its finished units, a larger one takes over those of a smaller one, and units can be computed in other
//! processes. All three give the result of one undisturbed run, to the last bit, because of three rules:
//!
//! * *Cuts* are made at places that the stage's parameters and its data decide ([`UnitPlan`]), never the machine.
//! * *A batch of the device never crosses a unit.* Rows that are computed together are padded to the same length and go through the
//!   same products; what one row's neighbours are shows in its last digits. Inside a unit they are always the same ones, whether
//!   the units beside it were kept or computed.
//! * *Results are joined, and sums taken, in the units' order*, in whatever order units were finished. Floating-point addition is not
//!   associative; an order that depended on who was first would give other bits each time.
//!
//! # What changes a result
//!
//! | | |
//! | --- | --- |
//! | never a bit | the number of cores; how often and where a run was interrupted; how many units were kept; which process computed a unit; `parallel_requests`, as long as it is no less than a batch of targets (8 on a CPU, 64 on a GPU) |
//! | last digits | `batch_tokens`; a `parallel_requests` below that; the kind of device and its kernels; memory so short that a device halves its batches |
//!
//! What can change last digits is in the key of no result under `numerics: portable`, so that a machine goes on from what another
//! one kept. Under `numerics: strict` a unit's key holds it ([`key`]).

use palinode_engine::{Error, FileRef, Key, Progress, StageContext, UnitPlan};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The key of a unit. `of` is all that the unit depends on; `digits` what can change its last digits, which counts under
/// `numerics: strict` alone.
pub fn key(cx: &StageContext, of: &Value, digits: &Value) -> Key {
    if cx.strict() { cx.unit_key(&json!({ "unit": of, "digits": digits })) } else { cx.unit_key(of) }
}

/// As [`key`], for units that are the same since an earlier version of the stage.
pub fn key_since(cx: &StageContext, version: u32, of: &Value, digits: &Value) -> Key {
    if cx.strict() {
        cx.unit_key_since(version, &json!({ "unit": of, "digits": digits }))
    } else {
        cx.unit_key_since(version, of)
    }
}

/// What a unit is known by that puts a file into the store: made once, and found as long as the file is there.
///
/// # Errors
/// What `make` gives; when the store cannot be written.
pub fn with_file<T: Serialize + DeserializeOwned>(
    cx: &StageContext,
    of: &Value,
    file: impl Fn(&T) -> FileRef,
    make: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    let key = key(cx, of, &Value::Null);
    let kept = cx.get_unit(&key).and_then(|bytes| serde_json::from_slice::<T>(&bytes).ok());
    if let Some(kept) = kept.filter(|kept| cx.path(&file(kept)).is_ok()) {
        return Ok(kept);
    }
    let made = make()?;
    let bytes = serde_json::to_vec(&made).map_err(|error| Error::internal(error.to_string()))?;
    cx.put_unit(&key, &bytes)?;
    Ok(made)
}

/// Runs items unit by unit. Finished units are kept, and shared with other stages of the kind that ask the same.
pub struct Units<'a> {
    /// Where units are kept.
    pub cx: &'a StageContext,
    /// Counts items.
    pub bar: &'a Progress,
    /// Items in a unit, see [`UnitPlan::size`].
    pub size: usize,
    /// What can change last digits of a result.
    pub digits: Value,
}

impl Units<'_> {
    /// What `work` makes of the items, one for each; of a share, those of its units. `of` is all that a result depends on beside its unit. Work counts on
    /// the bar what it has done.
    pub fn run<Q: Serialize, T: Serialize + DeserializeOwned>(
        &self,
        of: &Value,
        items: &[Q],
        mut work: impl FnMut(&[Q]) -> Result<Vec<T>, Error>,
    ) -> Result<Vec<T>, Error> {
        let plan = UnitPlan::new("items", items.len(), self.size);
        let mut all = Vec::with_capacity(items.len());
        for number in 0..plan.units() {
            self.cx.check_interrupt()?;
            if !self.cx.is_mine() {
                continue;
            }
            let unit = &items[plan.unit(number)];
            // The key was made like this before units had a name, and finds what was kept then.
            let key = key(self.cx, &json!({ "of": of, "block": unit }), &self.digits);
            let kept = self.cx.get_unit(&key).and_then(|bytes| serde_json::from_slice::<Vec<T>>(&bytes).ok());
            let found = if let Some(found) = kept.filter(|found| found.len() == unit.len()) {
                self.bar.keep(unit.len() as u64);
                found
            } else {
                let found = work(unit)?;
                let bytes = serde_json::to_vec(&found).map_err(|error| Error::internal(error.to_string()))?;
                self.cx.put_unit(&key, &bytes)?;
                found
            };
            all.extend(found);
        }
        Ok(all)
    }
}
