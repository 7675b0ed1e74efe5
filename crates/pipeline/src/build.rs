//! Pipelines that are built in code rather than read from a file.
//!
//! A built pipeline takes the same way as a file: from its stages and values a tree is made, as YAML gives one, and that is expanded,
//! connected and checked. So names and values are checked as a file's are. What differs is where mistakes point: each value is a text of
//! its own, named for the stage and parameter that it was given to, or for whatever the builder says that it came from.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::diagnostic::{Diagnostics, Source};
use crate::limits;
use crate::places::{Places, child, item};
use crate::report::Report;
use crate::setting::Setting;
use crate::spec::{self, Spec};
use crate::yaml::Tree;

/// A pipeline in the making.
///
/// ```
/// use palinode_pipeline::PipelineBuilder;
///
/// let mut build = PipelineBuilder::new("greeting");
/// let who = build.stage("who", "person").with("name", "you").done();
/// build.stage("text", "greet").input("to", &who).with("times", 2);
/// assert_eq!(
///     build.to_yaml(),
///     "name: greeting\n\nstages:\n  who:\n    uses: person\n    with:\n      name: \"you\"\n\n  \
///      text:\n    uses: greet\n    inputs: { to: who }\n    with:\n      times: 2\n"
/// );
/// ```
#[derive(Clone, Debug)]
pub struct PipelineBuilder {
    name: String,
    origin: String,
    description: Option<String>,
    strict: bool,
    strict_checks: bool,
    stages: Vec<StageBuilder>,
}

/// A stage in the making.
#[derive(Clone, Debug)]
pub struct StageBuilder {
    id: String,
    uses: String,
    inputs: Vec<(String, String)>,
    with: Vec<(String, Value)>,
    /// `retries` and `timeout`, where they are set.
    limits: Vec<(&'static str, Value)>,
    labels: BTreeMap<String, String>,
    /// Numbers that were given and are no values.
    unfit: Vec<(String, f64)>,
}

/// A stage of a builder, to connect others to it: one that is not there cannot be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageName(String);

impl PipelineBuilder {
    /// A pipeline of this name without stages.
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            origin: format!("pipeline `{name}`"),
            name,
            description: None,
            strict: false,
            strict_checks: false,
            stages: Vec::new(),
        }
    }

    /// Says what builds it, for records of runs and for mistakes of the pipeline as a whole.
    #[must_use]
    pub fn built_by(mut self, origin: impl Into<String>) -> Self {
        self.origin = origin.into();
        self
    }

    /// Says what it is for.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Results count only on the kind of device that computed them, as under `numerics: strict`.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// What is doubtful about requests and resources ends a run before it begins, as under `checks: strict`.
    #[must_use]
    pub fn strict_checks(mut self) -> Self {
        self.strict_checks = true;
        self
    }

    /// Adds the stage `id`, of the kind that a file names after `uses:`.
    pub fn stage(&mut self, id: impl Into<String>, uses: impl Into<String>) -> &mut StageBuilder {
        let stage = StageBuilder {
            id: id.into(),
            uses: uses.into(),
            inputs: Vec::new(),
            with: Vec::new(),
            limits: Vec::new(),
            labels: BTreeMap::new(),
            unfit: Vec::new(),
        };
        let at = self.stages.len();
        self.stages.push(stage);
        &mut self.stages[at]
    }

    /// The pipeline as a file, which loads to the same keys: parameters as JSON, which YAML can read.
    pub fn to_yaml(&self) -> String {
        let mut text = format!("name: {}\n", scalar(&self.name));
        if let Some(description) = &self.description {
            let _ = writeln!(text, "description: {}", quoted(description));
        }
        if self.strict {
            text.push_str("numerics: strict\n");
        }
        if self.strict_checks {
            text.push_str("checks: strict\n");
        }
        text.push_str("\nstages:");
        for stage in &self.stages {
            let _ = write!(text, "\n  {}:\n    uses: {}\n", scalar(&stage.id), scalar(&stage.uses));
            for (name, value) in &stage.limits {
                let _ = writeln!(text, "    {name}: {value}");
            }
            if !stage.inputs.is_empty() {
                let ports: Vec<String> =
                    stage.inputs.iter().map(|(port, from)| format!("{}: {}", scalar(port), scalar(from))).collect();
                let _ = writeln!(text, "    inputs: {{ {} }}", ports.join(", "));
            }
            if !stage.with.is_empty() {
                text.push_str("    with:\n");
                for (field, value) in &stage.with {
                    let _ = writeln!(text, "      {}: {}", scalar(field), escape(value));
                }
            }
        }
        text
    }

    /// The pipeline as a text that is no file.
    pub(crate) fn source(&self) -> Arc<Source> {
        Source::of_code(&self.origin, self.to_yaml())
    }

    /// As the first step of loading gives a file.
    pub(crate) fn read(&self) -> (Spec, Report) {
        let whole = Source::of_code(&self.origin, &self.name);
        let mut places = Places::of_code(&whole);
        let mut stages = Vec::new();
        // A name that is given twice is found where the others are checked: keys of a mapping are unique in a tree.
        let mut twice = Vec::new();
        for stage in &self.stages {
            if stages.iter().any(|(id, _)| *id == stage.id) {
                twice.push(stage);
                continue;
            }
            stages.push((stage.id.clone(), stage.tree()));
            stage.place(&mut places);
        }
        let mut top = vec![("name".to_owned(), Tree::Text(self.name.clone()))];
        if let Some(description) = &self.description {
            top.push(("description".to_owned(), Tree::Text(description.clone())));
        }
        if self.strict {
            top.push(("numerics".to_owned(), Tree::Text("strict".to_owned())));
        }
        if self.strict_checks {
            top.push(("checks".to_owned(), Tree::Text("strict".to_owned())));
        }
        top.push(("stages".to_owned(), Tree::Map(stages)));
        let mut report = Report::new(places, Diagnostics(Vec::new()), Vec::new());
        for stage in &self.stages {
            for (field, number) in &stage.unfit {
                let path = child(&child(&child("stages", &stage.id), "with"), field);
                report.value(&path, format!("`{field}` is {number}"), |it| it.expected("a finite number"));
            }
        }
        for stage in twice {
            report.key(&child("stages", &stage.id), format!("two stages are named `{}`", stage.id), |it| it);
        }
        let spec = spec::read(&Tree::Map(top), spec::Form::Whole, &mut report);
        (spec, report)
    }
}

