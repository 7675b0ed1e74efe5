//! Updates put onto model folders and taken off again, outside any pipeline.

use std::path::Path;

use palinode_engine::{Digest, Error, Hint, Overwrite};
use palinode_model::save::ChangedType;
use palinode_model::{Layout, is_gguf};

use crate::artifacts::model::{GGUF, LEDGER_FILE};
use crate::sinks::export::folder::{Direction, NOTE, Note, write_weights};
use crate::sinks::export::ledger::{Entry, Ledger};
use crate::sinks::export::rounding::{Rounding, back_to};
use crate::sinks::export::update_file::{UpdateFile, other_form};
use crate::sinks::model_folder::{
    Restored, base_is, begin, companions, digests, read_model, read_note, rounded_in, shards,
};
use crate::sinks::take_off::{TakeOff, TakenOff, entry_of, ledger_of, put_on, take_off_update, write_folder};

/// What putting an update onto a model did beside.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Edits that it superseded, which had to come off first, in words.
    pub superseded: Vec<String>,
    /// What there is to say: of a ledger that is missing or is of something else, and of rounding.
    pub notes: Vec<String>,
}

/// Puts an update onto a model's folder: the edited model is written to `out`, the folder stays as it is. Onto an edited model it goes on
/// top, as long as it was made for that, or for the unedited one. A weight of which rounding would lose a large share of the change is
/// written in f32.
///
/// # Errors
/// Of kind input: a folder or file that does not read; a model that the update was not made for, unless `force`; an earlier edit of the same
/// fact that cannot be taken off by itself; an `out` that is there and was not written by this, unless `overwrite`. Nothing is left at `out`
/// then.
pub fn apply(update: &Path, model: &Path, out: &Path, force: bool, overwrite: Overwrite) -> Result<Applied, Error> {
    let update = &UpdateFile::at(update)?;
    let file = open(update, model)?;
    let weights = digests(model)?;
    let ledger = ledger_of(model, &weights)?;
    let (mut entry, is_kept) = entry_of(update, &file)?;
    let mut notes = Vec::new();
    if !is_kept {
        notes.push(format!(
            "{} has no {LEDGER_FILE} of its own beside it: its edits can be taken off all together, and not one by one",
            update.display()
        ));
    }
    if ledger.is_none() {
        notes.push(format!(
            "the {LEDGER_FILE} in {} is of other weights than the model has: its edits are left out",
            model.display()
        ));
    }
    let on_top = ledger.as_ref().is_some_and(|ledger| {
        !ledger.updates.is_empty() && (force || [&ledger.base, &ledger.weights].contains(&&file.provenance.model_files))
    });
    if on_top && let Some(ledger) = &ledger {
        if ![&ledger.base, &ledger.weights].contains(&&file.provenance.model_files) {
            elsewhere(&mut entry);
        }
        let (made, superseded) = put_on(ledger, entry)?;
        let out = begin(out, model, "apply", overwrite)?;
        let (_, rounding) = write_folder(model, ledger, made, None, out)?;
        notes.extend(rounding.shown().notes.unwrap_or_default());
        return Ok(Applied { superseded, notes });
    }
    if !force {
        for (name, made_for) in &file.provenance.model_files {
            let message = match weights.get(name) {
                Some(digest) if digest == made_for => continue,
                Some(_) if is_gguf(model) => {
                    format!("{} is not the {name} that the update was made for", model.display())
                }
                Some(_) => format!("{} is not the {name} that the update was made for", model.join(name).display()),
                None if (name == GGUF) != is_gguf(model) => other_form(name == GGUF, &model.display().to_string()),
                None => format!("{} has no {name}, which the update was made for", model.display()),
            };
            return Err(Error::input(message).hint(Hint::ForceApply));
        }
    }
    let layout = Layout::of(&read_model(model)?);
    let mut out = begin(out, model, "apply", overwrite)?;
    let mut rounding = Rounding::default();
    let auto = |_: &str| ChangedType::Auto;
    let written = write_weights(&shards(model)?, &layout, &file.updates, Direction::On, &auto, &mut out, |done| {
        rounding.add(done);
        Ok(())
    })?;
    companions(model, &mut out)?;
    if is_kept {
        if weights != entry.facts.provenance.model_files {
            elsewhere(&mut entry);
        }
        let mut ledger = Ledger::new(weights);
        ledger.weights.clone_from(&written);
        ledger.put(entry);
        out.write(LEDGER_FILE, &ledger.to_bytes()?)?;
    }
    let note = Note {
        update: Digest::of(&file.to_bytes()?),
        weights: written,
        rounding: rounding.weights(&[]),
        provenance: file.provenance.clone(),
    };
    out.finish(note.about()?)?;
    notes.extend(rounding.shown().notes.unwrap_or_default());
    Ok(Applied { superseded: Vec::new(), notes })
}

