//! Keys, second moments, targets and whole edits against the authors' code, on the models of the golden folder (skipped
//! where it does not lie beside the repository, since its records may not be copied). Tolerances are that folder's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use palinode_data::{ContextTemplates, Dataset, EditRequest, Selection, read_requests};
use palinode_edit::{Edit, Moments, Prompt, Site, Tap, TargetSettings, apply, optimise, probe, prompts};
use palinode_math::{Factor, Mat, Objective, Preservation, RomeKey, SecondMoment, Strategy, from_row_major};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Text};
use safetensors::SafeTensors;
use serde_json::Value;

struct Golden {
    name: &'static str,
    folder: PathBuf,
    decoder: Decoder,
    text: Text,
    requests: Vec<EditRequest>,
    grouped: ContextTemplates,
    flat: ContextTemplates,
}

fn golden() -> Vec<Golden> {
    ["gpt2", "gptj-tiny", "llama-tiny"].into_iter().filter_map(open).collect()
}

fn open(name: &'static str) -> Option<Golden> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden").join(name);
    if !folder.is_dir() {
        println!("skipped: no golden folder {name}");
        return None;
    }
    let model = folder.join("model");
    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    let config = DecoderConfig::from_hf(&config, &model).unwrap();
    let files: Vec<_> = Checkpoint::files(&model).unwrap().iter().map(|f| model.join(f)).collect();
    let templates = json(&folder.join("templates.json"));
    let strings =
        |v: &Value| -> Vec<String> { v.as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_string()).collect() };
    Some(Golden {
        name,
        decoder: Decoder::load(&Checkpoint::open(&files).unwrap(), &config, &Device::flex()).unwrap(),
        text: Text::open(&model.join("tokenizer.json")).unwrap(),
        requests: read_requests(&folder.join("requests.json"), Dataset::CounterFact, Selection::default()).unwrap(),
        grouped: ContextTemplates {
            groups: templates["memit_emmet"].as_array().unwrap().iter().map(strings).collect(),
        },
        flat: ContextTemplates { groups: vec![strings(&templates["rome"])] },
        folder,
    })
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

struct File(Vec<u8>);

impl File {
    fn open(path: PathBuf) -> Self {
        Self(std::fs::read(path).unwrap())
    }

    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).ok()?;
        Some(match view.dtype() {
            safetensors::Dtype::F64 => {
                view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap()) as f32).collect()
            }
            _ => view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        })
    }

    fn get(&self, name: &str) -> Vec<f32> {
        self.floats(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }
}

fn relative(ours: &[f32], theirs: &[f32]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut ours.iter().zip(theirs).map(|(a, b)| f64::from(a - b))) / norm(&mut theirs.iter().map(|b| f64::from(*b)))
}

fn relative_mat(ours: &Mat<f64>, theirs: &Mat<f64>) -> f64 {
    (ours - theirs).norm_l2() / theirs.norm_l2()
}

fn number(h: &Value, name: &str) -> f64 {
    h[name].as_f64().unwrap_or(0.0)
}

fn settings(h: &Value, layer: usize, site: Site) -> TargetSettings {
    TargetSettings {
        site,
        layer,
        steps: number(h, "v_num_grad_steps") as usize,
        learning_rate: number(h, "v_lr"),
        kl_factor: number(h, "kl_factor"),
        weight_decay: number(h, "v_weight_decay"),
        clamp: number(h, "clamp_norm_factor"),
        stop_loss: 0.05,
    }
}

const LAYERS: [usize; 3] = [0, 1, 2];

impl Golden {
    fn averaged(&self, request: &EditRequest, layer: usize) -> Vec<f32> {
        let weighted = self.grouped.weighted();
        let rows: Vec<Prompt> = weighted
            .iter()
            .map(|(t, _)| prompts::prompt(&self.text, self.decoder.config(), request, t).unwrap())
            .collect();
        let keys = probe(&self.decoder, &rows, &[Tap { layer, site: Site::Key }], 4096).unwrap().remove(0);
        let f = self.decoder.config().feed_forward;
        (0..f)
            .map(|i| weighted.iter().enumerate().map(|(t, (_, w))| w * f64::from(keys[t * f + i])).sum::<f64>() as f32)
            .collect()
    }

