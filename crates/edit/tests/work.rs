//! How much is computed, in tokens and rows: what makes this fast must not get lost, and clocks are no test of it.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{
    Edit, LifelongSettings, Moments, Preservations, Prompt, Site, Tap, TargetSettings, TargetSite, TuneLoss,
    TuneSettings, apply, optimise, probe, prompts, take, tune,
};
use palinode_math::{Objective, PreservationWeights, Ridge, SecondMoment, Strategy};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, MlpModule, Text, WeightId, Work, generate};

fn model() -> (Decoder, Text) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/llama-tiny");
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let config = DecoderConfig::from_hf(&config, &folder).unwrap();
    let checkpoint = Checkpoint::open(&[folder.join("model.safetensors")]).unwrap();
    let decoder = Decoder::load(&checkpoint, &config, &Device::flex()).unwrap();
    (decoder, Text::open(&folder.join("tokenizer.json")).unwrap())
}

fn requests() -> Vec<EditRequest> {
    let one = |i: usize| EditRequest {
        id: i.to_string(),
        prompt: "{} is a city in the south of".into(),
        subject: format!("The harbour of town number {i}"),
        target_new: "South Africa".into(),
        ..EditRequest::default()
    };
    (0..12).map(one).collect()
}

fn templates() -> ContextTemplates {
    ContextTemplates::from_openings(&["The weather had been fine for days", "Because"])
}

fn done(decoder: &Decoder, work: impl FnOnce()) -> Work {
    let before = decoder.work();
    work();
    decoder.work() - before
}

/// Whole prompts once; after that only what comes after the subject, in the layers above, and the head where it is read.
#[test]
fn a_step_touches_only_what_it_changes() {
    let (decoder, text) = model();
    let config = decoder.config();
    let steps = 5;
    let settings = TargetSettings {
        fact_token: palinode_edit::FactToken::default(),
        site: TargetSite::BlockOutput,
        layer: 1,
        steps,
        learning_rate: 1e-3,
        kl_factor: 0.0625,
        weight_decay: 0.5,
        clamp: 0.75,
        stop_loss: 0.0,
        rules: palinode_edit::TargetRules::default(),
    };
    let requests = requests();
    let all = templates();
    let openings: Vec<&str> = all.weighted().into_iter().map(|(t, _)| t).collect();
    let rows: Vec<_> =
        requests.iter().map(|r| prompts::rewrite_prompts(&text, config, r, &openings).unwrap()).collect();
    let prompts = |of: &prompts::RewritePrompts| of.rows.iter().chain(&of.essences).cloned().collect::<Vec<Prompt>>();
    let flat: Vec<Prompt> = rows.iter().flat_map(prompts).collect();
    let whole: usize = flat.iter().map(|p| p.ids.len()).sum();
    // A row is run again from its fact on, and where it predicts earlier than that, from there on.
    let first_read = |of: &prompts::RewritePrompts, p: &Prompt| p.ids.len() - of.target.len();
    let again = |of: &prompts::RewritePrompts| -> usize {
        let rows = of.rows.iter().map(|p| p.ids.len() - p.fact.min(first_read(of, p)));
        rows.sum::<usize>() + of.essences[0].ids.len() - of.essences[0].fact
    };
    let suffix: usize = rows.iter().map(again).sum();
    let reads: usize = rows.iter().map(|r| r.rows.len() * r.target.len() + 1).sum();
    let tokens = whole * config.layers + steps * suffix * (config.layers - 1 - settings.layer);

    let work = done(&decoder, || {
        optimise(&decoder, &text, &requests, &all, &settings, |_| {}).unwrap();
    });
    assert_eq!(work.block_tokens as usize, tokens);
    // The essence of each request is read once before the first step.
    assert_eq!(work.head_rows as usize, requests.len() + steps * reads);
    let all = steps * whole;
    assert!((work.block_tokens as usize) < all * config.layers / 2 && (work.head_rows as usize) < all / 2);
}

