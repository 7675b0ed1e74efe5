//! One edit of many taken off again, and the ledgers of folders that updates are put onto and taken off.

mod again;
mod edits;
mod refused;
mod without;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use palinode_engine::{Digest, Error, Hint, Output, Overwrite, did_you_mean};
use palinode_math::Delta;
use palinode_model::save::ChangedType;
use palinode_model::{Layout, WeightId, is_gguf};

pub use self::edits::{EditLine, Edits, edits};
pub use self::without::How;

use self::again::Again;
use self::refused::named;
use self::without::entry_without;
use crate::artifacts::model::LEDGER_FILE;
use crate::sinks::export::folder::{Direction, Note, stored_names, write_weights};
use crate::sinks::export::ledger::{Entry, EntryFacts, Ledger, MadeBy, Recorded, beside};
use crate::sinks::export::rounding::{Rounding, back_to};
use crate::sinks::export::update_file::{UPDATE_FILE, UpdateFile, check};
use crate::sinks::model_folder::{
    Restored, base_is, begin, begin_new, companions, digests, read_model, rounded_in, shards,
};

/// What is to be taken off, and from what.
#[derive(Clone, Copy, Debug)]
pub struct TakeOff<'a> {
    /// An edited model's folder, or an update's file.
    pub place: &'a Path,
    /// Edits by number, by the request's name, or by subject.
    pub edits: &'a [String],
    /// The folder of the unedited model.
    pub base: Option<&'a Path>,
    /// The store that may have second moments.
    pub store: &'a Path,
    /// The folder to write.
    pub out: &'a Path,
    /// Even if a later edit of the same fact needs it, or weights were changed since.
    pub force: bool,
    /// Whether something else that is there may be written over.
    pub overwrite: Overwrite,
}

/// What was taken off.
#[derive(Clone, Debug, Default)]
pub struct TakenOff {
    /// The edits, in words.
    pub edits: Vec<String>,
    /// Edits that are left.
    pub left: usize,
    /// Updates that are left, which may know nothing of their edits. Without one, the model is the unedited one.
    pub updates: usize,
    /// How each update that had some of them was found without them.
    pub how: Vec<How>,
    /// What the weights are; `None` of an update by itself.
    pub weights: Option<Restored>,
    /// The most that rounding to the stored type took of what was added to a weight: ‖written − wanted‖ / ‖change‖.
    pub lost: f64,
    /// Why the result may be another than it says, where that was insisted on.
    pub unchecked: Option<String>,
    /// Later edits that were made on a model that had some of them, in words; they stand as they were made.
    pub later: Option<String>,
}

/// Takes edits off an edited model's folder or an update, and writes what is left into another folder.
///
/// # Errors
/// Of kind input: a folder without a ledger; an edit that is not in it, or a name that several have; what cannot be taken off by itself, with
/// what would have to run; weights that were changed since, or a later edit of the same fact, unless `force`; an `out` that is there and
/// was not written by this.
pub fn take_off(asked: &TakeOff<'_>) -> Result<TakenOff, Error> {
    let folder = asked.place.is_dir();
    let path = if folder { asked.place.join(LEDGER_FILE) } else { beside(asked.place) };
    if !path.is_file() {
        let message =
            format!("{} has no {LEDGER_FILE}: what taking one edit off needs was not kept", asked.place.display());
        return Err(Error::input(message).hint("export it again with `ledger: true`, or take the whole update off"));
    }
    let ledger = Ledger::read(&path)?;
    let ledger = if folder { ledger } else { alone(ledger, asked.place)? };
    if folder && ledger.weights.is_empty() {
        let message = format!("{} holds no model that edits could be taken off", asked.place.display());
        return Err(Error::input(message).hint(format!(
            "take it off {}, and apply what is left to the unedited model",
            asked.place.join(UPDATE_FILE).display()
        )));
    }
    let mut unchecked = None;
    if folder && ledger.weights != digests(asked.place)? {
        let what = format!("the weights in {} were changed since the update", asked.place.display());
        if !asked.force {
            return Err(Error::input(what).hint(Hint::ForceRevert));
        }
        // Weights that are taken from the unedited model are what they should be.
        unchecked = Some(what).filter(|_| asked.base.is_none());
    }
    let numbers = chosen(&ledger, asked.edits, asked.place)?;
    Ok(TakenOff { unchecked, ..rewritten(&ledger, (&numbers, None), asked)? })
}