    fn moments(&self) -> BTreeMap<usize, SecondMoment> {
        let lines = json(&self.folder.join("mom2.json"))["corpus_lines"].as_u64().unwrap() as usize;
        let path = self.folder.join("../data/mom2_corpus.txt");
        let corpus = std::fs::read_to_string(path).unwrap();
        let documents: Vec<Vec<u32>> = corpus.lines().take(lines).map(|line| self.text.encode(line).unwrap()).collect();
        assert_eq!(documents.len(), lines);
        let mut moments = Moments::new();
        for layer in LAYERS {
            let empty = SecondMoment::new(self.decoder.config().feed_forward);
            moments.insert(&self.decoder, layer, empty).unwrap();
        }
        for block in documents.chunks(32) {
            moments.add(&self.decoder, block, 2048).unwrap();
        }
        moments.layers().unwrap().clone()
    }
}

#[test]
fn keys_and_block_outputs() {
    for g in golden() {
        let file = File::open(g.folder.join("keys.safetensors"));
        let (d, f) = (g.decoder.config().hidden, g.decoder.config().feed_forward);
        let mut worst = 0f64;
        for layer in LAYERS {
            let keys = file.get(&format!("layer{layer}.keys"));
            let outputs = file.get(&format!("layer{layer}.block_out_bare_prompt"));
            for (i, request) in g.requests.iter().take(8).enumerate() {
                worst = worst.max(relative(&g.averaged(request, layer), &keys[i * f..][..f]));
                let bare = [prompts::prompt(&g.text, g.decoder.config(), request, "{}").unwrap()];
                let ours = probe(&g.decoder, &bare, &[Tap { layer, site: Site::BlockOutput }], 512).unwrap();
                worst = worst.max(relative(&ours[0], &outputs[i * d..][..d]));
            }
        }
        println!("{}: keys and block outputs {worst:.1e}", g.name);
        assert!(worst < 1e-5, "{}: {worst}", g.name);
    }
}

#[test]
fn second_moments() {
    for g in golden() {
        let file = File::open(g.folder.join("mom2.safetensors"));
        let facts = json(&g.folder.join("mom2.json"));
        for (layer, moment) in g.moments() {
            let expected = &facts["layers"][layer.to_string()];
            assert_eq!(moment.count(), expected["count"].as_u64().unwrap(), "{} layer {layer}", g.name);
            let mean = moment.mean();
            let n = moment.size();
            let row = |i: usize, j: usize| mean[(i, j)] as f32;
            let diag: Vec<f32> = (0..n).map(|i| row(i, i)).collect();
            let block: Vec<f32> = (0..64).flat_map(|i| (0..64).map(move |j| (i, j))).map(|(i, j)| row(i, j)).collect();
            let product: Vec<f32> = (0..n)
                .map(|i| (0..n).map(|j| mean[(i, j)] * (0.37 * j as f64 + 0.1).sin()).sum::<f64>() as f32)
                .collect();
            let mut worst = relative(&diag, &file.get(&format!("layer{layer}.diag")));
            worst = worst.max(relative(&block, &file.get(&format!("layer{layer}.block64"))));
            worst = worst.max(relative(&product, &file.get(&format!("layer{layer}.times_sin_vector"))));
            if let Some(full) = file.floats(&format!("layer{layer}.mom2")) {
                let ours: Vec<f32> = (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| row(i, j)).collect();
                worst = worst.max(relative(&ours, &full));
            }
            let (smallest, _) = moment.extreme_eigenvalues().unwrap();
            let theirs = expected["min_eig"].as_f64().unwrap();
            println!("{} layer {layer}: {worst:.1e}, smallest eigenvalue {smallest:.3e} ({theirs:.3e})", g.name);
            assert!(worst < 1e-5, "{} layer {layer}: {worst}", g.name);
            assert!((smallest / theirs - 1.0).abs() < 0.01, "{} layer {layer}: {smallest} {theirs}", g.name);
        }
    }
}