/// All layers in one pass, which stops after the last of them; no head.
#[test]
fn second_moments_take_one_pass() {
    let (decoder, _) = model();
    let documents: Vec<Vec<u32>> = (0..6).map(|i| (0..10 + 4 * i).map(|t| 3 + (i * 7 + t) % 50).collect()).collect();
    let work = done(&decoder, || {
        let mut moments = Moments::new();
        for layer in [0, 1] {
            moments.insert(&decoder, layer, SecondMoment::new(decoder.config().feed_forward)).unwrap();
        }
        assert_eq!(moments.add(&decoder, &documents, 64).unwrap(), 120);
    });
    assert_eq!(work, Work { block_tokens: 120 * 2, ..Work::default() });
}

/// Keys of a layer need nothing above it.
#[test]
fn keys_take_a_truncated_pass() {
    let (decoder, text) = model();
    let prompts: Vec<Prompt> =
        requests().iter().map(|r| prompts::prompt(&text, decoder.config(), r, "{}").unwrap()).collect();
    let tokens: usize = prompts.iter().map(|p| p.ids.len()).sum();
    let work = done(&decoder, || {
        probe(&decoder, &prompts, &[Tap { layer: 0, site: Site::Key }], 4096).unwrap();
    });
    assert_eq!(work, Work { block_tokens: tokens as u64, ..Work::default() });
}

/// Each token of each text goes through the blocks once, texts of different lengths together, and no key is copied for another.
#[test]
fn texts_are_written_together() {
    let (decoder, _) = model();
    let layers = decoder.config().layers as u64;
    let prompt = |i: usize| generate::Prompt {
        tokens: (0..3 + 2 * i).map(|t| 3 + (5 * i + t) as u32 % 40).collect(),
        length: 20,
        stream: i as u64,
    };
    let prompts: Vec<generate::Prompt> = (0..6).map(prompt).collect();
    let sampling = generate::Sampling::TopK { k: 5, seed: 1 };
    let write = |decoder: &Decoder| {
        let mut texts = Vec::new();
        let work = done(decoder, || texts = generate::generate_all(decoder, &prompts, sampling, None).unwrap());
        (texts, work)
    };
    let (texts, work) = write(&decoder);
    let fresh: u64 = prompts.iter().map(|prompt| 20 - prompt.tokens.len() as u64).sum();
    // The last token of a text is read by nothing.
    let block_tokens = layers * 19 * prompts.len() as u64;
    assert_eq!(work, Work { block_tokens, head_rows: fresh, passes: 17, ..Work::default() });
    let (alone, slower) = write(&decoder.clone().without_kernels());
    assert_eq!(alone, texts);
    assert_eq!((slower.passes, slower.head_rows), (fresh, fresh));
    assert!(slower.copied_cache > 0);
}

/// Rows of different lengths are no rectangle.
#[test]
fn padding_is_computed_where_rows_are_padded() {
    let (decoder, _) = model();
    let documents: Vec<Vec<u32>> = (0..4).map(|i| vec![5; 8 + 6 * i]).collect();
    let padding = |decoder: &Decoder| {
        let work = done(decoder, || {
            let mut moments = Moments::new();
            moments.insert(decoder, 0, SecondMoment::new(decoder.config().feed_forward)).unwrap();
            assert_eq!(moments.add(decoder, &documents, 4096).unwrap(), 68);
        });
        assert_eq!(work.block_tokens - work.padding, 68);
        work.padding
    };
    assert_eq!(padding(&decoder), 0);
    assert_eq!(padding(&decoder.clone().without_kernels()), 4 * 26 - 68);
}

/// Tokens of each request's prompt and target but the target's last, padded to the longest; and the target's tokens.
fn answered(text: &Text, requests: &[EditRequest]) -> (usize, usize) {
    let of = |request: &EditRequest| {
        let prompt = request.filled_prompt();
        let target = text.encode_continuation(&request.continuation(&prompt, &request.target_new)).unwrap();
        (text.encode(&prompt).unwrap().len() + target.len() - 1, target.len())
    };
    let each: Vec<(usize, usize)> = requests.iter().map(of).collect();
    (each.len() * each.iter().map(|(row, _)| *row).max().unwrap(), each.iter().map(|(_, target)| target).sum())
}