impl StageBuilder {
    /// Connects an input, in place of what was connected before.
    pub fn input(&mut self, port: impl Into<String>, from: &StageName) -> &mut Self {
        let port = port.into();
        self.inputs.retain(|(known, _)| *known != port);
        self.inputs.push((port, from.0.clone()));
        self
    }

    /// Sets a parameter, in place of an earlier value. Texts are taken as they are: `${…}` is no expression here. `null` leaves the
    /// parameter out. A number that is not finite is a mistake, found when the pipeline is checked.
    pub fn with(&mut self, field: impl Into<String>, value: impl Into<Setting>) -> &mut Self {
        let (field, Setting(value)) = (field.into(), value.into());
        self.with.retain(|(known, _)| *known != field);
        self.unfit.retain(|(known, _)| *known != field);
        match value {
            Ok(Value::Null) => {}
            Ok(value) => self.with.push((field, value)),
            Err(number) => self.unfit.push((field, number)),
        }
        self
    }

    /// Tries the stage again so many times where it fails for a reason that may pass.
    pub fn retries(&mut self, times: u32) -> &mut Self {
        self.limit("retries", times.into())
    }

    /// Stops the stage when it has worked for so long.
    pub fn timeout(&mut self, time: Duration) -> &mut Self {
        self.limit("timeout", limits::written(time).into())
    }

    fn limit(&mut self, name: &'static str, value: Value) -> &mut Self {
        self.limits.retain(|(known, _)| *known != name);
        self.limits.push((name, value));
        self
    }

