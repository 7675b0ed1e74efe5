//! What a stage author writes: one small type per kind of stage.

use std::path::{Path, PathBuf};

use palinode_error::{Error, FieldError};
use palinode_pipeline::{Beside, DescribeCx, ExternalFile, Kind, Port, Renames, Resources, Taken, UnitPlan};
use palinode_store::Artifact;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::context::StageContext;
use crate::share::Inputs;

/// What is known of a stage's output before anything runs.
pub type Planned<S> = <<S as StageKind>::Output as Kind>::Planned;

/// A kind of stage: its name, parameters, ports, and what it does.
///
/// Parameters take part in the key after their defaults are filled in, so adding a field with a default changes keys; raise
/// [`StageKind::VERSION`] when the same parameters would give a different result than before.
pub trait StageKind: Sized + Send + Sync + 'static {
    /// The parameters under `with:`. Use `#[serde(deny_unknown_fields)]` and serde defaults; no `untagged`, no `flatten`.
    type Params: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;

    /// The word after `uses:`.
    const NAME: &'static str;
    /// Part of every key.
    const VERSION: u32;
    /// One line for lists.
    const SUMMARY: &'static str;
    /// Paragraphs for whoever looks the stage up.
    const DOC: &'static str;
    /// The kind of artifact it yields.
    type Output: Kind;

    /// The inputs it takes.
    fn inputs() -> Vec<Port> {
        Vec::new()
    }

    /// Top-level parameters that never change a bit of a result and stay out of every key, such as the name of a file whose contents are in
    /// it.
    ///
    /// A path that the stage publishes to belongs in the key: two stages that differ in nothing else must both write.
    fn unkeyed() -> &'static [&'static str] {
        &[]
    }

    /// Parameters, by dotted name, that change last digits of a result and nothing else, such as the size of an inner batch. Under `numerics:
    /// portable` those at the top level are in no key; under `numerics: strict` every key holds what they come to ([`StageKind::resolved`]).
    fn last_digits() -> &'static [&'static str] {
        &[]
    }

    /// What the parameters of [`StageKind::last_digits`] come to where the pipeline is computed on `device`: for two values of one parameter
    /// that give the same bits, the same. No value may depend on the machine otherwise, on its memory for example.
    fn resolved(params: &Self::Params, device: Option<&str>) -> Vec<(&'static str, Value)> {
        let _ = (params, device);
        Vec::new()
    }

    /// Earlier versions whose results still hold, with their parameters read as those of this version. Name one when a change
    /// raised the version but left results as they were, or as good: results that took hours are then carried over instead
    /// of computed again.
    fn carries() -> &'static [u32] {
        &[]
    }

    /// Parameters that had another name before: pairs of old and new name, dotted where they lie within another. The old name is
    /// still read, with a warning, and stays the name by which keys know the parameter.
    fn renamed() -> Renames {
        &[]
    }

    /// The external files that it computes from: its key covers what they hold.
    ///
    /// # Errors
    /// When a parameter cannot be turned into files, for example a model folder without weights.
    fn files(params: &Self::Params, base: &Path) -> Result<Vec<ExternalFile>, FieldError> {
        let _ = (params, base);
        Ok(Vec::new())
    }

    /// What lies beside its result outside the store: files and a name that nothing is computed from, so that they are in no key, but that
    /// a stage further down may write somewhere.
    fn beside(params: &Self::Params, base: &Path) -> Beside {
        let _ = (params, base);
        Beside::default()
    }

    /// The port whose input's surroundings are its own: what lies beside that lies beside its result too, together with what
    /// [`StageKind::beside`] names.
    fn hands_on() -> Option<&'static str> {
        None
    }

    /// What it takes of what lies beside its input: files that it copies, values for parameters that are not given. All of it becomes part of
    /// its key.
    fn takes(params: &Self::Params, beside: &Beside) -> Taken {
        let _ = (params, beside);
        Taken::default()
    }

    /// Whether a file of this name decided nothing, although earlier versions had it in the keys and results of this stage. Their results
    /// are found as before, whatever became of that file.
    fn decides_nothing(file: &str) -> bool {
        let _ = file;
        false
    }

    /// The resources that it needs while it runs; decides which stages run side by side. The default is the whole machine: work on a
    /// model is parallel by itself, and two at once are slower than one after the other.
    fn resources(params: &Self::Params) -> Resources {
        let _ = params;
        Resources::MACHINE
    }

    /// Where it publishes files or folders outside the store: pairs of the parameter that says so and the path. Two stages
    /// that write to one place are a mistake found before anything runs.
    fn publishes(params: &Self::Params) -> Vec<(&'static str, PathBuf)> {
        let _ = params;
        Vec::new()
    }

    /// Facts about the output that are known before anything runs, such as the number of layers, and checks that need the
    /// facts of inputs.
    ///
    /// # Errors
    /// All mistakes it can find, each naming a parameter.
    fn describe(params: &Self::Params, cx: &DescribeCx<'_>) -> Result<Planned<Self>, Vec<FieldError>> {
        let _ = (params, cx);
        Ok(Planned::<Self>::default())
    }

    /// How the work is cut into units, where parameters and what is known of inputs tell before anything runs.
    fn units(params: &Self::Params, cx: &DescribeCx<'_>) -> Option<UnitPlan> {
        let _ = (params, cx);
        None
    }

    /// How the work parts between processes, once its inputs are there; `None` where it does not, because each piece needs the one before it.
    ///
    /// Where it does, [`StageKind::run`] may be called with a share of the parts. It then computes and keeps those for which
    /// [`StageContext::is_mine`] says so, asked once for each in their order, and answers [`StageContext::end_of_share`] in place of a result.
    /// Called without a share, it finds what was kept, and joins it.
    ///
    /// # Errors
    /// When the facts of an input do not read.
    fn parts(params: &Self::Params, inputs: &Inputs<'_>) -> Result<Option<UnitPlan>, Error> {
        let _ = (params, inputs);
        Ok(None)
    }

    /// Does the work. [`crate::artifact`] makes a result from its facts.
    ///
    /// # Errors
    /// When there is no result; nothing is then kept but the units that were put.
    fn run(params: &Self::Params, cx: &StageContext) -> Result<Artifact, Error>;
}