/// The layers up to the tuned one once, those above it in every pass; the head at the target alone.
#[test]
fn fine_tuning_computes_the_layers_below_once() {
    let (decoder, text) = model();
    let (layers, requests, epochs) = (decoder.config().layers, requests(), 4);
    let (most, reads) = answered(&text, &requests);
    for layer in 0..layers {
        let settings = TuneSettings {
            layer,
            loss: TuneLoss::Target,
            epochs,
            mini_batch: requests.len(),
            shuffle: None,
            learning_rate: 1e-4,
            bound: None,
            stop_loss: 0.0,
        };
        let work = done(&decoder, || drop(tune(&decoder, &text, &requests, &settings, |_, _| {}).unwrap()));
        let most = most * (layer + 1 + epochs * (layers - layer - 1));
        assert!(work.block_tokens as usize <= most, "layer {layer}: {work:?}, where {most} tokens are enough");
        assert_eq!(work.head_rows as usize, epochs * reads, "layer {layer}");
    }
}

/// One pass forward, whatever the number of edited projections.
#[test]
fn a_round_of_gradients_takes_one_pass() {
    let (decoder, text) = model();
    let requests = requests();
    let (most, reads) = answered(&text, &requests);
    for modules in [&[MlpModule::Down][..], &[MlpModule::Gate, MlpModule::Up, MlpModule::Down]] {
        let weights = modules.iter().flat_map(|&module| [0, 2].map(|layer| WeightId::new(layer, module))).collect();
        let settings = LifelongSettings { weights, learning_rate: 1e-3, mini_batch: requests.len() };
        let work = done(&decoder, || drop(take(&decoder, &text, &requests, &settings).unwrap()));
        let most = most * decoder.config().layers;
        assert!(work.block_tokens as usize <= most, "{work:?}, where {most} tokens are enough");
        assert_eq!(work.head_rows as usize, reads);
    }
}

/// Later layers' targets come from one pass over the bare prompts, which ends at the last of these layers: no search, and no head.
#[test]
fn targets_of_later_layers_take_one_pass() {
    let (decoder, text) = model();
    let (requests, templates) = (requests(), templates());
    let config = decoder.config();
    let layers = [0, 1];
    let weights = PreservationWeights { lambda: 1.0, rho: 0.0 };
    let ridge = Arc::new(Ridge::new(config.feed_forward, weights).unwrap());
    let metrics: Preservations = layers.iter().map(|&layer| (WeightId::down(layer), Arc::clone(&ridge) as _)).collect();
    let plan = Strategy::Forward.plan(&layers).unwrap();
    let edit = Edit {
        objective: Objective::Memit,
        plan: &plan,
        templates: &templates,
        targets: TargetSettings {
            fact_token: palinode_edit::FactToken::default(),
            site: TargetSite::BlockOutput,
            layer: 0,
            steps: 5,
            learning_rate: 1e-3,
            kl_factor: 0.0625,
            weight_decay: 0.5,
            clamp: 0.75,
            stop_loss: 0.0,
            rules: palinode_edit::TargetRules::default(),
        },
        parallel_requests: 32,
        tokens: 1 << 20,
    };
    let openings: Vec<&str> = templates.weighted().into_iter().map(|(template, _)| template).collect();
    let width = |template: &str| {
        let rows = requests.iter().map(|r| prompts::prompt(&text, config, r, template).unwrap().ids.len());
        rows.max().unwrap()
    };
    let bare = requests.len() * width("{}");
    let all = requests.len() * openings.len() * openings.iter().map(|template| width(template)).max().unwrap();
    let values = vec![0.1; requests.len() * config.hidden];
    let work = done(&decoder, || drop(apply(&decoder, &text, &requests, &values, &metrics, &edit).unwrap()));
    // Keys of both layers; values at the first layer, the pass to the second, and values there before and after its change.
    let most = all * (1 + 2) + bare * (1 + 2 + 2 + 2);
    assert!(work.block_tokens as usize <= most, "{work:?}, where {most} tokens are enough");
    assert_eq!(work.head_rows, 0);
}
