//! Keys and targets of every family against numbers that plain torch code computed on the same small models
//! (scripts/make_family_fixtures.py), with the tolerances of the golden folder; and what a written value does.

mod family;

use family::{Family, families, losses, metric, request};
use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{
    Edit, EditError, Moments, Preservations, Prompt, Site, Tap, apply, no_tokens, optimise, probe, prompts, with_edits,
};
use palinode_golden::relative;
use palinode_math::{Objective, RomeKey, SecondMoment, Strategy};
use palinode_model::{Beyond, Decoder, WeightId, log_softmax, read};

#[test]
fn keys_in_every_layer() {
    for family in families() {
        let weighted = family.templates.weighted();
        let config = family.decoder.config();
        let request = request(&family.numbers.json("edit.json").field("request"));
        let row = |template: &str| prompts::prompt(&family.text, config, &request, template).unwrap();
        let rows: Vec<Prompt> = weighted.iter().map(|(template, _)| row(template)).collect();
        let taps: Vec<Tap> = (0..config.layers).map(|layer| Tap { layer, site: Site::Key }).collect();
        let expected = family.numbers.tensors("edit.safetensors");
        let mut worst = 0f64;
        for (layer, keys) in probe(&family.decoder, &rows, &taps, 4096).unwrap().iter().enumerate() {
            let f = config.key_size(layer);
            let mean = |i: usize| weighted.iter().enumerate().map(|(t, (_, w))| w * f64::from(keys[t * f + i])).sum();
            let key: Vec<f64> = (0..f).map(mean).collect();
            worst = worst.max(relative(&key, &expected.values(&format!("layer{layer}.key"))));
        }
        println!("{}: keys {worst:.1e}", family.name);
        assert!(worst < 1e-5, "{}: {worst}", family.name);
    }
}

#[test]
fn a_target_step_by_step() {
    for family in families() {
        let facts = family.numbers.json("edit.json");
        let request = [request(&facts.field("request"))];
        assert_eq!(
            family.text.encode_target(&request[0].target_new).unwrap(),
            facts.field("target").ids(),
            "{}",
            family.name
        );
        let found =
            optimise(&family.decoder, &family.text, &request, &family.templates, &family.settings, |_| {}).unwrap();
        let (early, late) = losses(found[0].trace.iter().map(|step| step.loss), &facts.field("losses"));
        let expected = family.numbers.tensors("edit.safetensors");
        let initial = relative(&found[0].initial, &expected.values("initial"));
        let z = relative(&found[0].value(), &expected.values("z"));
        println!("{}: losses {early:.1e} {late:.1e}, start {initial:.1e}, z {z:.1e}", family.name);
        assert!(early < 1e-4 && late < 1e-3 && initial < 1e-5 && z < 1e-3, "{}: {early} {late} {z}", family.name);
    }
}

/// The second moment of the settings' layer over the documents of `methods.safetensors`.
fn moment(family: &Family) -> SecondMoment {
    let numbers = family.numbers.tensors("methods.safetensors");
    let (length, tokens) = (numbers.shape("documents")[1], numbers.ids("documents"));
    let documents: Vec<Vec<u32>> = tokens.chunks_exact(length).map(<[u32]>::to_vec).collect();
    let layer = family.settings.layer;
    let mut moments = Moments::new();
    moments.insert(&family.decoder, layer, no_tokens(family.decoder.config(), layer)).unwrap();
    moments.add(&family.decoder, &documents, 1024).unwrap();
    moments.layers().unwrap()[&layer].clone()
}

/// Mean log-likelihood of the target's tokens after the bare prompt.
fn likelihood(decoder: &Decoder, family: &Family, request: &EditRequest) -> f64 {
    let rows = prompts::rewrite_prompts(&family.text, decoder.config(), request, &["{}"]).unwrap();
    let (ids, target) = (&rows.rows[0].ids, &rows.target);
    let batch = decoder.rows(&[ids]);
    let last = batch.places((0..target.len()).map(|i| (0, ids.len() - target.len() + i)));
    let logits = decoder.logits(decoder.hidden(&batch).unwrap().at(&last));
    let log_p: Vec<f32> = read(log_softmax(logits)).unwrap();
    let vocab = decoder.config().vocab;
    target.iter().enumerate().map(|(i, t)| f64::from(log_p[i * vocab + *t as usize])).sum::<f64>() / target.len() as f64
}

