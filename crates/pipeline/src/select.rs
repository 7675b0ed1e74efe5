//! Which stages of a pipeline a run is about.

use std::collections::{BTreeMap, BTreeSet};

use crate::Pipeline;
use palinode_error::{Error, ErrorKind, Hint};
use palinode_error::{did_you_mean, one_of};

/// Stages by name, with or without a cell of the matrix: `solve`, `solve[objective=rome]`. Nothing named is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// These and all that they need.
    pub until: Vec<String>,
    /// These and all that needs them.
    pub from: Vec<String>,
    /// These and no others.
    pub only: Vec<String>,
    /// Of those that the run is about: these run though their results are there.
    pub force: Vec<String>,
}

/// A selection among the instances of one pipeline, by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Those that may run.
    pub asked: BTreeSet<usize>,
    /// Those whose results are looked up: what may run, and all before it.
    pub needed: BTreeSet<usize>,
    /// Those that run whatever is in the store.
    pub forced: BTreeSet<usize>,
}

impl Selection {
    /// The instances that are meant.
    pub fn choose(&self, pipeline: &Pipeline) -> Result<Chosen, Error> {
        let mut asked: BTreeSet<usize> = (0..pipeline.instances.len()).collect();
        let narrowed = [
            (!self.until.is_empty(), upstream(pipeline, &all(&self.until, pipeline)?)),
            (!self.from.is_empty(), downstream(pipeline, &all(&self.from, pipeline)?)),
            (!self.only.is_empty(), all(&self.only, pipeline)?),
        ];
        for (_, these) in narrowed.iter().filter(|(asked, _)| *asked) {
            asked.retain(|at| these.contains(at));
        }
        if asked.is_empty() && !pipeline.instances.is_empty() {
            return Err(Error::new(
                ErrorKind::Usage,
                "no stage lies between the first and the last that were selected",
            )
            .hint(Hint::SelectBetween));
        }
        let forced = all(&self.force, pipeline)?;
        if let Some(&outside) = forced.iter().find(|at| !asked.contains(at)) {
            let name = &pipeline.instances[outside].name;
            let message = format!("`{name}` is to be forced, but the run is not about it");
            return Err(Error::new(ErrorKind::Usage, message).hint(Hint::SelectToo));
        }
        let needed = upstream(pipeline, &asked);
        Ok(Chosen { asked, needed, forced })
    }
}

/// The instances that these names mean.
fn all(names: &[String], pipeline: &Pipeline) -> Result<BTreeSet<usize>, Error> {
    let mut found = BTreeSet::new();
    for name in names {
        found.extend(pipeline.choose(name)?);
    }
    Ok(found)
}

impl Pipeline {
    /// The pipeline of these instances alone, which have to include all that they take inputs from.
    #[must_use]
    pub fn only(mut self, kept: &BTreeSet<usize>) -> Self {
        let place: BTreeMap<usize, usize> = kept.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        let all = std::mem::take(&mut self.instances);
        self.instances =
            all.into_iter().enumerate().filter(|(at, _)| kept.contains(at)).map(|(_, instance)| instance).collect();
        for from in self.instances.iter_mut().flat_map(|instance| instance.inputs.values_mut()) {
            *from = place.get(from).copied().unwrap_or(*from);
        }
        self
    }

    /// The instances that a name means: one instance by its full name, all cells of a stage, or those of its cells that have
    /// the named values (`solve[objective=rome]` of a matrix with more axes).
    ///
    /// # Errors
    /// When nothing has this name; the nearest name is suggested.
    pub fn choose(&self, name: &str) -> Result<Vec<usize>, Error> {
        let named = |like: &dyn Fn(&crate::Instance) -> bool| -> Vec<usize> {
            self.instances.iter().enumerate().filter(|(_, instance)| like(instance)).map(|(at, _)| at).collect()
        };
        let exact = named(&|instance| instance.name == name);
        let all = if exact.is_empty() { named(&|instance| instance.stage == name) } else { exact };
        if !all.is_empty() {
            return Ok(all);
        }
        let (stage, cell) = name.strip_suffix(']').and_then(|name| name.split_once('[')).unwrap_or((name, ""));
        let cells = named(&|instance| {
            let label = instance.name.strip_prefix(&instance.stage).unwrap_or_default();
            let values: Vec<&str> = label.trim_start_matches('[').trim_end_matches(']').split(',').collect();
            instance.stage == stage && !cell.is_empty() && cell.split(',').all(|value| values.contains(&value.trim()))
        });
        if !cells.is_empty() {
            return Ok(cells);
        }
        let names = self.instances.iter().flat_map(|instance| [instance.stage.as_str(), instance.name.as_str()]);
        let hint = did_you_mean(name, names).unwrap_or_else(|| {
            let cells: Vec<&str> =
                self.instances.iter().filter(|found| found.stage == stage).map(|found| found.name.as_str()).collect();
            let mut stages: Vec<&str> = self.instances.iter().map(|instance| instance.stage.as_str()).collect();
            stages.dedup();
            match (cells.is_empty(), stages.is_empty()) {
                (false, _) => format!("its cells are {}", one_of(cells).trim_start_matches("one of ")),
                (true, false) => format!("its stages are {}", stages.join(", ")),
                (true, true) => "it has no stages at all".to_owned(),
            }
        });
        Err(Error::new(ErrorKind::Usage, format!("the pipeline has no stage `{name}`")).hint(hint))
    }
}

/// These and all that they need.
fn upstream(pipeline: &Pipeline, these: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut all = these.clone();
    // Each instance comes after those it takes inputs from.
    for (at, instance) in pipeline.instances.iter().enumerate().rev() {
        if all.contains(&at) {
            all.extend(instance.inputs.values());
        }
    }
    all
}

/// These and all that needs them.
fn downstream(pipeline: &Pipeline, these: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut all = these.clone();
    for (at, instance) in pipeline.instances.iter().enumerate() {
        if instance.inputs.values().any(|from| all.contains(from)) {
            all.insert(at);
        }
    }
    all
}