/// Takes a whole update off a folder that has it in its ledger.
///
/// # Errors
/// As [`take_off`].
pub fn take_off_update(asked: &TakeOff<'_>, ledger: &Ledger, update: Digest) -> Result<TakenOff, Error> {
    let of = ledger.updates.iter().filter(|entry| entry.facts.update == update);
    let numbers = of.flat_map(|entry| entry.facts.edits.iter().map(|edit| edit.number)).collect();
    rewritten(ledger, (&numbers, Some(update)), asked)
}

/// The ledger of one update, of the ledger beside its file.
fn alone(ledger: Ledger, update: &Path) -> Result<Ledger, Error> {
    let digest = Digest::of(&UpdateFile::read(update)?.to_bytes()?);
    let Ledger { next, updates, .. } = ledger;
    let entry = updates
        .into_iter()
        .find(|entry| entry.facts.update == digest)
        .ok_or_else(|| Error::input(format!("the {LEDGER_FILE} beside {} is of another update", update.display())))?;
    let base = entry.facts.provenance.model_files.clone();
    Ok(Ledger { base, weights: BTreeMap::new(), next, updates: vec![entry] })
}

/// The numbers of the edits that are meant.
fn chosen(ledger: &Ledger, names: &[String], place: &Path) -> Result<BTreeSet<usize>, Error> {
    let mut found = BTreeSet::new();
    for name in names {
        let of = |fits: &dyn Fn(&Recorded) -> bool| -> Vec<&Recorded> {
            ledger.edits().filter(|(_, edit)| fits(edit)).map(|(_, edit)| edit).collect()
        };
        let mut these = of(&|edit| edit.number.to_string() == *name);
        if these.is_empty() {
            these = of(&|edit| edit.request.id == *name);
        }
        if these.is_empty() {
            these = of(&|edit| edit.is_known() && edit.request.subject.to_lowercase() == name.to_lowercase());
        }
        match these[..] {
            [edit] => found.insert(edit.number),
            [] => {
                let subjects = ledger.edits().map(|(_, edit)| edit.request.subject.as_str());
                let meant = did_you_mean(name, subjects.filter(|subject| !subject.is_empty()));
                let meant = meant.map_or_else(String::new, |meant| format!(": {meant}"));
                let count = ledger.edits().count();
                let message = format!("none of the {count} edits of {} is `{name}`{meant}", place.display());
                return Err(Error::input(message).hint(Hint::ListEdits { place: place.display().to_string().into() }));
            }
            _ => {
                return Err(Error::input(format!("`{name}` is {} edits: {}", these.len(), named(&these)))
                    .hint("name it by its number"));
            }
        };
    }
    Ok(found)
}

