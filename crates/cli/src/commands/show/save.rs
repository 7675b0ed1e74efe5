//! The files of results, copied out of the store.

use std::collections::BTreeMap;
use std::path::Path;

use palinode::{Error, ErrorKind, Maker, Output, Overwrite, RunRecord, Runs};
use serde_json::{Map, json};

use crate::command_error::Failure;
use crate::results::from_here;
use crate::terminal::{format, print};

/// Copies the files of the results of these instances to `folder`, which must be new, or written by this and not changed since.
pub fn save(
    runs: &Runs,
    run: &RunRecord,
    instances: &[String],
    folder: &Path,
    overwrite: Overwrite,
) -> Result<(), Failure> {
    let mut text = String::new();
    let mut files = Vec::new();
    for instance in instances {
        let Some(manifest) = run.stage(instance).and_then(|stage| runs.manifest(&stage.key?)) else { continue };
        for (name, file) in &manifest.output.files {
            let from = runs.blob_path(&file.digest);
            if !from.exists() {
                // A model's own files are used where they lie.
                text.push_str(&format!("{name} of {instance} lies outside the store, and is not copied\n"));
                continue;
            }
            let name = if instances.len() > 1 { format!("{}/{name}", plain(instance)) } else { name.clone() };
            files.push((name, from, file.size));
        }
    }
    if text.is_empty() && files.is_empty() {
        let message = format!("`{}` has no files in run {}", instances.join("`, `"), run.run);
        return Err(Error::new(ErrorKind::Usage, message).into());
    }
    if !files.is_empty() {
        let stage = instances.first().and_then(|instance| run.stage(instance)).map(|stage| stage.stage.as_str());
        let command = format!("palinode show {}", stage.unwrap_or_default());
        let maker = Maker::of(runs.store(), folder, &run.pipeline, &command);
        let mut output = Output::begin(folder, maker, BTreeMap::new(), overwrite)?;
        for (name, from, size) in &files {
            output.copy(name, from)?;
            text.push_str(&format!("{}  {}\n", from_here(&folder.join(name)).display(), format::size(*size)));
        }
        output.finish(Map::from_iter([("run".to_owned(), json!(run.run))]))?;
    }
    print(&text)
}

/// The name of an instance as the name of a folder.
fn plain(instance: &str) -> String {
    instance.chars().map(|c| if c.is_alphanumeric() || "-_.=,[]+".contains(c) { c } else { '_' }).collect()
}
