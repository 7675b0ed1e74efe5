//! `palinode why`

use clap::Args as ClapArgs;
use palinode::{Pipeline, Plan, Reason, Status, Store, now_ms, plan};

use crate::command_error::Failure;
use crate::input::{PipelineArgs, StoreArgs};
use crate::terminal::{Reading, Style, format, print, print_json};

/// Explain why a stage would run, or where its result comes from
///
/// Shows every field that differs from the nearest earlier result, with its whole old and new value. When a stage runs only
/// because of other stages, shows the reasons of those stages.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode why pipeline.yaml solve
  palinode why pipeline.yaml 'solve[objective=rome]'      one cell of the matrix
  palinode why pipeline.yaml scores --set vars.layers=[5]")]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    /// A stage of the pipeline, or one of its cells.
    #[arg(value_name = "STAGE")]
    stage: String,

    #[command(flatten)]
    store: StoreArgs,

    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// Prints the reasons.
pub fn run(args: &Args) -> Result<(), Failure> {
    let pipeline = args.pipeline.load()?;
    let chosen = pipeline.choose(&args.stage)?;
    let store = args.store.open_or_look()?;
    let plan = plan(&pipeline, &store, &Reading)?;
    if args.json {
        let told: Vec<_> = chosen.iter().map(|&at| super::plan::entry(&plan.entries[at])).collect();
        return print_json(&told);
    }
    let explain = Explain { pipeline: &pipeline, plan: &plan, store: &store, style: Style::stdout() };
    print(&explain.all(&chosen))
}

struct Explain<'a> {
    pipeline: &'a Pipeline,
    plan: &'a Plan,
    store: &'a Store,
    style: Style,
}

impl Explain<'_> {
    /// Explains these instances; those that fare alike are explained once.
    fn all(&self, chosen: &[usize]) -> String {
        let mut told: Vec<(Vec<usize>, (String, String))> = Vec::new();
        for &at in chosen {
            let body = self.body(at);
            match told.iter_mut().find(|(_, known)| *known == body) {
                Some((alike, _)) => alike.push(at),
                None => told.push((vec![at], body)),
            }
        }
        let one = |(alike, (says, rest)): &(Vec<usize>, (String, String))| {
            let first = &self.pipeline.instances[alike[0]];
            let names: Vec<String> =
                alike.iter().map(|&at| self.style.bold(&self.pipeline.instances[at].name)).collect();
            let name = match alike.len() {
                cells if cells > 1 && cells == chosen.len() => {
                    format!("{}, all {cells} cells", self.style.bold(&first.stage))
                }
                _ => names.join("\n"),
            };
            format!("{name} ({}) {says}\n{rest}", first.kind.info().name)
        };
        told.iter().map(one).collect::<Vec<_>>().join("\n")
    }

    /// What would happen to an instance, and why.
    fn body(&self, at: usize) -> (String, String) {
        let name = &self.pipeline.instances[at].name;
        match &self.plan.entries[at].status {
            Status::Cached { key } => ("is cached".to_owned(), self.style.wrap(&self.made(key), 2)),
            Status::SameAs { instance: same, .. } => {
                (format!("has the same parameters and inputs as {same}: what that yields is used"), String::new())
            }
            Status::WillRun { reasons, .. } => (opening(reasons).to_owned(), self.reasons(name, reasons)),
            Status::DependsOn { upstream } => {
                // An instance takes from its own cell, so that the stage's name says it.
                let stage = |name: &String| Some(self.pipeline.instance(name)?.stage.clone());
                let mut stages: Vec<String> = upstream.iter().filter_map(stage).collect();
                stages.dedup();
                let note = "If that turns out to be the same as before, the result that is there is used.";
                let roots = self.roots(at).into_iter().map(|root| self.root(root));
                (
                    format!("depends on what comes from {}", list(&stages)),
                    self.style.wrap(note, 2) + &roots.collect::<String>(),
                )
            }
        }
    }

    /// Who made a cached result, and when.
    fn made(&self, key: &palinode::Key) -> String {
        let Some(manifest) = self.store.manifest(key).ok().flatten() else { return String::new() };
        format!(
            "made {} for {} of {} in {}, by run {} with device {}; key {}",
            format::ago(now_ms().saturating_sub(manifest.finished_ms) / 1000),
            manifest.instance,
            manifest.pipeline,
            format::duration(manifest.seconds),
            manifest.run,
            manifest.device,
            key.0.short(),
        )
    }

    fn reasons(&self, name: &str, reasons: &[Reason]) -> String {
        let fields = reasons.iter().filter_map(|reason| match reason {
            Reason::Changed { change, .. } | Reason::Unkeyed { change } => Some(change.field.chars().count()),
            _ => None,
        });
        let width = fields.max().unwrap_or(0);
        let mut text: String = reasons.iter().map(|reason| self.reason(reason, width)).collect();
        let since = reasons.iter().find_map(|reason| match reason {
            Reason::Changed { since, .. } => Some(since),
            _ => None,
        });
        if let Some(since) = since {
            let whose = if since == name { String::new() } else { format!(", made for {since}") };
            text.push_str(&self.style.dim(&format!("  compared with the nearest earlier result{whose}\n")));
        }
        text
    }

    fn reason(&self, reason: &Reason, width: usize) -> String {
        let (Reason::Changed { change, .. } | Reason::Unkeyed { change }) = reason else {
            return self.style.wrap(&reason.to_string(), 2);
        };
        let none = || self.style.dim("(none)");
        let old = change.old.clone().unwrap_or_else(none);
        let new = self.style.bold(&change.new.clone().unwrap_or_else(none));
        let field = &change.field;
        let length =
            width + 7 + change.old.as_ref().map_or(6, String::len) + change.new.as_ref().map_or(6, String::len);
        if length <= self.style.width {
            format!("  {field:width$}  {old} → {new}\n")
        } else {
            format!("  {field}\n    {old}\n  → {new}\n")
        }
    }

    /// The instances before this one that run by themselves, in the order of the run.
    fn roots(&self, at: usize) -> Vec<usize> {
        let mut todo: Vec<usize> = vec![at];
        let mut seen = vec![false; self.plan.entries.len()];
        while let Some(at) = todo.pop() {
            for &from in self.pipeline.instances[at].inputs.values() {
                if !std::mem::replace(&mut seen[from], true) {
                    todo.push(from);
                }
            }
        }
        let runs = |at: &usize| seen[*at] && matches!(self.plan.entries[*at].status, Status::WillRun { .. });
        (0..seen.len()).filter(runs).collect()
    }

    fn root(&self, at: usize) -> String {
        let Status::WillRun { reasons, .. } = &self.plan.entries[at].status else { return String::new() };
        let name = &self.plan.entries[at].instance;
        let title = format!("{} {}\n", self.style.bold(name), opening(reasons));
        textwrap::indent(&(title + &self.reasons(name, reasons)), "  ")
    }
}

fn opening(reasons: &[Reason]) -> &'static str {
    match reasons.first() {
        Some(Reason::Changed { .. } | Reason::Unkeyed { .. }) => "will run: something changed",
        _ => "will run",
    }
}

fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