/// Writes what is left without some edits, and without an update as a whole, which may know nothing of its edits.
fn rewritten(
    ledger: &Ledger,
    (numbers, whole): (&BTreeSet<usize>, Option<Digest>),
    asked: &TakeOff<'_>,
) -> Result<TakenOff, Error> {
    let folder = asked.place.is_dir().then_some(asked.place);
    if let Some(base) = asked.base {
        base_is(base, &ledger.base).map_err(|error| match folder {
            Some(_) => error,
            None => error.hint("name the model that it was made for"),
        })?;
    }
    if let Some(model) = asked.base.or(folder) {
        let config = read_model(model)?;
        for entry in &ledger.updates {
            check(&entry.changes, &entry.facts.weights, &config).map_err(|what| {
                Error::input(format!("the {LEDGER_FILE} of {} does not fit its model: {what}", asked.place.display()))
            })?;
        }
    }
    let mut made = Ledger { updates: Vec::new(), weights: BTreeMap::new(), ..ledger.clone() };
    let (mut how, mut later) = (Vec::new(), None);
    for (at, entry) in ledger.updates.iter().enumerate() {
        let edits = entry.facts.edits.iter().enumerate();
        let gone: Vec<usize> = edits.filter(|(_, edit)| numbers.contains(&edit.number)).map(|(at, _)| at).collect();
        if gone.is_empty() && whole != Some(entry.facts.update) {
            made.updates.push(entry.clone());
            continue;
        }
        let upon: Vec<&Entry> = ledger.updates[at + 1..].iter().filter(|upper| is_on_top(ledger, upper)).collect();
        if !upon.is_empty() {
            let stays = |edit: &&Recorded| !numbers.contains(&edit.number);
            let upper: Vec<&Recorded> = upon.iter().flat_map(|upper| &upper.facts.edits).filter(stays).collect();
            for &place in &gone {
                let edit = &entry.facts.edits[place];
                if let Some(newer) = upper.iter().find(|newer| newer.same_fact(edit)).filter(|_| !asked.force) {
                    let message = format!(
                        "edit {} was superseded by {}, which was made on top of it",
                        edit.number,
                        named(&[newer])
                    );
                    return Err(Error::input(message).hint(format!(
                        "take edit {} off first, or both at once; what would have to run to keep it: its solve, on the model without edit {}",
                        newer.number, edit.number
                    )));
                }
            }
            later = (!upper.is_empty()).then(|| named(&upper));
        }
        let (rest, found) = entry_without(entry, &gone, &model_of(ledger, at, asked))?;
        how.push(found);
        made.updates.extend(rest);
    }
    let off: Vec<&Recorded> =
        ledger.edits().map(|(_, edit)| edit).filter(|edit| numbers.contains(&edit.number)).collect();
    let told = off.iter().map(|edit| told(edit)).collect();
    let (left, updates) = (made.edits().count(), made.updates.len());
    let mut lost = 0.0;
    let weights = if let Some(folder) = folder {
        let out = begin(asked.out, folder, "revert", asked.overwrite)?;
        let (restored, rounding) = write_folder(folder, ledger, made, asked.base, out)?;
        lost = rounding.most();
        Some(restored)
    } else {
        write_update(made, asked)?;
        None
    };
    Ok(TakenOff { edits: told, left, updates, how, weights, lost, unchecked: None, later })
}

/// An edit by number and name, with what it says.
fn told(edit: &Recorded) -> String {
    let said =
        edit.is_known().then(|| format!(": {} → {}", edit.request.filled_prompt(), edit.request.target_new.trim()));
    named(&[edit]) + &said.unwrap_or_default()
}

/// Whether an update was made on a model that had others of the ledger.
fn is_on_top(ledger: &Ledger, entry: &Entry) -> bool {
    entry.facts.provenance.model_files != ledger.base
}

/// The model that an update was made for: the unedited one, or that with what was put on before.
fn model_of<'a>(ledger: &Ledger, at: usize, asked: &TakeOff<'a>) -> Again<'a> {
    let before = if is_on_top(ledger, &ledger.updates[at]) { at } else { 0 };
    let mut parts: Vec<(&Entry, f64)> = ledger.updates[..before].iter().map(|entry| (entry, 1.0)).collect();
    let model = asked.base.or_else(|| asked.place.is_dir().then_some(asked.place));
    if asked.base.is_none() {
        parts = ledger.updates[before..].iter().map(|entry| (entry, -1.0)).collect();
    }
    Again { model, changes: total(parts), store: asked.store }
}

/// Changes of several updates as one of each weight. One by itself stays as it is, so that it adds the same bits wherever it is added.
fn total<'a>(parts: impl IntoIterator<Item = (&'a Entry, f64)>) -> Vec<(WeightId, Delta)> {
    let mut sums: BTreeMap<WeightId, Delta> = BTreeMap::new();
    for (entry, sign) in parts {
        for (weight, delta) in entry.rounded() {
            let sum = match sums.remove(&weight) {
                None if sign > 0.0 => delta,
                None => Delta::Dense(-delta.dense()),
                Some(sum) if sign > 0.0 => Delta::Dense(sum.dense() + delta.dense()),
                Some(sum) => Delta::Dense(sum.dense() - delta.dense()),
            };
            sums.insert(weight, sum);
        }
    }
    sums.into_iter().collect()
}

