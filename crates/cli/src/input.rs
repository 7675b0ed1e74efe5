//! Arguments that several commands share.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use clap::Args;
use palinode::{
    Checked, Download, Error, Holder, LoadError, Network, Part, Pipeline, Rebuilt, Recipe, Runs, Selection, Store,
    did_you_mean,
};

use crate::command_error::Failure;
use crate::terminal::{Downloads, How, complain};

/// Which pipeline.
#[derive(Args)]
pub struct PipelineArgs {
    /// The pipeline file. Relative paths in it start at its folder.
    #[arg(value_name = "PIPELINE")]
    pub path: PathBuf,

    /// Set a value of the file for this command, such as vars.layers=[5] or stages.solve.with.lambda=15000.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
}

impl PipelineArgs {
    /// Reads and checks it, for the device that is chosen when none is named.
    pub fn load(&self) -> Result<Pipeline, Failure> {
        self.load_for("auto")
    }

    /// Reads and checks it, for this device. Fetches nothing.
    pub fn load_for(&self, device: &str) -> Result<Pipeline, Failure> {
        let hardware = palinode::hardware(device)?;
        let mut pipeline = self.check()?.complete()?;
        pipeline.compute_on(hardware);
        Ok(pipeline)
    }

    /// Reads and checks it, for this device; what it lacks of the Hub is fetched.
    pub fn ready_for(&self, device: &str, network: &mut Network<'_>) -> Result<Pipeline, Failure> {
        let hardware = palinode::hardware(device)?;
        let mut pipeline = self.recipe()?.ready(network)?;
        pipeline.compute_on(hardware);
        Ok(pipeline)
    }

    /// Reads and checks one that may be meant for another place; with the files that are not here.
    pub fn check(&self) -> Result<Checked, Failure> {
        Ok(self.recipe()?.check()?)
    }

    /// Checks one that other pipelines include.
    pub fn check_part(&self) -> Result<Part, Failure> {
        Recipe::check_part(&self.path).map_err(|error| match error {
            LoadError::Error(error) => self.suggest(error).into(),
            mistakes @ LoadError::Mistakes(_) => mistakes.into(),
        })
    }

    fn recipe(&self) -> Result<Recipe, Failure> {
        Ok(Recipe::file(&self.path, &self.set).map_err(|error| self.suggest(error))?)
    }

    /// A file that is not there is most often a slip of the finger.
    fn suggest(&self, error: Error) -> Error {
        let folder = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let entries = std::fs::read_dir(folder.unwrap_or(Path::new(".")));
        let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        let files = paths.filter(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml"));
        let names: Vec<String> = files
            .filter_map(|path| Some(folder.unwrap_or(Path::new("")).join(path.file_name()?).display().to_string()))
            .collect();
        let wanted = self.path.display().to_string();
        match did_you_mean(&wanted, names.iter().map(String::as_str)) {
            Some(hint) if !self.path.exists() => error.hint(hint),
            _ => error,
        }
    }
}

/// A whole number, which is not negative.
pub fn whole<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "expected a whole number, 0 or more".to_owned())
}

/// Whether to download.
#[derive(Args, Clone, Default)]
pub struct NetworkArgs {
    /// Download nothing: models and data sets of the Hugging Face Hub have to be in its cache already. HF_HUB_OFFLINE=1 has
    /// the same effect.
    #[arg(long)]
    offline: bool,
}

