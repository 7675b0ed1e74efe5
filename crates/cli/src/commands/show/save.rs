//! The files of results, copied out of the store.

use std::fs;
use std::path::Path;

use palinode::{Error, ErrorKind, RunRecord, Runs, inside};

use crate::command_error::Failure;
use crate::results::from_here;
use crate::terminal::{format, print};

/// Copies the files of the results of these instances to `folder`. What is there already is left alone, and must be the same.
pub fn save(runs: &Runs, run: &RunRecord, instances: &[String], folder: &Path) -> Result<(), Failure> {
    let mut text = String::new();
    for instance in instances {
        let Some(manifest) = run.stage(instance).and_then(|stage| runs.manifest(&stage.key?)) else { continue };
        let into = if instances.len() > 1 { folder.join(plain(instance)) } else { folder.to_owned() };
        for (name, file) in &manifest.output.files {
            let from = runs.blob_path(&file.digest);
            if !from.exists() {
                // A model's own files are used where they lie.
                text.push_str(&format!("{name} of {instance} lies outside the store, and is not copied\n"));
                continue;
            }
            let to = inside(&into, name)?;
            copy(&from, &to)?;
            text.push_str(&format!("{}  {}\n", from_here(&to).display(), format::size(file.size)));
        }
    }
    if text.is_empty() {
        let message = format!("`{}` has no files in run {}", instances.join("`, `"), run.run);
        return Err(Error::new(ErrorKind::Usage, message).into());
    }
    print(&text)
}

/// The name of an instance as the name of a folder.
fn plain(instance: &str) -> String {
    instance.chars().map(|c| if c.is_alphanumeric() || "-_.=,[]+".contains(c) { c } else { '_' }).collect()
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let failed = |error| Error::io(ErrorKind::Usage, "write", to, error);
    if to.exists() {
        let same = fs::read(from).map_err(failed)? == fs::read(to).map_err(failed)?;
        let other = || {
            let message = format!("{} is there, and is something else", to.display());
            Error::new(ErrorKind::Usage, message).hint("name another folder")
        };
        return if same { Ok(()) } else { Err(other()) };
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::copy(from, to).map(|_| ()).map_err(failed)
}
