//! Logits against the ones that transformers computed, for every family. The tiny models are fixtures; the trained
//! GPT-2 is compared where the golden folder lies beside the repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use palinode_model::generate::{Sampling, generate};
use palinode_model::{Batch, Checkpoint, Decoder, DecoderConfig, Text};
use safetensors::SafeTensors;

/// Made by scripts/make_family_fixtures.py.
const FAMILIES: [&str; 7] = [
    "gpt_neox-tiny",
    "gpt_neox-sequential-tiny",
    "llama2-tiny",
    "llama3-tiny",
    "mistral-tiny",
    "qwen2-tiny",
    "qwen3-tiny",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn golden(name: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no golden folder {name}");
    None
}

fn load(folder: &Path) -> Decoder {
    let config = DecoderConfig::read(&folder.join("config.json")).unwrap();
    let files: Vec<_> = Checkpoint::files(folder).unwrap().iter().map(|f| folder.join(f)).collect();
    Decoder::load(&Checkpoint::open(&files).unwrap(), &config, &Device::flex()).unwrap()
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn ids(file: &SafeTensors, name: &str) -> Vec<u32> {
    let view = file.tensor(name).unwrap();
    match view.dtype() {
        safetensors::Dtype::I64 => {
            view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
        }
        _ => view.data().chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect(),
    }
}

/// Largest difference over every prompt's last logits (all positions of prompt 0), all prompts in one padded batch.
fn largest_difference(model: &Path, logits: &Path) -> f32 {
    let decoder = load(model);
    let bytes = std::fs::read(logits).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let count = file.names().iter().filter(|n| n.ends_with(".ids")).count();
    let rows: Vec<Vec<u32>> = (0..count).map(|i| ids(&file, &format!("prompt{i}.ids"))).collect();
    let batch = Batch::new(&rows, &Device::flex());
    let [n, seq, d] = decoder.hidden(&batch).dims();
    let all = decoder.logits(decoder.hidden(&batch).reshape([n * seq, d])).into_data().try_into_vec::<f32>().unwrap();
    let vocab = decoder.config().vocab;
    let row = |i: usize, t: usize| &all[(i * seq + t) * vocab..][..vocab];
    let mut worst = 0f32;
    let mut compare = |ours: &[f32], theirs: &[f32]| {
        assert_eq!(ours.len(), theirs.len());
        for (a, b) in ours.iter().zip(theirs) {
            worst = worst.max((a - b).abs());
        }
    };
    for (i, ids) in rows.iter().enumerate() {
        compare(row(i, ids.len() - 1), &floats(&file, &format!("prompt{i}.last_logits")));
    }
    let first = floats(&file, "prompt0.all_logits");
    for (t, theirs) in first.chunks_exact(vocab).enumerate() {
        compare(row(0, t), theirs);
    }
    worst
}

#[test]
fn logits_of_every_family() {
    let mut worst = BTreeMap::new();
    for name in FAMILIES.iter().chain(&["gptj-tiny", "llama-tiny"]).copied() {
        worst.insert(name, largest_difference(&fixture(name), &fixture(name).join("logits.safetensors")));
    }
    if let Some(folder) = golden("gpt2") {
        worst.insert("gpt2", largest_difference(&folder.join("model"), &folder.join("logits.safetensors")));
    }
    println!("largest logit differences: {worst:?}");
    for (name, difference) in worst {
        assert!(difference < 2e-4, "{name}: {difference}");
    }
}

#[test]
fn tokens_and_fact_token_positions() {
    for name in ["gpt2", "gptj-tiny", "llama-tiny"] {
        let Some(folder) = golden(name) else { continue };
        let text = Text::open(&folder.join("model/tokenizer.json")).unwrap();
        let records: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("tokenization.json")).unwrap()).unwrap();
        let mut checked = 0;
        for record in records.as_array().unwrap() {
            let (prompt, subject) = (record["prompt"].as_str().unwrap(), record["subject"].as_str().unwrap());
            for case in record["per_template"].as_array().unwrap() {
                let expected: Vec<u32> =
                    case["ids"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
                assert_eq!(text.encode(case["text"].as_str().unwrap()).unwrap(), expected);
                let filled = case["template"].as_str().unwrap().replace("{}", prompt);
                let before = filled.split("{}").next().unwrap();
                let index = text.last_token(&format!("{before}{subject}")).unwrap();
                assert_eq!(index as u64, case["lookup_idx"].as_u64().unwrap(), "{name}: {prompt} {subject}");
                checked += 1;
            }
        }
        println!("{name}: {checked} prompts");
        assert!(checked > 0);
    }
}

/// One token after another with cached keys and values gives what the whole prompt at once does, windows included.
#[test]
fn steps_of_generation() {
    for name in FAMILIES {
        let decoder = load(&fixture(name));
        let bytes = std::fs::read(fixture(name).join("logits.safetensors")).unwrap();
        let prompt = ids(&SafeTensors::deserialize(&bytes).unwrap(), "prompt0.ids");
        let long = generate(&decoder, &prompt[..3], 24, Sampling::Greedy, 0, None).unwrap();
        assert_eq!(long.len(), 24);
        for length in 3..24 {
            let batch = Batch::new(&[&long[..length]], &Device::flex());
            let last = decoder.hidden(&batch).narrow(1, length - 1, 1).reshape([1, decoder.config().hidden]);
            let logits = decoder.logits(last).into_data().try_into_vec::<f32>().unwrap();
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            assert_eq!(best as u32, long[length], "{name}: token {length}");
        }
    }
}

#[test]
fn tokens_of_every_family() {
    for name in FAMILIES {
        let text = Text::open(&fixture(name).join("tokenizer.json")).unwrap();
        let text = text.with_settings(&fixture(name).join("tokenizer_config.json")).unwrap();
        let cases: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(fixture(name).join("tokens.json")).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let given = case["text"].as_str().unwrap();
            assert_eq!(text.encode(given).unwrap(), expected, "{name}: {given:?}");
        }
        let bos = ["llama2-tiny", "llama3-tiny", "mistral-tiny"].contains(&name);
        assert_eq!(text.prefix(), usize::from(bos), "{name}");
        // A continuation is what follows a prompt, and its text, whole or in part, has its space.
        let target = text.encode_target("Parma").unwrap();
        let (prompt, whole) = (text.encode("The tower stands in").unwrap(), text.encode("The tower stands in Parma"));
        assert_eq!([prompt, target.clone()].concat(), whole.unwrap(), "{name}");
        assert_eq!(text.decode_target(&target).unwrap(), " Parma", "{name}");
        let first = text.decode_target(&target[..1]).unwrap();
        assert!(first.starts_with(" P") && " Parma".starts_with(&first), "{name}: {first:?}");
    }
}