    /// Says where the value of a parameter came from, such as an argument: mistakes in it then point there. `field` can be a part of a
    /// parameter, such as `facts[0].prompt`, and empty for the whole stage.
    pub fn from(&mut self, field: impl Into<String>, label: impl Into<String>) -> &mut Self {
        self.labels.insert(field.into(), label.into());
        self
    }

    /// The stage, to connect others to it.
    pub fn done(&self) -> StageName {
        StageName(self.id.clone())
    }

    fn tree(&self) -> Tree {
        let inputs = self.inputs.iter().map(|(port, from)| (port.clone(), Tree::Text(escaped(from)))).collect();
        let with = self.with.iter().map(|(field, value)| (field.clone(), tree(&escape(value)))).collect();
        let mut pairs = vec![
            ("uses".to_owned(), Tree::Text(escaped(&self.uses))),
            ("inputs".to_owned(), Tree::Map(inputs)),
            ("with".to_owned(), Tree::Map(with)),
        ];
        pairs.extend(self.limits.iter().map(|(name, value)| ((*name).to_owned(), tree(value))));
        Tree::Map(pairs)
    }

    fn place(&self, places: &mut Places) {
        let path = child("stages", &self.id);
        let name = self.labels.get("").cloned().unwrap_or_else(|| format!("stage `{}`", self.id));
        let mut put = |path: &str, name: String, text: String| places.set_whole(path, &Source::of_code(name, text));
        put(&path, name.clone(), format!("{}: {}", self.id, self.uses));
        put(&child(&path, "uses"), name.clone(), self.uses.clone());
        for (limit, value) in &self.limits {
            put(&child(&path, limit), format!("{name}, `{limit}`"), value.to_string());
        }
        for (port, from) in &self.inputs {
            put(&child(&child(&path, "inputs"), port), format!("{name}, input `{port}`"), from.clone());
        }
        let with = child(&path, "with");
        for (field, number) in &self.unfit {
            let label = self.labels.get(field).cloned().unwrap_or_else(|| format!("{name}, `{field}`"));
            put(&child(&with, field), label, number.to_string());
        }
        for (field, value) in &self.with {
            self.place_value(field, value, None, &mut |field, label, text| {
                let all = self.labels.get("");
                let label = label.or(all.map(String::as_str));
                let label = label.map_or_else(|| format!("{name}, `{field}`"), str::to_owned);
                put(&child(&with, field), label, text);
            });
        }
    }

    /// Gives a value and its parts places; parts that have no name of their own have that of the whole.
    fn place_value(
        &self,
        field: &str,
        value: &Value,
        label: Option<&str>,
        put: &mut dyn FnMut(&str, Option<&str>, String),
    ) {
        let label = self.labels.get(field).map(String::as_str).or(label);
        put(field, label, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        match value {
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    self.place_value(&item(field, index), value, label, put);
                }
            }
            Value::Object(pairs) => {
                for (key, value) in pairs {
                    self.place_value(&child(field, key), value, label, put);
                }
            }
            _ => {}
        }
    }
}

/// A text in which `${` is no expression.
fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}

/// The texts of a value so that they hold no expression.
fn escape(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(escaped(text)),
        Value::Array(items) => items.iter().map(escape).collect(),
        Value::Object(pairs) => pairs.iter().map(|(key, value)| (key.clone(), escape(value))).collect(),
        plain => plain.clone(),
    }
}

fn tree(value: &Value) -> Tree {
    match value {
        Value::Null => Tree::Null,
        Value::Bool(value) => Tree::Bool(*value),
        Value::Number(value) => Tree::Number(value.clone()),
        Value::String(text) => Tree::Text(text.clone()),
        Value::Array(items) => Tree::List(items.iter().map(tree).collect()),
        Value::Object(pairs) => Tree::Map(pairs.iter().map(|(key, value)| (key.clone(), tree(value))).collect()),
    }
}

/// A text in a file, so that YAML reads it as a text; JSON is YAML.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text in a file: bare where YAML reads it back as it is, else quoted.
fn scalar(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(word);
    let taken = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if plain && !taken.contains(&text.to_ascii_lowercase().as_str()) { text.to_owned() } else { quoted(text) }
}
