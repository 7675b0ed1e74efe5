//! The shortcuts of target optimisation change nothing: one step's loss against whole forward passes, and many requests
//! at once against one by one. On small random models of two families.

use std::path::Path;

use burn::tensor::{Device, Tensor, activation};
use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{TargetSettings, TargetSite, optimise, prompts};
use palinode_model::{Checkpoint, Compute, Decoder, DecoderConfig, Text};

fn model(name: &str) -> (Decoder, Text) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures").join(name);
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let config = DecoderConfig::from_hf(&config, &folder).unwrap();
    let checkpoint = Checkpoint::open(&[folder.join("model.safetensors")]).unwrap();
    let decoder = Decoder::load(&checkpoint, &config, &Device::flex()).unwrap();
    (decoder, Text::open(&folder.join("tokenizer.json")).unwrap())
}

fn requests() -> Vec<EditRequest> {
    let one = |subject: &str, prompt: &str, target: &str| EditRequest {
        id: subject.into(),
        prompt: prompt.into(),
        subject: subject.into(),
        target_new: target.into(),
        ..EditRequest::default()
    };
    vec![
        one("Oslo", "{} is a city in", "Peru"),
        one("The old lighthouse keeper", "The home of {} was in the town of", "South Africa"),
        one("Ada", "What {} liked best was", "tea with milk and honey"),
    ]
}

fn templates() -> ContextTemplates {
    ContextTemplates::from_openings(&["The weather had been fine for days", "Because"])
}

fn settings() -> TargetSettings {
    TargetSettings {
        fact_token: palinode_edit::FactToken::default(),
        site: TargetSite::BlockOutput,
        layer: 1,
        steps: 6,
        learning_rate: 0.5,
        kl_factor: 0.0625,
        weight_decay: 0.5,
        clamp: 0.75,
        stop_loss: 0.05,
        rules: palinode_edit::TargetRules::default(),
    }
}

/// The loss by whole forward passes, one prompt at a time, δ added after the layer's block.
fn plain_loss(decoder: &Decoder, text: &Text, request: &EditRequest, delta: &[f32], s: &TargetSettings) -> [f32; 2] {
    let all = templates();
    let openings: Vec<&str> = all.weighted().into_iter().map(|(t, _)| t).collect();
    let rows = prompts::rewrite_prompts(text, decoder.config(), request, &openings).unwrap();
    let d = decoder.config().hidden;
    let log_p = |ids: &[u32], fact: usize, delta: Option<&[f32]>| -> Vec<Vec<f32>> {
        let rows = decoder.rows(&[ids]);
        let mut hidden = decoder.embed(&rows);
        for layer in 0..decoder.config().layers {
            hidden = decoder.block(layer, &rows, hidden).unwrap().hidden;
            if let (true, Some(delta)) = (layer == s.layer, delta) {
                let delta = Tensor::<1>::from_floats(delta, &Device::flex()).reshape([1, d]);
                hidden = hidden.plus(&rows.places([(0, fact)]), delta);
            }
        }
        let rows = activation::log_softmax(decoder.logits(hidden.at(&rows.all())), 1);
        rows.into_data().try_into_vec::<f32>().unwrap().chunks(decoder.config().vocab).map(<[f32]>::to_vec).collect()
    };
    let mut nll = 0.0;
    for row in &rows.rows {
        let p = log_p(&row.ids, row.fact, Some(delta));
        let first = row.ids.len() - rows.target.len();
        for (j, &token) in rows.target.iter().enumerate() {
            nll -= p[first + j][token as usize] / (rows.target.len() * rows.rows.len()) as f32;
        }
    }
    let e = &rows.essences[0];
    let (now, before) = (log_p(&e.ids, e.fact, Some(delta)), log_p(&e.ids, e.fact, None));
    let kl: f32 = now[e.fact].iter().zip(&before[e.fact]).map(|(n, b)| n.exp() * (n - b)).sum();
    [nll, kl * s.kl_factor as f32]
}

