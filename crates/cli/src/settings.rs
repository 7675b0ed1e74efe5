//! The user's own settings: profiles of clusters.
//!
//! A profile runs shell of its own on the cluster. So it is read from the user's settings alone, or from a file that is named for one
//! command: nothing beside a pipeline, which may be someone else's, is looked for.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use palinode::{Error, ErrorKind, Profile, did_you_mean, read_yaml};
use serde_json::{Map, Value};

use crate::command_error::Failure;

/// The variable that names another file.
pub const VARIABLE: &str = "PALINODE_SETTINGS";

/// Where settings are.
pub fn path() -> Option<PathBuf> {
    if let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let folder = env::var_os("XDG_CONFIG_HOME").filter(|path| Path::new(path).is_absolute()).map(PathBuf::from);
    let folder = folder.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".config")));
    folder.map(|folder| folder.join("palinode/settings.yaml"))
}

/// A value without the fields that are left blank: what has no value is not given.
fn without_blank(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            kept.map(|(name, value)| (name.clone(), without_blank(value))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// The profile of this name. Without settings the default profile asks nothing, so that all is as the cluster has it by default.
pub fn profile(name: &str) -> Result<Profile, Failure> {
    let path = path().unwrap_or_default();
    let usage = |message: String| Error::new(ErrorKind::Usage, message);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && env::var_os(VARIABLE).is_none() => String::new(),
        Err(error) => return Err(Error::io(ErrorKind::Usage, "read", &path, error).into()),
    };
    let settings = if text.trim().is_empty() { Ok(Value::Object(Map::new())) } else { read_yaml(&text) };
    let settings = settings.map_err(|(message, line)| usage(message).at(&path, line))?;
    let wrong = |message: String| usage(message).at(&path, None);
    let Value::Object(settings) = settings else {
        return Err(wrong("settings are a map".to_owned()).hint("begin with `slurm:`").into());
    };
    if let Some(other) = settings.keys().find(|key| *key != "slurm") {
        let error = wrong(format!("there is no setting `{other}`"));
        return Err(error.hint(did_you_mean(other, ["slurm"]).unwrap_or_else(|| "there is `slurm`".to_owned())).into());
    }
    let profiles = match settings.get("slurm") {
        Some(Value::Object(profiles)) => profiles.clone(),
        None | Some(Value::Null) => Map::new(),
        Some(_) => return Err(wrong("`slurm` is a map of profiles by name".to_owned()).into()),
    };
    match profiles.get(name) {
        Some(profile) => {
            let read = serde_json::from_value(without_blank(profile));
            Ok(read.map_err(|error| wrong(format!("the profile `{name}`: {error}")))?)
        }
        None if name == "default" => Ok(Profile::default()),
        None => {
            let names = profiles.keys().map(String::as_str);
            let hint = did_you_mean(name, names).unwrap_or_else(|| {
                let names: Vec<&str> = profiles.keys().map(String::as_str).collect();
                if names.is_empty() {
                    "docs/cluster.md shows one".to_owned()
                } else {
                    format!("it has {}", names.join(", "))
                }
            });
            Err(usage(format!("{} has no profile `{name}`", path.display())).hint(hint).into())
        }
    }
}
