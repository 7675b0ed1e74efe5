//! What a running stage can reach.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::action::Action;
use crate::event::{Event, Observer, hashing};
use crate::given::Given;
use crate::outputs::written;
use crate::progress::Progress;
use crate::share::{Share, Shared};
use crate::shared::SharedPool;
use crate::unit::Units;
use crate::watch::{Watch, planned};
use palinode_error::Error;
use palinode_fingerprint::Encoder;
use palinode_fingerprint::{FileRef, Key};
use palinode_pipeline::{Accept, PortOf};
use palinode_store::{Artifact, MARKER, Maker, Manifest, Output, Overwrite, Published, Store};

/// External files of a stage by logical name: contents and where they lie.
pub type ExternalFiles = BTreeMap<String, (FileRef, PathBuf)>;

/// What a stage gets from the run as a whole; cheap to clone.
#[derive(Clone)]
pub struct RunContext {
    /// Where results go.
    pub store: Arc<Store>,
    /// The pipeline's folder.
    pub base: PathBuf,
    /// The device asked for; recorded, not part of any key.
    pub device: String,
    /// See [`crate::RunOptions::settings`].
    pub settings: BTreeMap<String, String>,
    /// Who hears of progress.
    pub observer: Arc<dyn Observer>,
    /// Set when the user asks to stop.
    pub interrupt: Arc<AtomicBool>,
    /// Resources kept between stages.
    pub pool: Arc<SharedPool>,
}

/// What a running stage can reach: its inputs, its files, the store, and the means to report and to stop.
pub struct StageContext {
    pub(crate) run: RunContext,
    pub(crate) action: Arc<Action>,
    /// Set when this stage alone is to stop.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) units: Units,
    pub(crate) watch: Watch,
    pub(crate) shared: Shared,
    pub(crate) endings: Endings,
}

/// What is said when a stage ends, by name.
pub(crate) type Endings = Mutex<BTreeMap<String, Box<dyn FnOnce() -> Option<String> + Send>>>;

impl StageContext {
    /// The name of the stage instance, such as `solve[objective=rome]`.
    pub fn instance(&self) -> &str {
        &self.action.instance
    }

    /// The pipeline's name, what it was read from, and the run's ID: for records, since no result may depend on them.
    pub fn made_in(&self) -> [&str; 3] {
        [&self.action.pipeline, &self.action.source, &self.action.run]
    }

