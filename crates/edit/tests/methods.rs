//! Every method on every family, from the prompts to the change of each weight, against plain torch code on the same small models
//! (scripts/make_family_fixtures.py), with the tolerances of the golden folder. Second moments are over tokens drawn at random.

mod family;

use std::collections::BTreeMap;

use family::{Family, families, losses, metric, request, whole_change};
use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{Edit, Moments, Preservations, TargetSettings, TargetSite, apply, no_tokens, optimise};
use palinode_golden::{Tensors, relative};
use palinode_math::{Mat, Objective, RomeKey, SecondMoment, Strategy, from_row_major};
use palinode_model::WeightId;

fn moments(family: &Family, numbers: &Tensors) -> BTreeMap<usize, SecondMoment> {
    let length = numbers.shape("documents")[1];
    let tokens = numbers.ids("documents");
    let documents: Vec<Vec<u32>> = tokens.chunks_exact(length).map(<[u32]>::to_vec).collect();
    let mut moments = Moments::new();
    for layer in 0..family.decoder.config().layers {
        let empty = no_tokens(family.decoder.config(), layer);
        moments.insert(&family.decoder, layer, empty).unwrap();
    }
    for block in documents.chunks(16) {
        moments.add(&family.decoder, block, 256).unwrap();
    }
    moments.layers().unwrap().clone()
}

/// A change as values, row by row.
fn rows(change: &Mat<f64>) -> Vec<f64> {
    (0..change.nrows()).flat_map(|i| (0..change.ncols()).map(move |j| change[(i, j)])).collect()
}

/// A stored matrix, or a vector as a column.
fn matrix(numbers: &Tensors, name: &str) -> Mat<f64> {
    let (shape, values) = numbers.floats(name);
    from_row_major("matrix", &values, shape[0], shape.get(1).copied().unwrap_or(1)).unwrap().to_owned()
}

#[test]
fn second_moments() {
    for family in families() {
        let numbers = family.numbers.tensors("methods.safetensors");
        let mut worst = 0f64;
        for (layer, moment) in moments(&family, &numbers) {
            let mean = moment.mean();
            let n = moment.size();
            assert_eq!(moment.count() as usize, numbers.ids("documents").len());
            let diag: Vec<f64> = (0..n).map(|i| mean[(i, i)]).collect();
            let sine = |j: usize| (0.37 * j as f64 + 0.1).sin();
            let product: Vec<f64> = (0..n).map(|i| (0..n).map(|j| mean[(i, j)] * sine(j)).sum()).collect();
            worst = worst.max(relative(&diag, &numbers.values(&format!("layer{layer}.diag"))));
            worst = worst.max(relative(&product, &numbers.values(&format!("layer{layer}.times_sin_vector"))));
        }
        println!("{}: second moments {worst:.1e}", family.name);
        assert!(worst < 1e-5, "{}: {worst}", family.name);
    }
}

/// Two requests over two layers, the second of which sees the first one's change; in one where a norm stands behind the feed-forward.
#[test]
fn memit_and_emmet() {
    for family in families() {
        let numbers = family.numbers.tensors("methods.safetensors");
        let facts = family.numbers.json("methods.json");
        let requests: Vec<EditRequest> = facts.field("requests").list().iter().map(request).collect();
        let targets =
            optimise(&family.decoder, &family.text, &requests, &family.templates, &family.settings, |_| {}).unwrap();
        for (target, theirs) in targets.iter().zip(facts.field("losses").list()) {
            let (early, late) = losses(target.trace.iter().map(|step| step.loss), &theirs);
            assert!(early < 1e-4 && late < 1e-3, "{}: losses {early} {late}", family.name);
        }
        let values: Vec<f32> = targets.iter().flat_map(palinode_edit::Target::value).collect();
        let z = relative(&values, &numbers.values("zs"));
        assert!(z < 1e-3, "{}: z {z}", family.name);

        let solve = facts.field("solve");
        let layers = solve.field("layers").wholes();
        let lambda = solve.field("lambda").number();
        let moments = moments(&family, &numbers);
        let metrics: Preservations =
            layers.iter().map(|&layer| (WeightId::down(layer), metric(&moments[&layer], lambda))).collect();
        let plan = Strategy::Memit.plan(&layers).unwrap();
        let emmet = Objective::Emmet { epsilon: solve.field("emmet_lambda").number() };
        for (name, objective) in [("memit", Objective::Memit), ("emmet", emmet)] {
            let edit = Edit {
                objective,
                plan: &plan,
                templates: &family.templates,
                targets: family.settings,
                parallel_requests: 32,
                tokens: 4096,
            };
            let edits = apply(&family.decoder, &family.text, &requests, &values, &metrics, &edit).unwrap().layers;
            let mut changed: Vec<usize> = edits.iter().map(|edit| edit.weight.layer).collect();
            changed.dedup();
            assert_eq!(changed, layers);
            for &layer in &layers {
                let stored = |what: &str| matrix(&numbers, &format!("{name}.layer{layer}.{what}"));
                let theirs = stored("resid") * stored("adj_k").transpose();
                let ours = whole_change(family.decoder.config(), layer, &edits);
                let difference = relative(&ours, &rows(&theirs));
                println!("{} {name} layer {layer}: {difference:.1e}", family.name);
                assert!(difference < 2e-4, "{} {name} layer {layer}: {difference}", family.name);
            }
        }
    }
}

/// One request in one layer, with a target for the MLP's output and a plain mean over all templates.
#[test]
fn rome() {
    for family in families() {
        let numbers = family.numbers.tensors("methods.safetensors");
        let facts = family.numbers.json("methods.json");
        let requests = [request(&facts.field("requests").list()[0])];
        let layer = family.settings.layer;
        let settings = TargetSettings { site: TargetSite::MlpOutput, ..family.settings };
        let flat = ContextTemplates { groups: vec![family.templates.groups.concat()] };
        let grouped = &family.templates;
        // The loss is a plain mean over templates too, however they are grouped; only keys are weighted.
        let target = optimise(&family.decoder, &family.text, &requests, grouped, &settings, |_| {}).unwrap().remove(0);
        let (early, late) = losses(target.trace.iter().map(|step| step.loss), &facts.field("rome_losses"));
        let initial = relative(&target.initial, &numbers.values("rome.initial"));
        let v = relative(&target.value(), &numbers.values("rome.v"));
        println!("{}: losses {early:.1e} {late:.1e}, start {initial:.1e}, v {v:.1e}", family.name);
        assert!(early < 1e-4 && late < 1e-3 && initial < 1e-5 && v < 1e-3, "{}: {early} {late} {v}", family.name);

        let plan = Strategy::Single.plan(&[layer]).unwrap();
        let edit = Edit {
            objective: Objective::Rome { key: RomeKey::Reference },
            plan: &plan,
            templates: &flat,
            targets: settings,
            parallel_requests: 1,
            tokens: 4096,
        };
        let metrics = Preservations::from([(WeightId::down(layer), metric(&moments(&family, &numbers)[&layer], 1.0))]);
        let edits = apply(&family.decoder, &family.text, &requests, &target.value(), &metrics, &edit).unwrap().layers;
        let theirs = matrix(&numbers, "rome.right") * matrix(&numbers, "rome.left").transpose();
        let difference = relative(&whole_change(family.decoder.config(), layer, &edits), &rows(&theirs));
        println!("{} rome: {difference:.1e}", family.name);
        assert!(difference < 2e-4, "{} rome: {difference}", family.name);
    }
}