#[test]
fn losses_equal_whole_forward_passes() {
    for name in ["gptj-tiny", "llama-tiny"] {
        let (decoder, text) = model(name);
        let s = settings();
        let targets = optimise(&decoder, &text, &requests(), &templates(), &s, |_| {}).unwrap();
        for (request, target) in requests().iter().zip(&targets) {
            let [nll, kl] = plain_loss(&decoder, &text, request, &target.delta, &s);
            let last = target.trace.last().unwrap();
            assert!((last.nll - nll).abs() < 1e-4, "{name} {}: {} {nll}", request.id, last.nll);
            assert!((last.kl - kl).abs() < 1e-5, "{name} {}: {} {kl}", request.id, last.kl);
            assert!(last.loss < target.trace[0].loss, "{name} {}: {:?}", request.id, target.trace);
        }
    }
}

#[test]
fn many_together_equal_one_by_one() {
    for name in ["gptj-tiny", "llama-tiny"] {
        let (decoder, text) = model(name);
        // A loss that one request reaches early, so that rows leave the batch.
        let mut s = settings();
        let probe = optimise(&decoder, &text, &requests(), &templates(), &s, |_| {}).unwrap();
        s.stop_loss = f64::from(probe[0].trace[3].loss) + 1e-4;
        let together = optimise(&decoder, &text, &requests(), &templates(), &s, |_| {}).unwrap();
        for (request, all) in requests().into_iter().zip(&together) {
            let alone = optimise(&decoder, &text, &[request], &templates(), &s, |_| {}).unwrap().remove(0);
            assert_eq!(alone.trace.len(), all.trace.len());
            for (a, b) in alone.value().iter().zip(all.value()) {
                assert!((a - b).abs() < 1e-4, "{name}: {a} {b}");
            }
        }
        assert!(together[0].trace.len() <= 4);
    }
}

#[test]
fn mistakes_are_errors() {
    let (decoder, text) = model("llama-tiny");
    let at = |layer: usize, change: fn(&mut EditRequest)| {
        let mut request = requests().remove(0);
        change(&mut request);
        let s = TargetSettings { layer, ..settings() };
        optimise(&decoder, &text, &[request], &templates(), &s, |_| {}).unwrap_err().to_string()
    };
    assert_eq!(at(7, |_| {}), "layer 7 is out of range: the model has layers 0 to 2");
    assert!(at(1, |r| r.prompt = "It is in".into()).contains("the subject is not in the prompt"));
    assert!(at(1, |r| r.subject = "word ".repeat(500)).contains("longer than the model's context"));
}

/// Rounded factors of products change a target by little, and what it begins from not at all. Where kernels do not compute, they are refused.
#[test]
fn products_in_bf16_find_nearly_the_same_target() {
    let (decoder, text) = model("llama-tiny");
    let plain = settings();
    let rounded =
        TargetSettings { rules: palinode_edit::TargetRules { compute: Compute::Bf16, ..plain.rules }, ..plain };
    let find = |decoder: &Decoder, s: &TargetSettings| optimise(decoder, &text, &requests(), &templates(), s, |_| {});
    let (exact, found) = (find(&decoder, &plain).unwrap(), find(&decoder, &rounded).unwrap());
    for (exact, found) in exact.iter().zip(&found) {
        assert_eq!(exact.initial, found.initial);
        assert_ne!(exact.delta, found.delta);
        let size = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let off = size(&mut exact.delta.iter().zip(&found.delta).map(|(a, b)| a - b));
        let (off, loss) = (off / size(&mut exact.delta.iter().copied()), [exact, found].map(|of| of.trace[5].nll));
        println!("{off:.1e} {loss:?}");
        assert!(off < 0.1 && (loss[0] - loss[1]).abs() < 0.02 * loss[0], "{off} {loss:?}");
    }
    let refused = find(&decoder.without_kernels(), &rounded).unwrap_err().to_string();
    assert!(refused.contains("products in bf16 are those of a CPU"), "{refused}");
}