#[test]
fn targets_step_by_step() {
    for g in golden() {
        let file = File::open(g.folder.join("compute_z.safetensors"));
        let experiments = json(&g.folder.join("experiments.json"));
        let main = &experiments[0]["hparams"];
        let mut cases: BTreeMap<(String, usize), Vec<Value>> = BTreeMap::new();
        for record in json(&g.folder.join("compute_z.json")).as_array().unwrap() {
            let key = record["key"].as_str().unwrap();
            let tag = key.trim_start_matches('z').split(".layer").next().unwrap().to_string();
            cases.entry((tag, record["z_layer"].as_u64().unwrap() as usize)).or_default().push(record.clone());
        }
        for ((tag, layer), records) in cases {
            let mut settings = settings(main, layer, Site::BlockOutput);
            if tag.contains("c075") {
                settings.clamp = 0.75;
                settings.steps = 20;
            }
            let chosen: Vec<EditRequest> =
                records.iter().map(|r| g.requests[r["request"].as_u64().unwrap() as usize].clone()).collect();
            let targets = optimise(&g.decoder, &g.text, &chosen, &g.grouped, &settings, |_| {}).unwrap();
            let (mut loss, mut early, mut z) = (0f64, 0f64, 0f64);
            for (record, target) in records.iter().zip(&targets) {
                let key = record["key"].as_str().unwrap();
                let steps = record["steps"].as_array().unwrap();
                assert_eq!(target.trace.len(), steps.len(), "{} {key}: number of steps", g.name);
                for (i, (ours, theirs)) in target.trace.iter().zip(steps).enumerate() {
                    let difference = (f64::from(ours.loss) - theirs["loss"].as_f64().unwrap()).abs();
                    loss = loss.max(difference);
                    if i < 5 {
                        early = early.max(difference);
                    }
                }
                let initial = file.get(&format!("{key}.target_init"));
                let delta = file.get(&format!("{key}.delta"));
                let theirs: Vec<f32> = initial.iter().zip(&delta).map(|(a, b)| a + b).collect();
                z = z.max(relative(&target.value(), &theirs));
            }
            println!("{} z{tag} layer {layer}: loss {early:.1e} {loss:.1e}, z {z:.1e}", g.name);
            assert!(early < 1e-4 && loss < 1e-3 && z < 1e-3, "{} {tag} {layer}: {early} {loss} {z}", g.name);
        }
    }
}

