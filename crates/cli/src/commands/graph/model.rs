//! What is drawn: stages or cells, how they stand, and what feeds what.

use std::collections::BTreeSet;

use palinode::{Outcome, Pipeline, RunRecord, StageState, Status, Store, plan};
use serde_json::json;

use crate::command_error::Failure;
use crate::results::{by_stage, plain};
use crate::terminal::Reading;

/// How a stage stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its result is there.
    Cached,
    /// It would run.
    WillRun,
    /// Whether it runs depends on others.
    Depends,
    /// It is at work.
    Working,
    /// It failed in the run that goes on.
    Failed,
    /// Some of its cells stand like this, some like that.
    Mixed,
    /// The store was not read.
    Unknown,
}

impl State {
    /// In a word; nothing where nothing is known.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::WillRun => "will run",
            Self::Depends => "depends",
            Self::Working => "at work",
            Self::Failed => "failed",
            Self::Mixed => "in part",
            Self::Unknown => "",
        }
    }

    /// As the name of a class.
    pub fn class(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::WillRun => "run",
            Self::Depends => "depends",
            Self::Working => "working",
            Self::Failed => "failed",
            Self::Mixed => "mixed",
            Self::Unknown => "unknown",
        }
    }
}

/// How instances stand by the plan of a run.
pub fn planned(pipeline: &Pipeline, store: &Store) -> Result<Vec<State>, Failure> {
    let plan = plan(pipeline, store, &Reading)?;
    let state = |status: &Status| match status {
        Status::Cached { .. } => State::Cached,
        Status::WillRun { .. } => State::WillRun,
        Status::SameAs { .. } | Status::DependsOn { .. } => State::Depends,
    };
    Ok(plan.entries.iter().map(|entry| state(&entry.status)).collect())
}

/// How instances stand in a run that goes on.
pub fn running(pipeline: &Pipeline, run: &RunRecord) -> Vec<State> {
    let state = |name: &str| match run.stage(name).map(|stage| &stage.state) {
        None
        | Some(
            StageState::Waiting | StageState::Lost | StageState::Finished(Outcome::Skipped { .. } | Outcome::NotAsked),
        ) => State::Depends,
        Some(StageState::Working { .. }) => State::Working,
        Some(StageState::Finished(Outcome::Failed { .. })) => State::Failed,
        Some(StageState::Finished(Outcome::Ran | Outcome::Cached)) => State::Cached,
    };
    pipeline.instances.iter().map(|instance| state(&instance.name)).collect()
}

/// Where nothing is known.
pub fn unknown(pipeline: &Pipeline) -> Vec<State> {
    vec![State::Unknown; pipeline.instances.len()]
}

/// A stage, or one cell of it.
pub struct Node {
    /// The stage's name.
    pub stage: String,
    /// The instance's name, of a cell.
    pub name: Option<String>,
    /// "objective=rome, strategy=single" for a cell.
    pub cell: String,
    /// Number of cells that it stands for.
    pub cells: usize,
    /// What it uses.
    pub uses: &'static str,
    /// How it stands.
    pub state: State,
    /// Number of its cells that are cached.
    pub cached: usize,
    /// The nodes that it takes inputs from, in their order.
    pub inputs: Vec<usize>,
}

impl Node {
    /// The stage's name with the number of its cells, or the name of the cell.
    pub fn title(&self) -> String {
        match (&self.name, self.cells) {
            (Some(name), _) => name.clone(),
            (None, 1) => self.stage.clone(),
            (None, cells) => format!("{} ×{cells}", self.stage),
        }
    }

    /// "cached", or "2 of 6 cached".
    pub fn says(&self) -> String {
        match self.state {
            State::Mixed => format!("{} of {} cached", self.cached, self.cells),
            state => state.word().to_owned(),
        }
    }
}

/// A graph to draw. Every node comes after those it takes inputs from.
pub struct Graph {
    /// The pipeline's name.
    pub name: String,
    /// Stages or cells.
    pub nodes: Vec<Node>,
}

impl Graph {
    /// The graph of a pipeline whose instances stand like this.
    pub fn of(pipeline: &Pipeline, states: &[State], cells: bool) -> Self {
        let groups: Vec<Vec<usize>> = if cells {
            (0..pipeline.instances.len()).map(|at| vec![at]).collect()
        } else {
            by_stage(pipeline).into_iter().map(|group| group.members).collect()
        };
        let mut home = vec![0; pipeline.instances.len()];
        for (node, members) in groups.iter().enumerate() {
            for &member in members {
                home[member] = node;
            }
        }
        let node = |members: &Vec<usize>| {
            let first = &pipeline.instances[members[0]];
            let inputs = members.iter().flat_map(|&member| pipeline.instances[member].inputs.values());
            let inputs: BTreeSet<usize> = inputs.map(|&from| home[from]).collect();
            let all: BTreeSet<State> = members.iter().map(|&member| states[member]).collect();
            let cell = first.cell.iter().map(|(axis, value)| format!("{axis}={}", plain(value)));
            Node {
                stage: first.stage.clone(),
                name: cells.then(|| first.name.clone()),
                cell: if cells { cell.collect::<Vec<_>>().join(", ") } else { String::new() },
                cells: members.len(),
                uses: first.kind.info().name,
                state: if all.len() == 1 { states[members[0]] } else { State::Mixed },
                cached: members.iter().filter(|&&member| states[member] == State::Cached).count(),
                inputs: inputs.into_iter().collect(),
            }
        };
        Self { name: pipeline.name.clone(), nodes: groups.iter().map(node).collect() }
    }

    /// The inputs of each node without those that come to it through another input as well.
    pub fn reduced(&self) -> Vec<Vec<usize>> {
        let mut above: Vec<BTreeSet<usize>> = Vec::new();
        for node in &self.nodes {
            let mut all: BTreeSet<usize> = node.inputs.iter().copied().collect();
            for &from in &node.inputs {
                all.extend(above[from].iter().copied());
            }
            above.push(all);
        }
        let keep = |node: &Node| {
            let implied = |from: &usize| node.inputs.iter().any(|&other| above[other].contains(from));
            node.inputs.iter().copied().filter(|from| !implied(from)).collect()
        };
        self.nodes.iter().map(keep).collect()
    }

    /// Nodes, states and inputs for programs.
    pub fn json(&self) -> String {
        let node = |node: &Node| {
            let inputs: Vec<String> = node.inputs.iter().map(|&from| self.nodes[from].title()).collect();
            json!({
                "name": node.title(),
                "stage": node.stage,
                "uses": node.uses,
                "cells": node.cells,
                "state": node.state.class(),
                "cached": node.cached,
                "inputs": inputs,
            })
        };
        let nodes: Vec<_> = self.nodes.iter().map(node).collect();
        format!("{:#}\n", json!({ "pipeline": self.name, "nodes": nodes }))
    }
}