impl NetworkArgs {
    /// Does what may need the network.
    pub fn with<T>(&self, how: How, interrupt: &Arc<AtomicBool>, act: impl FnOnce(&mut Network<'_>) -> T) -> T {
        if self.offline {
            return act(&mut Network::Offline);
        }
        let mut downloads = Downloads::new(how, interrupt);
        act(&mut Network::Online(&mut |download: Download<'_>| downloads.show(download)))
    }
}

/// Which store.
#[derive(Args)]
pub struct StoreArgs {
    /// The folder of the store, which holds the results.
    #[arg(long, value_name = "DIR", env = "PALINODE_STORE", hide_env_values = true, default_value = ".palinode")]
    pub store: PathBuf,
}

/// Whether to wait for a store that another process has open.
#[derive(Args, Default)]
pub struct WaitArgs {
    /// While another process has the store open, wait for it.
    #[arg(long)]
    wait: bool,
}

impl WaitArgs {
    /// Opens the store, making it when it is not there.
    pub fn open(&self, store: &StoreArgs) -> Result<Store, Failure> {
        if self.wait { Ok(Store::open_when_free(&store.store, &mut waits)?) } else { store.open() }
    }

    /// As [`WaitArgs::open`], where there has to be a store already.
    pub fn open_existing(&self, store: &StoreArgs) -> Result<Store, Failure> {
        store.exists()?;
        self.open(store)
    }

    /// Opens a store that has to be there already with a new index.
    pub fn rebuild(&self, store: &StoreArgs) -> Result<(Store, Rebuilt), Failure> {
        store.exists()?;
        let mut waits = waits;
        Ok(Store::rebuild(&store.store, self.wait.then_some(&mut waits))?)
    }
}

/// Reads a pipeline and opens the store for it, one while the other goes on. A store that is not there yet is not made for a
/// pipeline with mistakes, and no pipeline with mistakes makes a command wait for the store.
pub fn load_beside(
    load: impl FnOnce() -> Result<Pipeline, Failure>,
    store: &StoreArgs,
    wait: &WaitArgs,
) -> Result<(Pipeline, Store), Failure> {
    if wait.wait || store.exists().is_err() {
        let pipeline = load()?;
        return Ok((pipeline, wait.open(store)?));
    }
    thread::scope(|scope| {
        let opening = thread::Builder::new().spawn_scoped(scope, || Store::open(&store.store));
        let pipeline = load();
        let store = match opening {
            Ok(opening) => opening.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => Store::open(&store.store),
        };
        Ok((pipeline?, store?))
    })
}

/// As [`load_beside`], for those who only look: a store that another process has open, or that this user may not write to, will do.
pub fn load_to_look(
    load: impl FnOnce() -> Result<Pipeline, Failure>,
    store: &StoreArgs,
) -> Result<(Pipeline, Store), Failure> {
    if store.exists().is_err() {
        let pipeline = load()?;
        return Ok((pipeline, store.open()?));
    }
    thread::scope(|scope| {
        let opening = thread::Builder::new().spawn_scoped(scope, || Store::open_or_look(&store.store));
        let pipeline = load();
        let opened = match opening {
            Ok(opening) => opening.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => Store::open_or_look(&store.store),
        };
        Ok((pipeline?, looked_at(opened?)))
    })
}

/// The store, once it is said why it is only looked at.
fn looked_at((store, why): (Store, Option<Error>)) -> Store {
    if let Some(why) = why {
        complain(&format!("note: {why}; what follows is how it is at this moment\n"));
    }
    store
}

fn waits(holder: Option<&Holder>) {
    let who = holder.map_or("another process".to_owned(), ToString::to_string);
    complain(&format!("waiting for {who}, which has the store open\n"));
}

impl StoreArgs {
    /// Opens it, making it when it is not there.
    pub fn open(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.store)?)
    }

    /// Opens it, or looks at it where another process has it open or this user may not write to it.
    pub fn open_or_look(&self) -> Result<Store, Failure> {
        Ok(looked_at(Store::open_or_look(&self.store)?))
    }

    /// Its runs, for looking at only: works while another process has the store open.
    pub fn runs(&self) -> Result<Runs, Failure> {
        // Where there is no store there are no runs, and those who look for one say so.
        Store::is_at(&self.store)?;
        Ok(Runs::of(&self.store))
    }

    /// Its files, where it has to be there already, for looking at only: works while another process has it open.
    pub fn look(&self) -> Result<Store, Failure> {
        self.exists()?;
        Ok(Store::look(&self.store)?)
    }

    /// As [`StoreArgs::look`], for those who read results: none is removed meanwhile.
    pub fn share(&self) -> Result<Store, Failure> {
        self.exists()?;
        Ok(Store::bare(&self.store)?)
    }

    fn exists(&self) -> Result<(), Failure> {
        if Store::is_at(&self.store)? {
            return Ok(());
        }
        let error = Error::store(format!("there is no store at {}", self.store.display()));
        Err(error.hint("name its folder with --store; a first `palinode run` makes one").into())
    }
}

/// Up to which stages of the pipeline.
#[derive(Args)]
pub struct UntilArgs {
    /// Only STAGE and the stages that it depends on. May be given more than once. STAGE is the name of a stage for all
    /// its cells, or one cell such as 'solve[objective=rome]'
    #[arg(long, value_name = "STAGE")]
    until: Vec<String>,
}

impl UntilArgs {
    /// The pipeline without all that a run up to these stages would not be about.
    pub fn of(&self, pipeline: Pipeline) -> Result<Pipeline, Failure> {
        if self.until.is_empty() {
            return Ok(pipeline);
        }
        let chosen = Selection { until: self.until.clone(), ..Selection::default() }.choose(&pipeline)?;
        Ok(pipeline.only(&chosen.needed))
    }
}

/// Which stages of the pipeline.
#[derive(Args)]
pub struct SelectionArgs {
    #[command(flatten)]
    until: UntilArgs,

    /// Run only STAGE and the stages that depend on it. The results that they need from other stages must be in the store.
    /// With --until, run the stages between the two
    #[arg(long, value_name = "STAGE")]
    from: Vec<String>,

    /// Run only STAGE, with inputs from the store
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,

    /// Run STAGE from its first unit although its result is in the store. The stages that depend on it run only if the new
    /// result differs
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
}

impl SelectionArgs {
    /// As the engine takes it.
    pub fn selection(&self) -> Selection {
        Selection {
            until: self.until.until.clone(),
            from: self.from.clone(),
            only: self.only.clone(),
            force: self.force.clone(),
        }
    }
}