/// Writes a folder that has the updates of `made` in place of those of `old`. With the unedited model as `base`, its weights and all that
/// is left are added up anew; without, what differs is added to the weights that are there. Also gives what rounding did to it.
///
/// # Errors
/// Where a file cannot be read or written.
pub fn write_folder(
    model: &Path,
    old: &Ledger,
    mut made: Ledger,
    base: Option<&Path>,
    mut out: Output,
) -> Result<(Restored, Rounding), Error> {
    let from = base.unwrap_or(model);
    let layout = Layout::of(&read_model(from)?);
    let all = made.updates.iter().map(|entry| (entry, 1.0));
    let changes = if base.is_some() {
        total(all)
    } else {
        let stays = |entry: &&Entry| made.updates.iter().any(|other| other.facts.update == entry.facts.update);
        let is_new = |entry: &&Entry| !old.updates.iter().any(|other| other.facts.update == entry.facts.update);
        let off = old.updates.iter().filter(|entry| !stays(entry)).map(|entry| (entry, -1.0));
        let on = made.updates.iter().filter(is_new).map(|entry| (entry, 1.0));
        total(on.chain(off).collect::<Vec<_>>())
    };
    let mut rounding = Rounding::default();
    // A weight that was written in a wider type keeps it until no change of it is left.
    let before = if base.is_some() { Vec::new() } else { rounded_in(model)? };
    let left = made.updates.iter().flat_map(|entry| entry.changes.iter().map(|(weight, _)| *weight));
    let left = stored_names(&shards(from)?, &layout, left)?;
    let kind = |name: &str| if left.contains(name) { ChangedType::Auto } else { back_to(&before, name) };
    if changes.is_empty() {
        for (name, path) in shards(from)? {
            out.copy(&name, &path)?;
            let file = palinode_engine::FileRef::of_file(&path)
                .map_err(|error| Error::io(palinode_engine::ErrorKind::Input, "read", &path, error))?;
            made.weights.insert(name, file.digest);
        }
    } else {
        made.weights = write_weights(&shards(from)?, &layout, &changes, Direction::On, &kind, &mut out, |done| {
            rounding.add(done);
            Ok(())
        })?;
    }
    companions(model, &mut out)?;
    let restored = match base {
        Some(_) => Restored::FromBase,
        None if made.updates.is_empty() && made.weights == made.base => Restored::Exactly,
        None => Restored::WithinRounding,
    };
    let Some(last) = made.updates.last() else {
        out.finish_unmarked()?;
        return Ok((restored, rounding));
    };
    let file = last.file();
    if made.updates.len() == 1 {
        out.write(UPDATE_FILE, &file.to_bytes()?)?;
    }
    let note = Note {
        update: last.facts.update,
        weights: made.weights.clone(),
        rounding: rounding.weights(&before).into_iter().filter(|weight| left.contains(&weight.tensor)).collect(),
        provenance: file.provenance,
    };
    out.write(LEDGER_FILE, &made.to_bytes()?)?;
    out.finish(note.about()?)?;
    Ok((restored, rounding))
}

/// Writes an update by itself, with its ledger.
fn write_update(made: Ledger, asked: &TakeOff<'_>) -> Result<(), Error> {
    let Some(entry) = made.updates.first() else {
        return Err(Error::input("nothing would be left of the update")
            .hint("there is nothing to apply then: use the unedited model"));
    };
    let mut out = begin_new(asked.out, "revert", asked.overwrite)?;
    let file = entry.file();
    let bytes = file.to_bytes()?;
    out.write(UPDATE_FILE, &bytes)?;
    out.write(LEDGER_FILE, &made.to_bytes()?)?;
    let note = Note {
        update: Digest::of(&bytes),
        weights: BTreeMap::new(),
        rounding: Vec::new(),
        provenance: file.provenance,
    };
    out.finish(note.about()?).map(drop)
}

