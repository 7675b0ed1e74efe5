//! Keys and targets of every family against numbers that plain torch code computed on the same small models
//! (scripts/make_family_fixtures.py), with the tolerances of the golden folder.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{Prompt, Site, Tap, TargetSettings, optimise, probe, prompts};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Text};
use safetensors::SafeTensors;
use serde_json::Value;

struct Family {
    name: String,
    decoder: Decoder,
    text: Text,
    request: EditRequest,
    templates: ContextTemplates,
    facts: Value,
    numbers: Vec<u8>,
}

fn families() -> Vec<Family> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(here.join("tests/fixtures")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert_eq!(folders.len(), 7);
    folders.iter().map(|folder| open(folder, &here.join("../model/tests/fixtures"))).collect()
}

fn open(folder: &Path, models: &Path) -> Family {
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let model = models.join(&name);
    let config = DecoderConfig::read(&model.join("config.json")).unwrap();
    let files: Vec<_> = Checkpoint::files(&model).unwrap().iter().map(|file| model.join(file)).collect();
    let facts: Value = serde_json::from_slice(&std::fs::read(folder.join("edit.json")).unwrap()).unwrap();
    let asked = |field: &str| facts["request"][field].as_str().unwrap().to_owned();
    Family {
        decoder: Decoder::load(&Checkpoint::open(&files).unwrap(), &config, &Device::flex()).unwrap(),
        text: Text::open(&model.join("tokenizer.json")).unwrap(),
        request: EditRequest {
            id: asked("id"),
            subject: asked("subject"),
            prompt: asked("prompt"),
            target_new: asked("target_new"),
            ..EditRequest::default()
        },
        templates: ContextTemplates { groups: serde_json::from_value(facts["groups"].clone()).unwrap() },
        numbers: std::fs::read(folder.join("edit.safetensors")).unwrap(),
        facts,
        name,
    }
}

impl Family {
    fn expected(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.numbers).unwrap();
        let view = file.tensor(name).unwrap();
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }
}

fn relative(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b))) / norm(&mut theirs.iter().map(|b| f64::from(*b)))
}

#[test]
fn keys_in_every_layer() {
    for family in families() {
        let weighted = family.templates.weighted();
        let config = family.decoder.config();
        let row = |template: &str| prompts::prompt(&family.text, config, &family.request, template).unwrap();
        let rows: Vec<Prompt> = weighted.iter().map(|(template, _)| row(template)).collect();
        let taps: Vec<Tap> = (0..config.layers).map(|layer| Tap { layer, site: Site::Key }).collect();
        let mut worst = 0f64;
        for (layer, keys) in probe(&family.decoder, &rows, &taps, 4096).unwrap().iter().enumerate() {
            let f = config.feed_forward;
            let mean = |i: usize| weighted.iter().enumerate().map(|(t, (_, w))| w * f64::from(keys[t * f + i])).sum();
            let key: Vec<f32> = (0..f)
                .map(|i| {
                    let m: f64 = mean(i);
                    m as f32
                })
                .collect();
            worst = worst.max(relative(&key, &family.expected(&format!("layer{layer}.key"))));
        }
        println!("{}: keys {worst:.1e}", family.name);
        assert!(worst < 1e-5, "{}: {worst}", family.name);
    }
}

#[test]
fn a_target_step_by_step() {
    for family in families() {
        let number = |name: &str| family.facts["settings"][name].as_f64().unwrap();
        let settings = TargetSettings {
            site: Site::BlockOutput,
            layer: number("layer") as usize,
            steps: number("steps") as usize,
            learning_rate: number("learning_rate"),
            kl_factor: number("kl_factor"),
            weight_decay: number("weight_decay"),
            clamp: number("clamp"),
            stop_loss: number("stop_loss"),
        };
        let expected: Vec<u32> = serde_json::from_value(family.facts["target"].clone()).unwrap();
        assert_eq!(family.text.encode_target(&family.request.target_new).unwrap(), expected, "{}", family.name);
        let request = std::slice::from_ref(&family.request);
        let found = optimise(&family.decoder, &family.text, request, &family.templates, &settings, |_| {}).unwrap();
        let losses: Vec<f64> = serde_json::from_value(family.facts["losses"].clone()).unwrap();
        assert_eq!(found[0].trace.len(), losses.len(), "{}: number of steps", family.name);
        let loss = found[0].trace.iter().zip(&losses).map(|(ours, theirs)| (f64::from(ours.loss) - theirs).abs());
        let loss: Vec<f64> = loss.collect();
        let early = loss.iter().take(5).copied().fold(0.0, f64::max);
        let late = loss.iter().copied().fold(0.0, f64::max);
        let initial = relative(&found[0].initial, &family.expected("initial"));
        let z = relative(&found[0].value(), &family.expected("z"));
        println!("{}: losses {early:.1e} {late:.1e}, start {initial:.1e}, z {z:.1e}", family.name);
        assert!(early < 1e-4 && late < 1e-3 && initial < 1e-5 && z < 1e-3, "{}: {early} {late} {z}", family.name);
    }
}