/// Written at the bare prompt's key, the value that this prompt asks for is what the projection then gives, whatever stands between it and the hidden state; the
/// target is more likely, and exactly as likely as torch finds it with the same change.
#[test]
fn a_written_value_is_what_the_projection_gives() {
    for family in families() {
        let facts = family.numbers.json("edit.json");
        let request = request(&facts.field("request"));
        let requests = [request.clone()];
        let layer = family.settings.layer;
        let bare = ContextTemplates { groups: vec![vec!["{}".into()]] };
        let found = optimise(&family.decoder, &family.text, &requests, &bare, &family.settings, |_| {}).unwrap();
        let value = found[0].value();
        let plan = Strategy::Single.plan(&[layer]).unwrap();
        let edit = Edit {
            objective: Objective::Rome { key: RomeKey::Bare },
            plan: &plan,
            templates: &bare,
            targets: family.settings,
            parallel_requests: 1,
            tokens: 4096,
        };
        let metrics = Preservations::from([(WeightId::down(layer), metric(&moment(&family), 1.0))]);
        let applied = apply(&family.decoder, &family.text, &requests, &value, &metrics, &edit).unwrap();
        let edited = with_edits(&family.decoder, applied.layers.iter().map(|edit| (edit.weight, &edit.delta))).unwrap();

        let config = family.decoder.config();
        let prompt = prompts::prompt(&family.text, config, &request, "{}").unwrap();
        let at = |decoder: &Decoder, site: Site| -> Vec<f64> {
            let found = probe(decoder, std::slice::from_ref(&prompt), &[Tap { layer, site }], 4096).unwrap().remove(0);
            found.into_iter().map(f64::from).collect()
        };
        let (before, after) = (at(&family.decoder, Site::MlpOutput), at(&edited, Site::MlpOutput));
        let wanted: Vec<f64> = match config.beyond() {
            Beyond::Norm => value.iter().map(|v| f64::from(*v)).collect(),
            beyond => {
                let part = if let Beyond::Multiplier(multiplier) = beyond { multiplier } else { 1.0 };
                let hidden = at(&family.decoder, Site::BlockOutput);
                let missing = value.iter().zip(&hidden).map(|(v, h)| (f64::from(*v) - h) / part);
                before.iter().zip(missing).map(|(m, missing)| m + missing).collect()
            }
        };
        let off = relative(&after, &wanted);
        let [p, q] = [&family.decoder, &edited].map(|decoder| likelihood(decoder, &family, &request));
        let [theirs, risen] = ["before", "after"].map(|name| facts.field("log_p").field(name).number());
        println!("{}: value {off:.1e}, log p {p:.4} to {q:.4}, in torch {theirs:.4} to {risen:.4}", family.name);
        assert!(off < 1e-4, "{}: {off}", family.name);
        assert!(q > p, "{}: {p} {q}", family.name);
        assert!((p - theirs).abs() < 1e-4 && (q - risen).abs() < 2e-3, "{}: {p} {q}", family.name);
    }
}

/// Where a norm stands behind the feed-forward, no layer takes what is missing at another one.
#[test]
fn what_is_missing_behind_a_norm_stays_in_its_layer() {
    let behind: Vec<Family> =
        families().into_iter().filter(|family| family.decoder.config().beyond() == Beyond::Norm).collect();
    assert!(behind.len() >= 5);
    for family in behind {
        let request = request(&family.numbers.json("edit.json").field("request"));
        let value = vec![0.0; family.decoder.config().hidden];
        let refused = |strategy: Strategy| {
            let plan = strategy.plan(&[0, 1]).unwrap();
            let edit = Edit {
                objective: Objective::Memit,
                plan: &plan,
                templates: &family.templates,
                targets: family.settings,
                parallel_requests: 1,
                tokens: 4096,
            };
            let requests = [request.clone()];
            apply(&family.decoder, &family.text, &requests, &value, &Preservations::new(), &edit).unwrap_err()
        };
        for strategy in [Strategy::Memit, Strategy::Sqrt, Strategy::Uniform] {
            let error = refused(strategy);
            assert!(matches!(error, EditError::BehindNorm { layer: 0, aim: 1, .. }), "{error}");
            assert!(error.to_string().starts_with(family.decoder.config().family.name()), "{error}");
        }
        // Layers with targets of their own come as far as the metrics, which there are none of.
        assert!(matches!(refused(Strategy::Forward), EditError::Mismatch(_)), "{}", family.name);
    }
}

/// Of an edit's experts, one that the corpus did not show enough of is named with its count; one that no key is routed to is not needed.
#[test]
fn an_expert_that_saw_too_little_is_named() {
    for family in families().into_iter().filter(|family| family.decoder.config().experts.is_some()) {
        let config = family.decoder.config();
        let layer = family.settings.layer;
        let requests = [request(&family.numbers.json("edit.json").field("request"))];
        let bare = ContextTemplates { groups: vec![vec!["{}".into()]] };
        let plan = Strategy::Single.plan(&[layer]).unwrap();
        let edit = Edit {
            objective: Objective::Memit,
            plan: &plan,
            templates: &bare,
            targets: family.settings,
            parallel_requests: 1,
            tokens: 4096,
        };
        let experts = config.mixture(layer).unwrap();
        let prompt = prompts::prompt(&family.text, config, &requests[0], "{}").unwrap();
        let key = probe(&family.decoder, &[prompt], &[Tap { layer, site: Site::Key }], 4096).unwrap().remove(0);
        let used: Vec<bool> = experts.parts().into_iter().map(|part| key[part].iter().any(|x| *x != 0.0)).collect();
        let routed = experts.top + usize::from(experts.shared.is_some());
        assert_eq!(used.iter().filter(|used| **used).count(), routed, "{}", family.name);
        let whole = moment(&family);
        for (part, range) in experts.parts().into_iter().enumerate() {
            // As if the corpus had shown one token to this expert.
            let sums: Vec<(Vec<f64>, usize, u64)> = (0..whole.parts())
                .map(|at| {
                    let size = experts.parts()[at].len();
                    let sum = whole.part_rows(at).map(|value| if at == part { 0.0 } else { value }).collect();
                    (sum, size, if at == part { 1 } else { whole.part_counts()[at] })
                })
                .collect();
            let sums = sums.iter().map(|(sum, size, count)| (sum.as_slice(), *size, *count));
            let moment = SecondMoment::from_part_sums(sums, whole.count()).unwrap();
            let metrics = Preservations::from([(WeightId::down(layer), metric(&moment, 1.0))]);
            let value = vec![0.0; config.hidden];
            let found = apply(&family.decoder, &family.text, &requests, &value, &metrics, &edit);
            let Err(error) = found else {
                assert!(!used[part], "{} {part}", family.name);
                continue;
            };
            assert!(used[part], "{} {part}: {error}", family.name);
            let wanted = format!(
                "layer {layer}: a key is routed to {}, which saw 1 tokens of the corpus: they do not span the {} dimensions of its keys",
                experts.id(part).words(),
                range.len()
            );
            assert_eq!(error.to_string(), wanted);
        }
    }
}
