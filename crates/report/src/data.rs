//! What a report is made from.

use std::fmt;

/// A run as its reader sees it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The pipeline's name.
    pub title: String,
    /// What it is for.
    pub description: Option<String>,
    /// What is said of the run as a whole: name and value, in the order to be shown.
    pub facts: Vec<(String, String)>,
    /// What the stages found doubtful: the cell, empty where there is only one, and the finding.
    pub doubts: Vec<(String, String)>,
    /// Stages that measured something; the first is what the run was for.
    pub measured: Vec<Measured>,
    /// What was written into each layer.
    pub layers: Vec<Layers>,
    /// How targets were found.
    pub losses: Vec<Losses>,
    /// Where facts are kept.
    pub traced: Vec<Traced>,
    /// Edit by edit.
    pub edits: Edits,
    /// What the model says by itself, before and after.
    pub samples: Vec<Sample>,
    /// The stages, each after those it takes from.
    pub stages: Vec<Stage>,
    /// The pipeline with all values filled in.
    pub resolved: String,
}

/// A value of an axis.
#[derive(Clone, Debug, PartialEq)]
pub enum Level {
    /// A number: the axis can be drawn to scale.
    Number(f64),
    /// Anything else.
    Text(String),
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(value) => f.write_str(&crate::number::short(*value)),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A cell of a matrix: a value for each axis that a stage depends on.
pub type Cell = Vec<(String, Level)>;

/// What one stage measured in all its cells.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The stage's name.
    pub stage: String,
    /// Whether this is what the run was for, rather than a fact by the way.
    pub result: bool,
    /// The columns.
    pub metrics: Vec<Metric>,
    /// What is known of which row is the best, one for each metric; nothing where it is empty.
    pub marks: Vec<Mark>,
    /// The axes that rows are means over, such as seeds; empty where each row is one experiment.
    pub repeated: Vec<String>,
    /// What all rows are of, where an axis of repetitions has one value: "seed 1"; empty elsewhere.
    pub alone: String,
    /// A row for each cell.
    pub rows: Vec<Row>,
    /// What was measured on the way, where anything was.
    pub steps: Option<Steps>,
    /// What is left at the end of edits by their age, where it was measured: the last of the axes is the age.
    pub retention: Option<Steps>,
    /// What the figures mean beside each other, in words: the cell, empty where there is only one, and the words.
    pub notes: Vec<(String, String)>,
}

/// A column of measurements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metric {
    /// Its name in files. `before_x` is `x` of the unedited model.
    pub name: String,
    /// Its heading.
    pub label: String,
    /// What it says, in one line; empty where nobody says so.
    pub doc: String,
    /// Whether it is a share between 0 and 1, shown in percent.
    pub percent: bool,
    /// What is better, where that is known.
    pub better: Option<Better>,
}

/// What is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// More.
    Max,
    /// Less.
    Min,
}

/// What is known of which row of a metric is the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// Nothing is known of chance, and so nothing is said.
    #[default]
    Untested,
    /// None is shown to be better than all others.
    None,
    /// This one is.
    Row(usize),
}

/// A row of measurements.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Where.
    pub cell: Cell,
    /// How many experiments it is the mean of.
    pub repetitions: usize,
    /// One for each metric.
    pub values: Vec<Measure>,
}

/// A measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measure {
    /// The value; `None` where nothing was measured.
    pub value: Option<f64>,
    /// Its interval, low and high.
    pub interval: Option<[f64; 2]>,
    /// The standard deviation over repetitions, where there are several.
    pub spread: Option<f64>,
    /// The number of records behind it, where it is a mean of such.
    pub n: Option<usize>,
}

/// Measurements after each of some steps, such as every tenth round of a sequence.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// What counts the steps; the last one is drawn along.
    pub axes: Vec<String>,
    /// The measurements.
    pub rows: Vec<Step>,
}

/// Measurements after a step.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The row of [`Measured::rows`] that it is on the way to.
    pub row: usize,
    /// One for each axis of [`Steps`].
    pub at: Vec<f64>,
    /// One for each metric.
    pub values: Vec<Measure>,
}

/// What was written into the layers, in one stage's cells.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The stage's name.
    pub stage: String,
    /// What is known of each layer.
    pub metrics: Vec<Metric>,
    /// The axes that rows are taken over, such as seeds; empty where each row is one experiment.
    pub repeated: Vec<String>,
    /// Cell by cell, layer by layer.
    pub rows: Vec<LayerFacts>,
}

/// One layer in one cell.
#[derive(Clone, Debug)]
pub struct LayerFacts {
    /// Where.
    pub cell: Cell,
    /// The layer.
    pub layer: usize,
    /// Which of its weights, in a word: the layer has several.
    pub module: String,
    /// Over how many batches the spreads are, those of all repetitions together.
    pub batches: usize,
    /// One for each metric.
    pub values: Vec<Spread>,
}

