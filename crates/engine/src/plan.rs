//! What a run would do, and why.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::environment;
use crate::event::{Event, Observer, hashing, warn};
use crate::keyed;
use crate::outputs::OVERWRITE;
use crate::unfinished::{Unfinished, unfinished};
use palinode_error::Error;
use palinode_fingerprint::{Change, Fingerprint, flatten};
use palinode_fingerprint::{Digest, FileRef, Key};
use palinode_pipeline::first_name;
use palinode_pipeline::{Instance, Pipeline};
use palinode_store::Artifact;
use palinode_store::{Manifest, Store};

/// How many earlier results of a stage kind are compared with, to find the nearest.
const NEAREST_OF: usize = 64;

/// What a run would do with each instance, in the order of [`Pipeline::instances`].
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// One entry for each instance.
    pub entries: Vec<PlanEntry>,
}

/// What a run would do with one instance.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanEntry {
    /// The instance.
    pub instance: String,
    /// What would happen to it.
    pub status: Status,
}

/// What would happen to an instance.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Its result is in the store.
    Cached {
        /// Its key.
        key: Key,
    },
    /// It will run.
    WillRun {
        /// Its key.
        key: Key,
        /// Why: at least one reason.
        reasons: Vec<Reason>,
    },
    /// It will be cached by the time it is reached: an earlier instance has the same key.
    SameAs {
        /// Its key.
        key: Key,
        /// The earlier instance.
        instance: String,
    },
    /// It runs if what these instances yield is new: its key is not known before; or they may turn out to do the very same;
    /// or its own result was lost and may be among what they make again.
    DependsOn {
        /// The instances.
        upstream: Vec<String>,
    },
}

/// Why a stage runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// No result of this stage kind is in the store.
    NeverRun,
    /// A run began it under the same key, and did not finish.
    Unfinished {
        /// The latest such run.
        run: String,
        /// Units of work that are kept: it goes on from there.
        units: usize,
    },
    /// Something differs from the nearest earlier result.
    Changed {
        /// The instance that the earlier result was computed for.
        since: String,
        /// What differs.
        change: Change,
    },
    /// The key does not cover this, but a file was published by it.
    Unkeyed {
        /// What differs.
        change: Change,
    },
    /// A file of its result is no longer there, or damaged.
    Lost {
        /// The file's logical name.
        file: String,
        /// What it held.
        digest: Digest,
    },
    /// A file that it published is no longer there.
    PublishedMissing {
        /// The file.
        path: String,
    },
    /// A file that it published was changed by someone else.
    PublishedChanged {
        /// The file.
        path: String,
    },
    /// It was asked for.
    Forced,
    /// Its record was made under an older key schema or was lost.
    Unrecorded,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRun => write!(f, "no earlier result in the store"),
            Self::Unfinished { units: 0, run } => write!(f, "begun by run {run} and not finished"),
            Self::Unfinished { units, run } => {
                let plural = if *units == 1 { "" } else { "s" };
                write!(f, "begun by run {run} and not finished: {units} unit{plural} of its work kept")
            }
            Self::Changed { change, .. } => change.fmt(f),
            Self::Unkeyed { change } => write!(f, "{change} (decides what is published)"),
            Self::Lost { file, .. } => write!(f, "its result `{file}` is no longer in the store"),
            Self::PublishedMissing { path } => write!(f, "published file {path} is missing"),
            Self::PublishedChanged { path } => write!(f, "published file {path} was changed"),
            Self::Forced => write!(f, "forced"),
            Self::Unrecorded => write!(f, "its record is no longer in the store"),
        }
    }
}

/// Plans a run. Reads external files for their digests where they are not remembered.
///
/// # Errors
/// When an external file cannot be read.
pub fn plan(pipeline: &Pipeline, store: &Store, observer: &dyn Observer) -> Result<Plan, Error> {
    let mut planner = Planner::new(pipeline, store, observer);
    let mut outputs: Vec<Option<Arc<Artifact>>> = Vec::new();
    let mut ahead = Ahead::new(planner.environment.clone());
    let mut entries = Vec::new();
    warn(pipeline, observer);
    for instance in &pipeline.instances {
        let waits_for: BTreeSet<usize> =
            instance.inputs.values().copied().filter(|&from| outputs[from].is_none()).collect();
        let (status, output) = if waits_for.is_empty() {
            let lookup = planner.look_up(instance, &|from| outputs[from].clone())?;
            match lookup.found {
                Ok(manifest) => (Status::Cached { key: manifest.key }, Some(Arc::new(manifest.output))),
                Err(reasons) => (ahead.status(instance, lookup.key, &lookup.fingerprint, reasons), None),
            }
        } else {
            ahead.wait(instance, &|from| outputs[from].clone());
            let upstream = waits_for.iter().map(|&from| pipeline.instances[from].name.clone()).collect();
            (Status::DependsOn { upstream }, None)
        };
        outputs.push(output);
        entries.push(PlanEntry { instance: instance.name.clone(), status });
    }
    for message in store.take_notes() {
        observer.event(&Event::warning(message));
    }
    store.flush();
    Ok(Plan { entries })
}

