//! Whole pipelines on tiny models of all three families.

mod common;

use common::{Bench, PIPELINE, artifact, ridged};
use palinode_edit::with_edits;
use palinode_engine::{ErrorKind, Outcome};
use palinode_math::{Delta, LowRank, from_row_major};
use palinode_model::{Decoder, Text, WeightId};
use safetensors::SafeTensors;
use serde_json::Value;

const FAMILIES: [&str; 3] = ["gpt2", "gptj-tiny", "llama-tiny"];

fn logits(decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    let rows = decoder.rows(&[ids]);
    let hidden = decoder.hidden(&rows).unwrap().at(&rows.all());
    decoder.logits(hidden).into_data().convert::<f32>().try_into_vec().unwrap()
}

#[test]
fn every_objective_with_every_distribution_on_every_family() {
    for family in FAMILIES {
        let bench = Bench::new();
        let yaml = ridged().replace("MODEL", family);
        let first = bench.ran(&yaml);
        // Model, edits, contexts, moments and targets once; two plans; update, scores and out for six cells.
        assert_eq!(first.len(), 5 + 2 + 3 * 6, "{first:?}");
        assert!(bench.ran(&yaml).is_empty());
    }
}

#[test]
fn a_change_runs_what_it_touches() {
    let bench = Bench::new();
    let yaml = PIPELINE.replace("MODEL", "gpt2");
    bench.ran(&yaml);
    let touched = bench.ran(&yaml.replace("emmet_lambda: 0.1", "emmet_lambda: 0.2"));
    assert!(!touched.is_empty() && touched.iter().all(|name| name.contains("objective=emmet")), "{touched:?}");
    // A distribution that was not there before needs neither second moments nor targets again.
    let bench = Bench::new();
    bench.ran(&yaml.replace("strategy: [single, memit]", "strategy: [single]"));
    let touched = bench.ran(&yaml);
    assert!(touched.iter().all(|name| name.contains("strategy=memit")), "{touched:?}");
    assert_eq!(touched.len(), 1 + 3 * 3);
}

#[test]
fn strategies_differ_only_in_what_they_say() {
    let bench = Bench::new();
    let yaml = |strategy: &str| {
        PIPELINE
            .replace("MODEL", "gpt2")
            .replace("[rome, memit, emmet]", "[memit]")
            .replace("strategy: [single, memit]", "strategy: [memit]")
            .replace("strategy: '${matrix.strategy}', layers: [0, 1]", &format!("layers: [0, 1], {strategy}"))
    };
    let factors = |strategy: &str| {
        let report = bench.run(&yaml(strategy));
        artifact(&report, "update[objective=memit]").files["factors.safetensors"].digest
    };
    let memit = factors("strategy: memit");
    assert_eq!(factors("strategy: weights, weights: [2, 2]"), memit);
    assert_eq!(factors("strategy: uniform, refresh: both"), memit);
    assert_eq!(factors("strategy: uniform"), factors("strategy: memit, refresh: none"));
    let others =
        ["strategy: sqrt", "strategy: uniform", "strategy: memit, refresh: keys", "strategy: weights, weights: [1, 9]"];
    for other in others {
        assert_ne!(factors(other), memit, "{other}");
    }
}

#[test]
fn a_boundary_is_two_edits_one_after_the_other() {
    let bench = Bench::new();
    let yaml = PIPELINE
        .replace("MODEL", "gpt2")
        .replace("[rome, memit, emmet]", "[memit]")
        .replace("[single, memit]", "[boundary]")
        .replace("layer: 1, steps: 6", "layer: 0, steps: 6");
    let report = bench.run(&yaml);
    let update = artifact(&report, "update[objective=memit,strategy=boundary]");
    let factors = SafeTensors::deserialize(&std::fs::read(bench.blob(update, "factors.safetensors")).unwrap())
        .map(|tensors| tensors.names().into_iter().map(str::to_owned).collect::<Vec<_>>())
        .unwrap();
    assert_eq!(factors.len(), 4, "{factors:?}");
    // The first step is an edit of the first layer alone, with the targets that the stage found.
    let alone = bench.run(
        &yaml
            .replace("[boundary]", "[single]")
            .replace("strategy: '${matrix.strategy}', layers: [0, 1]", "strategy: single, layers: [0]"),
    );
    let alone = artifact(&alone, "update[objective=memit]");
    let of = |artifact, name: &str| {
        let bytes = std::fs::read(bench.blob(artifact, "factors.safetensors")).unwrap();
        SafeTensors::deserialize(&bytes).unwrap().tensor(name).unwrap().data().to_vec()
    };
    assert!(of(update, "batch0.layer0.left") == of(alone, "batch0.layer0.left"));
}