/// Values over several batches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// Their mean.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

/// How one stage found its targets.
#[derive(Clone, Debug, Default)]
pub struct Losses {
    /// The instance's name.
    pub instance: String,
    /// The names of the terms that the loss is a sum of.
    pub terms: Vec<String>,
    /// A trace for each request.
    pub traces: Vec<Trace>,
}

/// The loss of one request, step by step.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The request in a few words.
    pub label: String,
    /// The loss at each evaluation.
    pub loss: Vec<f64>,
    /// The terms at each evaluation: one list for each of [`Losses::terms`].
    pub terms: Vec<Vec<f64>>,
}

/// What causal tracing found in one instance of a stage.
#[derive(Clone, Debug, Default)]
pub struct Traced {
    /// The instance's name.
    pub instance: String,
    /// The prompts that were traced.
    pub prompts: usize,
    /// What noise, how many draws, what windows: a sentence or two.
    pub how: String,
    /// Mean probability of the answer without noise.
    pub clean: f64,
    /// The same with noise.
    pub noisy: f64,
    /// For each kind of state and role of a token, in the order to be shown.
    pub effects: Vec<Effects>,
    /// A few prompts by themselves.
    pub single: Vec<PromptEffects>,
}

/// Mean indirect effects of a kind of state at tokens of a role.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// What was restored, in words.
    pub restored: String,
    /// The role of the token, in words.
    pub role: String,
    /// Prompts that have such a token.
    pub prompts: usize,
    /// The effect by layer.
    pub effect: Vec<f64>,
    /// Its interval over prompts.
    pub interval: Option<Vec<[f64; 2]>>,
}

/// One prompt's probabilities with states restored.
#[derive(Clone, Debug, Default)]
pub struct PromptEffects {
    /// Its tokens, those of the subject marked.
    pub tokens: Vec<String>,
    /// The answer.
    pub answer: String,
    /// Its probability without noise.
    pub clean: f64,
    /// With noise.
    pub noisy: f64,
    /// What was restored, and the probability by token and layer.
    pub maps: Vec<(String, Vec<Vec<f64>>)>,
}

/// Edit by edit, what came of it.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    /// What is measured of a single edit.
    pub metrics: Vec<Metric>,
    /// The cells' names.
    pub cells: Vec<String>,
    /// An edit in a cell.
    pub rows: Vec<Edit>,
}

/// One edit in one cell.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// Its cell, in [`Edits::cells`].
    pub cell: usize,
    /// The request's name.
    pub id: String,
    /// The prompt, filled in.
    pub prompt: String,
    /// What the prompt is about; a part of it.
    pub subject: String,
    /// What it should say.
    pub new: String,
    /// What it said before, where known.
    pub old: Option<String>,
    /// Probability of the new target before and after, per token.
    pub p_new: [Option<f64>; 2],
    /// Probability of the old target before and after.
    pub p_old: [Option<f64>; 2],
    /// One for each of [`Edits::metrics`].
    pub values: Vec<Option<f64>>,
}

/// What the model says by itself.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// How it begins.
    pub prompt: String,
    /// What else is known of it: name and value.
    pub fields: Vec<(String, String)>,
    /// How the unedited model goes on.
    pub before: Option<String>,
    /// How the edited ones go on: cell and text.
    pub after: Vec<(String, String)>,
}

/// A stage of the pipeline.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub uses: String,
    /// The stages that it takes from, by index in [`Report::stages`].
    pub inputs: Vec<usize>,
    /// What happened to it in each cell.
    pub instances: Vec<Instance>,
}

/// A stage in one cell.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long its result took to compute, whenever that was.
    pub seconds: Option<f64>,
    /// The stage kind's version.
    pub version: Option<u32>,
    /// Its key.
    pub key: Option<String>,
    /// The digest of its result.
    pub content: Option<String>,
    /// When its result was made, as people write it.
    pub finished: Option<String>,
    /// The run that made it.
    pub run: Option<String>,
    /// The device that made it.
    pub device: Option<String>,
    /// The version of the program that made it.
    pub program: Option<String>,
    /// Parameters that seed its random numbers.
    pub seeds: Vec<(String, String)>,
    /// Files from outside that it read.
    pub files: Vec<Digested>,
}

/// How a stage ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It worked in this run.
    Ran,
    /// Its result was there.
    Cached,
    /// It gave an error: this one.
    Failed(String),
    /// It was not reached, or has not run yet.
    #[default]
    Missing,
}

/// A file, by what it holds.
#[derive(Clone, Debug, Default)]
pub struct Digested {
    /// Its logical name.
    pub name: String,
    /// The digest of its contents.
    pub digest: String,
    /// Its length in bytes.
    pub size: u64,
}
