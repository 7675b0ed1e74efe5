//! The dependency rule of ARCHITECTURE.md, checked against what cargo says.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Which of our crates each of them may use.
const RULE: [(&str, &[&str]); 12] = [
    ("palinode-engine", &[]),
    ("palinode-math", &[]),
    ("palinode-model", &[]),
    ("palinode-data", &[]),
    ("palinode-hub", &[]),
    ("palinode-edit", &["palinode-math", "palinode-model", "palinode-data"]),
    ("palinode-eval", &["palinode-model", "palinode-data"]),
    // Data in, text out: a report knows no store, no stage and no metric.
    ("palinode-report", &[]),
    (
        // Stages know what the files in their artifacts mean, so they are who reads them for a report.
        "palinode-stages",
        &[
            "palinode-engine",
            "palinode-math",
            "palinode-model",
            "palinode-data",
            "palinode-hub",
            "palinode-edit",
            "palinode-eval",
            "palinode-report",
        ],
    ),
    ("palinode", &["palinode-engine", "palinode-stages", "palinode-report"]),
    ("demo-model", &["palinode-model"]),
    // It reads golden numbers; only its tests use ours.
    ("palinode-golden", &[]),
];

/// Packages of others that belong to one crate, or to a few, and why that is so.
const HOME: [(&[&str], &[&str]); 11] = [
    // The store and the pipeline file have one reader each.
    (&["sled", "serde_yaml", "petgraph", "saphyr-parser"], &["palinode-engine"]),
    // One language of expressions: in pipeline files, and in the templates of reports.
    (&["minijinja"], &["palinode-engine", "palinode-report"]),
    // Tensors: the engine and the mathematics never see one.
    (&["burn"], &["palinode-model", "palinode-edit", "palinode-eval", "demo-model"]),
    // One crate knows what a card is.
    (&["cubecl-cuda", "cudarc"], &["palinode-model"]),
    (&["tokenizers"], &["palinode-model", "demo-model"]),
    // Published second moments have one reader, and so have published weights of words; results travel in archives of the kind of
    // the first.
    (&["npyz"], &["palinode-edit", "palinode-data"]),
    (&["zip"], &["palinode-edit", "palinode-engine"]),
    (&["faer"], &["palinode-math"]),
    // The network has one door, and packed files one reader.
    (&["ureq"], &["palinode-hub"]),
    (&["parquet", "zstd", "snap"], &["palinode-data"]),
    // Only the command line prints, reads arguments, or ends the process.
    (&["clap", "miette", "indicatif", "comfy-table", "ctrlc", "tracing-subscriber"], &["palinode", "demo-model"]),
];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let uses = package["dependencies"].as_array().expect("dependencies").iter();
            // What tests use is their own business.
            let uses =
                uses.filter(|dependency| dependency["kind"].is_null()).map(|dependency| text(&dependency["name"]));
            (text(&package["name"]), uses.collect())
        })
        .collect()
}

#[test]
fn crates_use_what_the_rule_allows() {
    let found = dependencies();
    let known: BTreeSet<&str> = RULE.iter().map(|(name, _)| *name).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<BTreeSet<_>>(), known, "every crate has a rule");
    for (name, allowed) in RULE {
        let ours: Vec<&str> = found[name].iter().map(String::as_str).filter(|used| known.contains(used)).collect();
        for used in ours {
            assert!(allowed.contains(&used), "{name} must not use {used}: see ARCHITECTURE.md");
        }
    }
}

#[test]
fn packages_stay_at_home() {
    for (name, uses) in dependencies() {
        for (packages, homes) in HOME {
            for package in packages {
                let at_home = homes.contains(&name.as_str());
                assert!(at_home || !uses.contains(*package), "{name} must not use {package}: see ARCHITECTURE.md");
            }
        }
    }
}