/// What the instances that were planned so far will do by the time the next is reached.
#[derive(Default)]
struct Ahead {
    /// What all keys cover besides.
    environment: BTreeMap<String, String>,
    /// Who computes a key.
    running: HashMap<Key, String>,
    /// Who brings back contents that were lost.
    lost: HashMap<Digest, String>,
    /// Those whose keys cannot be known, by all of the key that can: any of them may turn out to compute the next one's.
    waiting: HashMap<Key, Vec<(String, Fingerprint)>>,
}

impl Ahead {
    fn new(environment: BTreeMap<String, String>) -> Self {
        Self { environment, ..Self::default() }
    }

    /// An instance whose inputs are not all known.
    fn wait(&mut self, instance: &Instance, output: &dyn Fn(usize) -> Option<Arc<Artifact>>) {
        let mut known = self.known_of(instance);
        let parameters = known.key();
        let inputs = instance.inputs.iter();
        known.inputs = inputs.filter_map(|(port, &from)| Some((port.clone(), output(from)?.digest()))).collect();
        self.waiting.entry(parameters).or_default().push((instance.name.clone(), known));
    }

    /// What is known of an instance's fingerprint before its inputs and files are.
    fn known_of(&self, instance: &Instance) -> Fingerprint {
        keyed::fingerprint(instance.kind.as_ref(), &instance.params, &self.environment)
    }

    /// The status of an instance that has no usable result.
    fn status(&mut self, instance: &Instance, key: Key, fingerprint: &Fingerprint, reasons: Vec<Reason>) -> Status {
        if let Some(same) = self.running.get(&key) {
            return Status::SameAs { key, instance: same.clone() };
        }
        let alike = |(_, other): &&(String, Fingerprint)| {
            other.inputs.iter().all(|(port, digest)| fingerprint.inputs.get(port) == Some(digest))
        };
        let waiting = self.waiting.get(&self.known_of(instance).key()).into_iter().flatten();
        let upstream: Vec<String> = waiting.filter(alike).map(|(name, _)| name.clone()).collect();
        if !upstream.is_empty() {
            return Status::DependsOn { upstream };
        }
        // Two actions can yield the same contents; when those were lost, the first to run brings them back for both.
        let brought_back = |reason: &Reason| match reason {
            Reason::Lost { digest, .. } => self.lost.get(digest).cloned(),
            _ => None,
        };
        if let Some(mut upstream) = reasons.iter().map(brought_back).collect::<Option<Vec<_>>>() {
            upstream.dedup();
            return Status::DependsOn { upstream };
        }
        for reason in &reasons {
            if let Reason::Lost { digest, .. } = reason {
                self.lost.insert(*digest, instance.name.clone());
            }
        }
        self.running.insert(key, instance.name.clone());
        Status::WillRun { key, reasons }
    }
}

/// An instance whose inputs are known: its key, and its result or the reasons why there is none.
pub(crate) struct Lookup {
    pub key: Key,
    pub fingerprint: Fingerprint,
    pub unkeyed: BTreeMap<String, Value>,
    pub files: BTreeMap<String, FileRef>,
    pub found: Result<Manifest, Vec<Reason>>,
}

/// Looks up instances, for plans and for runs alike: that both ask the same question is what makes a plan true.
pub(crate) struct Planner<'a> {
    pipeline: &'a Pipeline,
    store: &'a Store,
    observer: &'a dyn Observer,
    /// What all keys cover besides.
    environment: BTreeMap<String, String>,
    /// The latest manifests of each stage kind.
    earlier: HashMap<&'static str, Vec<Manifest>>,
    /// What recent runs began and did not finish; looked up when it is first asked for.
    unfinished: Option<HashMap<Key, Unfinished>>,
}

impl<'a> Planner<'a> {
    pub fn new(pipeline: &'a Pipeline, store: &'a Store, observer: &'a dyn Observer) -> Self {
        Self {
            pipeline,
            store,
            observer,
            environment: environment::of(pipeline),
            earlier: HashMap::new(),
            unfinished: None,
        }
    }