/// An update as an entry of a ledger: with what lies beside its file, or with what it says by itself.
///
/// # Errors
/// Where a ledger beside it cannot be read.
pub fn entry_of(path: &Path, file: &UpdateFile) -> Result<(Entry, bool), Error> {
    let update = Digest::of(&file.to_bytes()?);
    let there = beside(path);
    if there.is_file()
        && let Some(entry) = Ledger::read(&there)?.updates.into_iter().find(|entry| entry.facts.update == update)
    {
        return Ok((entry, true));
    }
    let names: Vec<String> = serde_json::from_value(file.provenance.requests.clone()).unwrap_or_default();
    let edit = |id: String| Recorded {
        number: 0,
        request: palinode_data::EditRequest { id, ..palinode_data::EditRequest::default() },
        round: None,
    };
    let facts = EntryFacts {
        update,
        made_by: MadeBy::default(),
        provenance: file.provenance.clone(),
        weights: file.names().to_vec(),
        batch: None,
        edits: names.into_iter().map(edit).collect(),
        rounds: Vec::new(),
        columns: None,
        from: None,
    };
    Ok((Entry { facts, changes: file.updates.clone(), solved: None }, false))
}

/// Puts an update on top of a ledger. What it says of facts that others said before supersedes them: where it was made without knowing of
/// them, they come off first. Gives those, in words.
///
/// # Errors
/// Of kind input, where it is on already, or one of them cannot be taken off by itself.
pub fn put_on(ledger: &Ledger, entry: Entry) -> Result<(Ledger, Vec<String>), Error> {
    if ledger.updates.iter().any(|other| other.facts.update == entry.facts.update) {
        return Err(
            Error::input("the model has this update already").hint("to apply it alone, name the unedited model")
        );
    }
    let mut made = Ledger { updates: Vec::new(), ..ledger.clone() };
    let mut superseded = Vec::new();
    for (at, earlier) in ledger.updates.iter().enumerate() {
        let same = |edit: &Recorded| entry.facts.edits.iter().any(|newer| newer.same_fact(edit));
        let places = earlier.facts.edits.iter().enumerate().filter(|(_, edit)| same(edit)).map(|(at, _)| at);
        let gone: Vec<usize> = if is_on_top(ledger, &entry) { Vec::new() } else { places.collect() };
        if gone.is_empty() {
            made.updates.push(earlier.clone());
            continue;
        }
        let upon = ledger.updates[at + 1..].iter().any(|upper| is_on_top(ledger, upper));
        let again = Again { model: None, changes: Vec::new(), store: Path::new("") };
        superseded.extend(gone.iter().map(|&at| told(&earlier.facts.edits[at])));
        if upon {
            let those: Vec<&Recorded> = gone.iter().map(|&at| &earlier.facts.edits[at]).collect();
            let (say, had) = if gone.len() == 1 { ("says", "it") } else { ("say", "them") };
            let message =
                format!("{} {say} the same, and later updates were made on the model that had {had}", named(&those));
            return Err(
                Error::input(message).hint("make this update on that model instead: it then supersedes what is there")
            );
        }
        let rest = entry_without(earlier, &gone, &again).map_err(|error| match error.hint {
            // Nothing is measured here, which taking it off first can do.
            Some(Hint::NameBase { .. }) => {
                error.hint("this update supersedes it: take it off first, and put this update onto what is left")
            }
            _ => error,
        })?;
        made.updates.extend(rest.0);
    }
    made.put(entry);
    Ok((made, superseded))
}

/// The ledger of a model's folder, or a new one; `None` where there is one of other weights.
///
/// # Errors
/// Where it cannot be read.
pub fn ledger_of(model: &Path, weights: &BTreeMap<String, Digest>) -> Result<Option<Ledger>, Error> {
    let path = model.join(LEDGER_FILE);
    if is_gguf(model) || !path.is_file() {
        return Ok(Some(Ledger::new(weights.clone())));
    }
    Ok(Some(Ledger::read(&path)?).filter(|ledger| ledger.weights == *weights))
}