#[test]
fn whole_edits() {
    for g in golden() {
        let moments = g.moments();
        for experiment in json(&g.folder.join("experiments.json")).as_array().unwrap() {
            let id = experiment["id"].as_str().unwrap();
            let h = &experiment["hparams"];
            let list = |v: &Value| -> Vec<usize> {
                v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
            };
            let layers = list(&experiment["layers"]);
            let chosen: Vec<EditRequest> =
                list(&experiment["requests"]).iter().map(|&i| g.requests[i].clone()).collect();
            let target_layer = *layers.last().unwrap();
            let settings = settings(h, target_layer, Site::BlockOutput);
            let targets = optimise(&g.decoder, &g.text, &chosen, &g.grouped, &settings, |_| {}).unwrap();
            let values: Vec<f32> = targets.iter().flat_map(palinode_edit::Target::value).collect();
            let preservation =
                Preservation { lambda: number(h, "mom2_update_weight"), rho: number(h, "update_norm_lambda") };
            let factors: BTreeMap<usize, Factor> =
                layers.iter().map(|&l| (l, Factor::new(&moments[&l], preservation).unwrap())).collect();
            let objective = match experiment["alg"].as_str().unwrap() {
                "memit" => Objective::Memit,
                _ => Objective::Emmet { epsilon: number(h, "emmet_lambda") },
            };
            let plan = Strategy::Memit.plan(&layers).unwrap();
            let edit = Edit {
                objective,
                plan: &plan,
                templates: &g.grouped,
                targets: settings,
                parallel_requests: 32,
                tokens: 4096,
            };
            let edits = apply(&g.decoder, &g.text, &chosen, &values, &factors, &edit).unwrap().layers;
            let file = File::open(g.folder.join(format!("{id}.safetensors")));
            let (d, f) = (g.decoder.config().hidden, g.decoder.config().feed_forward);
            for e in &edits {
                let layer = e.layer;
                let resid = from_row_major("r", &file.get(&format!("layer{layer}.resid")), d, chosen.len()).unwrap();
                let adj = from_row_major("a", &file.get(&format!("layer{layer}.adj_k")), f, chosen.len()).unwrap();
                let difference = relative_mat(&e.update.dense(), &(&resid * adj.transpose()));
                let tiny = g.name != "gpt2";
                let tolerance = match layer {
                    _ if preservation.rho > 0.0 => 2e-4,
                    _ if tiny => 2e-4,
                    0 => 5e-3,
                    _ => 2e-2,
                };
                let expected = &experiment["per_layer"][layer.to_string()];
                let norm = expected["delta_fro"].as_f64().unwrap();
                let of_norm = (e.diagnostics.frobenius / norm - 1.0).abs();
                println!("{} {id} layer {layer}: {difference:.1e} of {tolerance:.0e}, norm {of_norm:.1e}", g.name);
                assert!(difference < tolerance, "{} {id} layer {layer}: {difference}", g.name);
                assert!(of_norm < 1e-3, "{} {id} layer {layer}: norm {of_norm}", g.name);
                let weight = expected["orig_weight_fro"].as_f64().unwrap();
                assert!((e.weight_norm / weight - 1.0).abs() < 1e-4, "{} {id}: {} {weight}", g.name, e.weight_norm);
            }
        }
    }
}

#[test]
fn rome_edits() {
    for g in golden() {
        let moments = g.moments();
        let file = File::open(g.folder.join("rome.safetensors"));
        for record in json(&g.folder.join("rome.json")).as_array().unwrap() {
            let id = record["id"].as_str().unwrap();
            // Beside the edits, the file holds a summary of each run.
            let Some(edit_number) = record["edit"].as_u64() else { continue };
            let Some(layer) = record["layers"][0].as_u64().map(|l| l as usize) else { continue };
            let request = vec![g.requests[record["request"].as_u64().unwrap() as usize].clone()];
            let settings = settings(&record["hparams"], layer, Site::MlpOutput);
            let target = optimise(&g.decoder, &g.text, &request, &g.flat, &settings, |_| {}).unwrap().remove(0);
            let steps = record["trace"]["steps"].as_array().unwrap();
            assert_eq!(target.trace.len(), steps.len(), "{} {id}", g.name);
            let plan = Strategy::Single.plan(&[layer]).unwrap();
            let factor = Factor::new(&moments[&layer], Preservation { lambda: 1.0, rho: 0.0 }).unwrap();
            let edit = Edit {
                objective: Objective::Rome { key: RomeKey::Reference },
                plan: &plan,
                templates: &g.flat,
                targets: settings,
                parallel_requests: 1,
                tokens: 4096,
            };
            let factors = BTreeMap::from([(layer, factor)]);
            let ours = apply(&g.decoder, &g.text, &request, &target.value(), &factors, &edit)
                .unwrap()
                .layers
                .remove(0)
                .update
                .dense();
            let (d, f) = (g.decoder.config().hidden, g.decoder.config().feed_forward);
            let stem = format!("{id}.edit{edit_number}");
            let left = from_row_major("l", &file.get(&format!("{stem}.left_vector_f64run")), 1, f).unwrap();
            let right = from_row_major("r", &file.get(&format!("{stem}.right_vector_f64run")), d, 1).unwrap();
            let difference = relative_mat(&ours, &(right * left));
            let tolerance = if layer == 0 { 5e-3 } else { 2e-2 };
            println!("{} {id}: {difference:.1e} of {tolerance:.0e}", g.name);
            assert!(difference < tolerance, "{} {id}: {difference}", g.name);
        }
    }
}