#[test]
fn the_exported_model_is_the_edited_one() {
    for family in FAMILIES {
        let bench = Bench::new();
        let lower = ridged();
        bench.ran(&lower.replace("MODEL", family));
        let base = bench.decoder(family);
        let text = Text::open(&bench.path(family).join("tokenizer.json")).unwrap();
        let ids = text.encode("The tall tower stands in").unwrap();
        for cell in ["memit-memit", "emmet-single", "rome-single"] {
            let folder = format!("out/{cell}");
            let bytes = std::fs::read(bench.path(&folder).join("update.safetensors")).unwrap();
            let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
            let metadata = header.metadata().clone().unwrap();
            let provenance: Value = serde_json::from_str(&metadata["palinode"]).unwrap();
            assert_eq!(provenance["format"], "update.v1");
            assert_eq!(provenance["objective"]["objective"], cell.split('-').next().unwrap());
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let matrix = |name: String| {
                let view = file.tensor(&name).unwrap();
                let values: Vec<f32> =
                    view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
                from_row_major("factor", &values, view.shape()[0], view.shape()[1]).unwrap()
            };
            let layout = palinode_model::Layout::of(base.config());
            let updates: Vec<(WeightId, Delta)> = (0..3)
                .filter(|&layer| file.tensor(&format!("{}.left", layout.edited_weight(layer))).is_ok())
                .map(|layer| {
                    let name = layout.edited_weight(layer);
                    let low = LowRank { left: matrix(format!("{name}.left")), right: matrix(format!("{name}.right")) };
                    (WeightId::down(layer), low.into())
                })
                .collect();
            assert_eq!(updates.len(), if cell.ends_with("single") { 1 } else { 2 });
            let edited = with_edits(&base, updates.iter().map(|(weight, delta)| (*weight, delta))).unwrap();
            let exported = logits(&bench.decoder(&folder), &ids);
            let difference = |other: &[f32]| exported.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let (moved, off) = (difference(&logits(&base, &ids)), difference(&logits(&edited, &ids)));
            assert!(moved > 1e-3, "{family} {cell}: the edit changed logits by {moved} only");
            assert!(off < 1e-5 * moved.max(1.0), "{family} {cell}: exported and edited logits differ by {off}");
        }
    }
}

#[test]
fn exported_files_come_back_when_they_are_lost() {
    let bench = Bench::new();
    let yaml = PIPELINE.replace("MODEL", "gpt2");
    bench.ran(&yaml);
    let path = bench.path("out/emmet-single/update.safetensors");
    let before = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(bench.ran(&yaml), ["out[objective=emmet,strategy=single]"]);
    assert!(std::fs::read(&path).unwrap() == before);
}

#[test]
fn metrics_are_those_of_the_records() {
    let bench = Bench::new();
    let report = bench.run(&PIPELINE.replace("MODEL", "llama-tiny"));
    for cell in ["objective=memit,strategy=single", "objective=rome,strategy=memit"] {
        let scores = artifact(&report, &format!("scores[{cell}]"));
        let metrics = scores.meta["metrics"].as_object().unwrap();
        for name in ["S", "ES", "PS", "NS", "EM", "PM", "NM", "EA", "PA", "NA", "before_ES", "before_NS"] {
            assert!(metrics[name].as_f64().unwrap().is_finite(), "{name}");
        }
        assert_eq!(scores.meta["samples"].as_array().unwrap().len(), 2);
        let update = artifact(&report, &format!("update[{cell}]"));
        let metrics = update.meta["metrics"].as_object().unwrap();
        assert!(metrics["distance_after"].as_f64().unwrap() < metrics["distance_before"].as_f64().unwrap());
        assert_eq!(update.meta["batches"], if cell.contains("rome") { 4 } else { 1 });
        // The unedited model is the same in every cell.
        let base = artifact(&report, "scores[objective=emmet,strategy=memit]");
        assert_eq!(scores.meta["metrics"]["before_EM"], base.meta["metrics"]["before_EM"]);
    }
}