    /// The artifact at a required port.
    ///
    /// # Errors
    /// When nothing is connected: the port was not declared as required; when its facts are not those of its kind.
    pub fn input<A: Accept>(&self, port: PortOf<A>) -> Result<Given<'_, A>, Error> {
        self.input_opt(port)?.ok_or_else(|| Error::internal(format!("nothing is connected to port `{}`", port.name)))
    }

    /// The artifact at a port, if one is connected.
    ///
    /// # Errors
    /// When its facts are not those of its kind.
    pub fn input_opt<A: Accept>(&self, port: PortOf<A>) -> Result<Option<Given<'_, A>>, Error> {
        self.action.inputs.get(port.name).map(Given::read).transpose()
    }

    /// The external files of this stage by logical name.
    pub fn files(&self) -> &ExternalFiles {
        &self.action.files
    }

    /// The contents and place of one external file of this stage.
    ///
    /// # Errors
    /// When the stage did not declare it.
    pub fn file(&self, name: &str) -> Result<&(FileRef, PathBuf), Error> {
        self.action.files.get(name).ok_or_else(|| Error::internal(format!("file `{name}` was not declared")))
    }

    /// Where contents lie now: in the store, or where they were last seen outside. What lies outside has to stay as it is until this stage
    /// is done.
    ///
    /// # Errors
    /// When they are neither in the store nor unchanged where they were last seen.
    pub fn path(&self, file: &FileRef) -> Result<PathBuf, Error> {
        let store = &self.run.store;
        let external = self.action.files.values().find(|(known, _)| known == file);
        let path = match external {
            Some((_, path)) => path.clone(),
            None => match store.find(file)? {
                Some(path) => path,
                None => {
                    return Err(match store.last_seen(file) {
                        Some(path) if path.exists() => planned(&path),
                        _ => Error::input(format!("the contents {} are not in the store", file.digest.short())).hint(
                            "an external file may have moved or changed; run again to compute what depends on it",
                        ),
                    });
                }
            },
        };
        if !path.starts_with(store.root()) {
            self.watch.ask(store, &path, *file)?;
        }
        Ok(path)
    }

    /// Fails when a file that this stage reads changed since it began. The engine looks before it keeps a result or a unit; a stage that
    /// writes outside the store has to look before it puts anything into its place.
    ///
    /// # Errors
    /// When a file changed.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        self.watch.change(&self.run.store).map_or(Ok(()), |change| Err(change.error(&self.action.instance)))
    }

    /// Reads contents into memory; meant for small files.
    ///
    /// # Errors
    /// As [`StageContext::path`], or when the file cannot be read.
    pub fn read(&self, file: &FileRef) -> Result<Vec<u8>, Error> {
        let path = self.path(file)?;
        std::fs::read(&path).map_err(|error| Error::io(palinode_error::ErrorKind::Store, "read", &path, error))
    }

    /// Puts bytes into the store.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<FileRef, Error> {
        self.run.store.put_bytes(bytes)
    }

    /// Puts into the store what `write` writes.
    ///
    /// # Errors
    /// When `write` fails or the store cannot be written.
    pub fn put_with(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<FileRef, Error> {
        self.run.store.put_with(write)
    }

    /// Puts a copy of a file into the store.
    ///
    /// # Errors
    /// When the file cannot be read or the store cannot be written.
    pub fn put_file(&self, path: &Path) -> Result<FileRef, Error> {
        self.run.store.put_file(path)
    }

    /// Records a file that the stage wrote outside the store. Its contents need not be in the store. Folders are written with
    /// [`StageContext::output`].
    ///
    /// # Errors
    /// When the file cannot be read back.
    pub fn publish(&self, path: &Path) -> Result<Published, Error> {
        let full = self.run.base.join(path);
        let file = self.run.store.digest_of(&full, &hashing(self.run.observer.as_ref()))?;
        Ok(Published { path: path.to_owned(), file })
    }

    /// Begins to write a folder outside the store, which `path` names as the parameters do.
    ///
    /// # Errors
    /// When there is a folder that this stage did not write, or that was changed since, unless `overwrite` says that it may be written over.
    pub fn output(&self, path: &Path, overwrite: bool) -> Result<Output, Error> {
        let (run, action) = (&self.run, &self.action);
        let place = run.base.join(path);
        let own = |manifest: &Manifest| manifest.pipeline == action.pipeline && manifest.instance == action.instance;
        let known = written(&run.store, &action.fingerprint.stage, &run.base, &place, own);
        let maker = Maker::of(run.store.root(), &place, &action.pipeline, &action.instance);
        Output::begin(&place, maker, known, Overwrite::if_wanted(overwrite))
    }

    /// Puts a folder into its place, once it is sure that no file changed that it was made from. `about` is what its marker says besides. The marker is
    /// the last of what was written.
    ///
    /// # Errors
    /// As [`StageContext::check_unchanged`], or when it cannot be written.
    pub fn finish(&self, output: Output, path: &Path, about: Map<String, Value>) -> Result<Vec<Published>, Error> {
        self.check_unchanged()?;
        let mut files: Vec<_> = output.finish(about)?.into_iter().collect();
        files.sort_by_key(|(name, _)| name == MARKER);
        Ok(files.into_iter().map(|(name, file)| Published { path: path.join(name), file }).collect())
    }

    /// The pipeline's folder; relative paths in parameters start here.
    pub fn base_dir(&self) -> &Path {
        &self.run.base
    }

    /// A setting of the run that changes no bit of a result.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.run.settings.get(name).map(String::as_str)
    }

    /// The device asked for; recorded, not part of any key.
    pub fn device(&self) -> &str {
        &self.run.device
    }

    /// Starts counting units of `what`, such as "documents"; ends when the value is dropped.
    pub fn progress(&self, what: &str, total: Option<u64>) -> Progress {
        Progress::start(Arc::clone(&self.run.observer), &self.action.instance, what, total)
    }

    /// Tells a point of a curve for those who watch: `value` of `what`, such as a loss, at `at` of what `step` names. What is no
    /// number is not told. No part of the result.
    pub fn measured(&self, what: &str, (step, at): (&str, usize), value: f64) {
        if value.is_finite() {
            let (instance, what, step) = (self.action.instance.clone(), what.to_owned(), step.to_owned());
            self.run.observer.event(&Event::Measured { instance, what, step, at: at as u64, value });
        }
    }

    /// Tells the reader something that is true of this run and no part of the result, such as how long later stages will take.
    pub fn say(&self, line: impl Into<String>) {
        self.run.observer.event(&Event::Said { instance: self.action.instance.clone(), line: line.into() });
    }

    /// Tells the reader what `line` gives when the stage has ended, however it ended: such as what it took. Of several of one name, the
    /// first is told. No part of the result.
    pub fn say_at_end(&self, name: &str, line: impl FnOnce() -> Option<String> + Send + 'static) {
        let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        endings.entry(name.to_owned()).or_insert_with(|| Box::new(line));
    }

    /// Tells what was to be told at the end.
    pub(crate) fn say_endings(&self) {
        let endings = std::mem::take(&mut *self.endings.lock().unwrap_or_else(PoisonError::into_inner));
        endings.into_values().filter_map(|line| line()).for_each(|line| self.say(line));
    }

    /// Tells the reader something that stops nothing.
    pub fn warn(&self, message: impl Into<String>) {
        let instance = Some(self.action.instance.clone());
        self.run.observer.event(&Event::Warning { instance, message: message.into() });
    }

    /// Fails when the stage is to stop: the user asked, or its time is up. Call it between units, after the finished one was
    /// put.
    ///
    /// # Errors
    /// When the stage is to stop.
    pub fn check_interrupt(&self) -> Result<(), Error> {
        let wanted = [&self.run.interrupt, &self.stop].iter().any(|flag| flag.load(Ordering::Relaxed));
        if wanted { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// The share of the work that is to be done, where it is not all of it.
    pub fn share(&self) -> Option<Share> {
        self.shared.share()
    }

    /// Whether the next part of the work is to be done here. Ask once for each part, in their order.
    pub fn is_mine(&self) -> bool {
        self.shared.next()
    }

    /// What a stage answers once its share is kept. Nobody sees it.
    pub fn end_of_share(&self) -> Artifact {
        Artifact::new("share", Value::Null)
    }

    /// Whether a unit is there, which [`StageContext::get_unit`] may still find damaged.
    pub fn has_unit(&self, key: &Key) -> bool {
        self.units.may_use(key) && self.run.store.has_unit(key)
    }

    /// Lets go of a unit that another one now holds, so that it takes up no more room.
    pub fn drop_unit(&self, key: &Key) {
        self.run.store.drop_unit(key);
    }

    /// Whether equal keys must mean equal bits (`numerics: strict`). Then the key of a unit covers what can change its last digits.
    pub fn strict(&self) -> bool {
        // The build and the device are part of strict keys and of no others.
        !self.action.fingerprint.environment.is_empty()
    }

    /// The key of a unit of work. It covers the stage kind, its version, under strict numerics the device
    /// and the build, and `parts`, nothing else: put in `parts` all that
    /// can change the unit, and leave out what cannot, such as the number of units, so that a grown stage finds them again.
    pub fn unit_key(&self, parts: &impl Serialize) -> Key {
        self.unit_key_since(self.action.fingerprint.version, parts)
    }

    /// As [`StageContext::unit_key`], for units that are the same since an earlier version of the stage: those that it kept are found.
    pub fn unit_key_since(&self, version: u32, parts: &impl Serialize) -> Key {
        let parts =
            serde_json::to_value(parts).unwrap_or_else(|error| panic!("unit key parts do not serialise: {error}"));
        let mut encoder = Encoder::new("palinode.unit");
        let fingerprint = &self.action.fingerprint;
        encoder.str(&fingerprint.stage).uint(version.into()).value(&parts);
        for (name, value) in &fingerprint.environment {
            encoder.str(name).str(value);
        }
        Key(encoder.finish())
    }

    /// The result of a unit, if it was put before, in this run or an earlier one. A damaged one is not there. A stage that
    /// is forced to run has only those that it put itself.
    pub fn get_unit(&self, key: &Key) -> Option<Vec<u8>> {
        let kept = if self.units.may_use(key) { self.run.store.get_unit(key) } else { None };
        if kept.is_none() {
            self.units.begin(key);
        }
        kept
    }

    /// Keeps the result of a unit; when this returns it survives a kill.
    ///
    /// # Errors
    /// When the store cannot be written, or a file that this stage reads changed: the unit would be found under a key that it is not of.
    pub fn put_unit(&self, key: &Key, bytes: &[u8]) -> Result<(), Error> {
        self.check_unchanged()?;
        self.run.store.put_unit(key, bytes)?;
        let seconds = self.units.end(key);
        self.run.observer.event(&Event::UnitDone { instance: self.action.instance.clone(), unit: *key, seconds });
        Ok(())
    }

    /// A resource kept in memory between the stages of a run, made when it is not there; the pool holds a few. The files that `make` asks
    /// [`StageContext::path`] for are those that it is made from: once one of them changes, it is made again.
    ///
    /// # Errors
    /// What `make` gives.
    pub fn shared<T: Any + Send + Sync>(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<T, Error>,
    ) -> Result<Arc<T>, Error> {
        let (resource, sources) = self.run.pool.get(key, || {
            let mark = self.watch.mark();
            let made = make()?;
            Ok((made, self.watch.since(mark)))
        })?;
        self.watch.adopt(&sources);
        Ok(resource)
    }
}