/// Of an update that is put onto other weights than it was made for: what would be measured anew on those is not what was.
fn elsewhere(entry: &mut Entry) {
    entry.facts.from = None;
    if let Some(solved) = &mut entry.solved {
        solved.targets = Vec::new();
    }
}

/// Takes an update off an edited model's folder: the unedited model is written to `out`, or the one with the other updates that are on it. With
/// the original at hand as `base`, its weights are taken as they are.
///
/// # Errors
/// As [`apply`]; also for a folder that does not say that it holds this update, unless `force`, and a base that is another model's.
pub fn revert(
    update: &Path,
    model: &Path,
    base: Option<&Path>,
    out: &Path,
    force: bool,
    overwrite: Overwrite,
) -> Result<TakenOff, Error> {
    if is_gguf(model) {
        let message = format!("{} is a GGUF file, which an update is not taken off", model.display());
        return Err(Error::input(message).hint("the unedited file was not changed by the edit: use that one"));
    }
    let update = &UpdateFile::at(update)?;
    let file = open(update, model)?;
    let own = Digest::of(&file.to_bytes()?);
    // Of those that are on it, one comes off wherever it is.
    if let Some(ledger) = ledger_of(model, &digests(model)?)?
        && ledger.updates.iter().any(|entry| entry.facts.update == own)
    {
        let asked = TakeOff { place: model, edits: &[], base, store: Path::new(""), out, force, overwrite };
        return take_off_update(&asked, &ledger, own);
    }
    let layout = Layout::of(&read_model(model)?);
    let unchecked = match holds(model, own) {
        Err(error) if !force => return Err(error),
        other => other.err().map(|error| error.message),
    };
    if let Some(base) = base {
        base_is(base, &file.provenance.model_files)?;
    }
    let mut out = begin(out, model, "revert", overwrite)?;
    let mut exact = false;
    if let Some(base) = base {
        for (name, path) in shards(base)? {
            out.copy(&name, &path)?;
        }
    } else {
        // What was written in a wider type goes back to its own.
        let rounded = rounded_in(model)?;
        let kind = |name: &str| back_to(&rounded, name);
        let shards = shards(model)?;
        let written = write_weights(&shards, &layout, &file.updates, Direction::Off, &kind, &mut out, |_| Ok(()))?;
        exact = written == file.provenance.model_files;
    }
    companions(model, &mut out)?;
    out.finish_unmarked()?;
    let restored = match (base.is_some(), exact) {
        (true, _) => Restored::FromBase,
        (false, true) => Restored::Exactly,
        (false, false) => Restored::WithinRounding,
    };
    // Only what was subtracted from something else than it was added to is in doubt.
    let unchecked = unchecked.filter(|_| restored == Restored::WithinRounding);
    Ok(TakenOff { weights: Some(restored), unchecked, ..TakenOff::default() })
}

fn open(update: &Path, model: &Path) -> Result<UpdateFile, Error> {
    let file = UpdateFile::read(update)?;
    let config = read_model(model)?;
    file.check(&config).map_err(|what| Error::input(format!("{}: {what}", update.display())))?;
    Ok(file)
}

/// Fails unless the folder's note says that it holds this update, in the weights that lie there.
fn holds(model: &Path, update: Digest) -> Result<(), Error> {
    let path = model.join(NOTE);
    if !path.is_file() {
        return Err(Error::input(format!("{} has no {NOTE}, so its update is unknown", model.display()))
            .hint(Hint::ForceRevert));
    }
    let note = read_note(&path)?;
    if note.update != update {
        return Err(
            Error::input(format!("{} was edited with another update", model.display())).hint(Hint::ShowProvenance)
        );
    }
    if note.weights != digests(model)? {
        return Err(Error::input(format!("the weights in {} were changed since the update", model.display()))
            .hint(Hint::ForceRevert));
    }
    Ok(())
}