#[test]
fn an_equality_meets_its_constraints_and_strength_softens_it() {
    let bench = Bench::new();
    let yaml = PIPELINE.replace("MODEL", "gpt2").replace("emmet_lambda: 0.1", "emmet_lambda: 0");
    let error = |yaml: &str| {
        let report = bench.run(yaml);
        let metrics = &artifact(&report, "update[objective=emmet,strategy=single]").meta["metrics"];
        metrics["error_after"].as_f64().unwrap() / metrics["distance_before"].as_f64().unwrap()
    };
    assert!(error(&yaml) < 1e-6);
    let softer =
        common::REQUESTS.replace(r#""subject": "The tall tower""#, r#""strength": 5, "subject": "The tall tower""#);
    std::fs::write(bench.path("requests.jsonl"), softer).unwrap();
    assert!(error(&yaml) > 1e-3);
}

#[test]
fn an_exported_update_is_the_edit_it_was() {
    let bench = Bench::new();
    let yaml = PIPELINE
        .replace("MODEL", "gpt2")
        .replace("[rome, memit, emmet]", "[memit]")
        .replace("strategy: [single, memit]", "strategy: [memit]");
    let solved = bench.run(&yaml);
    let load = |model: &str, force: bool| {
        format!(
            "
name: again
stages:
  model: {{ uses: load_model, with: {{ path: {model} }} }}
  edits: {{ uses: load_requests, with: {{ dataset: jsonl, path: requests.jsonl }} }}
  update: {{ uses: load_update, inputs: {{ model: model }}, with: {{ path: out/memit-memit/update.safetensors, force: {force} }} }}
  scores: {{ uses: evaluate, inputs: {{ model: update, requests: edits }}, with: {{ samples: 2 }} }}
"
        )
    };
    let loaded = bench.run(&load("gpt2", false));
    let scores = |report, name: &str| artifact(report, name).meta["metrics"].as_object().unwrap().clone();
    let (ours, theirs) = (scores(&loaded, "scores"), scores(&solved, "scores[objective=memit,strategy=memit]"));
    for (name, value) in &theirs {
        // The file is in single precision.
        assert!((ours[name].as_f64().unwrap() - value.as_f64().unwrap()).abs() < 1e-4, "{name}");
    }
    // Other weights of the same shapes: refused, unless it is wanted. Other shapes: refused.
    let weights = bench.path("gpt2/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let refused = |yaml: &str| {
        let report = bench.run(yaml);
        let (stage, kind) = report.failure().map(|(stage, kind)| (stage.outcome.clone(), kind)).unwrap();
        let Outcome::Failed { message, .. } = stage else { unreachable!() };
        assert_eq!(kind, ErrorKind::Input);
        message
    };
    assert!(refused(&load("gpt2", false)).contains("made for another model.safetensors"));
    bench.ran(&load("gpt2", true));
    assert!(refused(&load("gptj-tiny", true)).contains("it calls its weight transformer.h.0.mlp.fc_out.weight"));
}

#[test]
fn preflight_finds_what_would_spoil_an_edit() {
    let bench = Bench::new();
    let lines: Vec<&str> = common::REQUESTS.lines().collect();
    let against = lines[0].replace("\"tower\"", "\"other\"").replace("\"Rome\"", "\"Oslo\"");
    let again = lines[1].replace("\"poet\"", "\"again\"");
    std::fs::write(bench.path("requests.jsonl"), [common::REQUESTS, &against, "\n", &again].concat()).unwrap();
    let yaml = |strict: bool| {
        format!(
            "
name: check
stages:
  model: {{ uses: load_model, with: {{ path: gpt2 }} }}
  edits: {{ uses: load_requests, with: {{ dataset: jsonl, path: requests.jsonl }} }}
  moments: {{ uses: covariance, inputs: {{ model: model }}, with: {{ corpus: corpus.txt, layers: [1], samples: 8 }} }}
  check:
    uses: preflight
    inputs: {{ model: model, requests: edits, moments: moments }}
    with: {{ layer: 1, cosine: 0.999, strict: {strict} }}
"
        )
    };
    let report = bench.run(&yaml(false));
    let meta = &artifact(&report, "check").meta;
    let findings: Vec<&str> = meta["findings"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    for words in [
        "requests poet and again are the same",
        "requests tower and other ask for different targets",
        "have cosine 1.000 at layer 1",
        "the second moment of layer 1 is of",
    ] {
        assert!(findings.iter().any(|finding| finding.contains(words)), "{words}: {findings:#?}");
    }
    assert_eq!(meta["samples"][0]["key read at"], "\"er\", token 6 of 10");
    let strict = bench.run(&yaml(true));
    let (stage, kind) = strict.failure().unwrap();
    assert_eq!((stage.instance.as_str(), kind), ("check", ErrorKind::Input));
}