    /// The key and the result of an instance, all of whose inputs have artifacts.
    pub fn look_up(
        &mut self,
        instance: &Instance,
        output: &dyn Fn(usize) -> Option<Arc<Artifact>>,
    ) -> Result<Lookup, Error> {
        let mut fingerprint = keyed::fingerprint(instance.kind.as_ref(), &instance.params, &self.environment);
        for (port, &from) in &instance.inputs {
            let artifact =
                output(from).ok_or_else(|| Error::internal(format!("input `{port}` has no artifact yet")))?;
            fingerprint.inputs.insert(port.clone(), artifact.digest());
        }
        let mut files = BTreeMap::new();
        for file in &instance.files {
            let found = self.store.see(&file.path, &hashing(self.observer))?;
            files.insert(file.name.clone(), found);
            fingerprint.files.insert(file.name.clone(), found.digest);
        }
        let mut unkeyed = BTreeMap::new();
        flatten("", &instance.params.value, &mut unkeyed);
        let renamed = instance.kind.info().renamed;
        unkeyed.retain(|name, _| !fingerprint.params.contains_key(first_name(name, renamed)));
        let key = fingerprint.key();
        let manifest = match self.store.manifest(&key)? {
            Some(manifest) => Some(manifest),
            None => self.alike(instance, &fingerprint),
        };
        let found = match manifest {
            Some(manifest) => {
                let reasons = self.faults(instance, &manifest, &unkeyed, &files)?;
                if reasons.is_empty() { Ok(manifest) } else { Err(reasons) }
            }
            None => Err(match self.unfinished(&key) {
                Some(Unfinished { run, units }) => vec![Reason::Unfinished { run, units }],
                None => self.reasons(instance, &fingerprint),
            }),
        };
        Ok(Lookup { key, fingerprint, unkeyed, files, found })
    }

    /// The latest result of an earlier version whose key differs in nothing but files that decided nothing.
    fn alike(&mut self, instance: &Instance, fingerprint: &Fingerprint) -> Option<Manifest> {
        let info = instance.kind.info();
        let alike = |manifest: &&Manifest| fingerprint.equals_without(&manifest.fingerprint, info.decides_nothing);
        self.earlier(info.name).iter().find(alike).cloned()
    }

    /// The latest manifests of a stage kind.
    fn earlier(&mut self, kind: &'static str) -> &[Manifest] {
        let store = self.store;
        self.earlier.entry(kind).or_insert_with(|| store.latest(kind, NEAREST_OF))
    }

    /// What a recent run left of this action.
    fn unfinished(&mut self, key: &Key) -> Option<Unfinished> {
        let store = self.store;
        self.unfinished.get_or_insert_with(|| unfinished(store)).get(key).cloned()
    }

    /// Why a result that was once there cannot be used.
    fn faults(
        &self,
        instance: &Instance,
        manifest: &Manifest,
        unkeyed: &BTreeMap<String, Value>,
        files: &BTreeMap<String, FileRef>,
    ) -> Result<Vec<Reason>, Error> {
        let mut reasons = Vec::new();
        let needed = |(name, _): &(&String, &FileRef)| !(instance.kind.info().decides_nothing)(name);
        for (name, file) in manifest.output.files.iter().filter(needed) {
            if !files.values().any(|known| known == file) && self.store.find(file)?.is_none() {
                reasons.push(Reason::Lost { file: name.clone(), digest: file.digest });
            }
        }
        for published in &manifest.output.published {
            let path = published.path.display().to_string();
            match self.store.digest_of(&self.pipeline.base.join(&published.path), &hashing(self.observer)) {
                Ok(found) if found == published.file => {}
                Ok(_) => reasons.push(Reason::PublishedChanged { path }),
                Err(_) => reasons.push(Reason::PublishedMissing { path }),
            }
        }
        if !manifest.output.published.is_empty() && manifest.unkeyed != *unkeyed {
            let names: BTreeSet<_> = manifest.unkeyed.keys().chain(unkeyed.keys()).collect();
            // What may be written over was written over, or need not be.
            for name in names.into_iter().filter(|name| *name != OVERWRITE) {
                let (old, new) = (manifest.unkeyed.get(name), unkeyed.get(name));
                if old != new {
                    let change = Change {
                        field: format!("with.{name}"),
                        old: old.map(Value::to_string),
                        new: new.map(Value::to_string),
                    };
                    reasons.push(Reason::Unkeyed { change });
                }
            }
        }
        Ok(reasons)
    }

    /// Why there is no result: what differs from the nearest earlier one.
    fn reasons(&mut self, instance: &Instance, fingerprint: &Fingerprint) -> Vec<Reason> {
        let pipeline = &self.pipeline.name;
        let nearest = self
            .earlier(instance.kind.info().name)
            .iter()
            .enumerate()
            .min_by_key(|(age, manifest)| {
                let elsewhere = manifest.pipeline != *pipeline || manifest.instance != instance.name;
                (elsewhere, fingerprint.distance(&manifest.fingerprint), *age)
            })
            .map(|(_, manifest)| (manifest, fingerprint.changes_from(&manifest.fingerprint)));
        match nearest {
            None => vec![Reason::NeverRun],
            Some((_, changes)) if changes.is_empty() => vec![Reason::Unrecorded],
            Some((manifest, changes)) => {
                changes.into_iter().map(|change| Reason::Changed { since: manifest.instance.clone(), change }).collect()
            }
        }
    }
}
