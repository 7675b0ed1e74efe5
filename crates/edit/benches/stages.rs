//! What stages do, on the demo's model: `cargo bench --workspace --bench stages`.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use palinode_data::{ContextTemplates, Dataset, EditRequest, Selection, read_requests};
use palinode_edit::{Moments, Prompt, Site, Tap, TargetSettings, TargetSite, optimise, probe, prompts};
use palinode_math::SecondMoment;
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Text};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model")
}

fn model() -> (Decoder, Text) {
    let folder = demo().join("model");
    let config = DecoderConfig::read(&folder.join("config.json")).expect("the demo's configuration");
    let checkpoint = Checkpoint::open(&[folder.join("model.safetensors")]).expect("the demo's weights");
    let decoder = Decoder::load(&checkpoint, &config, &Device::flex()).expect("the demo's weights");
    (decoder, Text::open(&folder.join("tokenizer.json")).expect("the demo's tokenizer"))
}

fn requests() -> Vec<EditRequest> {
    let selection = Selection { limit: Some(32), ..Selection::default() };
    read_requests(&demo().join("requests.json"), &Dataset::CounterFact, &selection).expect("the demo's requests")
}

fn stages(c: &mut Criterion) {
    let (decoder, text) = model();
    let requests = requests();
    let templates = ContextTemplates::from_openings(&["The market was closed on Monday", "Because", "It is said"]);
    let mut group = c.benchmark_group("demo");
    group.sample_size(10);

    let settings = TargetSettings {
        fact_token: palinode_edit::FactToken::default(),
        site: TargetSite::BlockOutput,
        layer: 2,
        steps: 5,
        learning_rate: 0.5,
        kl_factor: 0.0625,
        weight_decay: 0.5,
        clamp: 0.75,
        stop_loss: 0.0,
        rules: palinode_edit::TargetRules::default(),
    };
    group.throughput(Throughput::Elements(32));
    group.bench_function("targets, 32 requests, 5 steps", |b| {
        b.iter(|| optimise(&decoder, &text, &requests, &templates, &settings, |_| {}).expect("finite losses"));
    });

    let rows: Vec<Prompt> = requests
        .iter()
        .map(|r| prompts::prompt(&text, decoder.config(), r, "{}").expect("a subject in its prompt"))
        .collect();
    group.bench_function("keys of layer 2, 32 prompts", |b| {
        let tap = Tap { layer: 2, site: Site::Key };
        b.iter(|| probe(&decoder, &rows, &[tap], 4096).expect("a layer that is there"));
    });

    let corpus = std::fs::read_to_string(demo().join("corpus.txt")).expect("the demo's corpus");
    let documents: Vec<Vec<u32>> = corpus.lines().take(128).map(|line| text.encode(line).expect("text")).collect();
    group.throughput(Throughput::Elements(documents.iter().map(|d| d.len() as u64).sum()));
    group.bench_function("second moments of 3 layers, tokens", |b| {
        b.iter(|| {
            let mut moments = Moments::new();
            for layer in 0..3 {
                let empty = SecondMoment::new(decoder.config().feed_forward);
                moments.insert(&decoder, layer, empty).expect("a layer that is there");
            }
            moments.add(&decoder, &documents, 2048).expect("finite keys")
        });
    });
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
