//! Second moments of another layer, another model of the same width, or another scale, loaded for the demo model: each is found, and the right
//! ones pass.

mod common;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use common::{Bench, artifact};
use palinode_edit::{Precision, write_moment};
use palinode_engine::{Event, Observer, Outcome, RunOptions, Store, run};
use palinode_math::SecondMoment;
use palinode_model::{Decoder, DecoderConfig, Parameters, save::write_weights};
use palinode_stages::catalogue;
use safetensors::{Dtype, SafeTensors};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model").canonicalize().unwrap()
}

fn measure(model: &Path) -> String {
    format!(
        "
name: measure
stages:
  model: {{ uses: load_model, with: {{ path: {} }} }}
  moments: {{ uses: covariance, inputs: {{ model: model }}, with: {{ corpus: {}/corpus.txt, layers: [0, 1, 2], samples: 1200 }} }}
",
        model.display(),
        demo().display()
    )
}

/// The second moments of layers 0 to 2 of a model.
fn moments(bench: &Bench, model: &Path) -> Vec<SecondMoment> {
    let report = bench.run(&measure(model));
    let made = artifact(&report, "moments");
    let layer = |layer: usize| {
        let bytes = std::fs::read(bench.blob(made, &format!("layer{layer}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let sum = file.tensor("sum").unwrap();
        let values: Vec<f64> = sum.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
        SecondMoment::from_sum(&values, sum.shape()[0], made.meta["layers"][layer]["tokens"].as_u64().unwrap()).unwrap()
    };
    (0..3).map(layer).collect()
}

/// Keeps what is said.
#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Observer for Said {
    fn event(&self, event: &Event) {
        match event {
            Event::Warning { message, .. } => self.0.lock().unwrap().push(format!("warning: {message}")),
            Event::Said { line, .. } => self.0.lock().unwrap().push(line.clone()),
            _ => {}
        }
    }
}

/// Loads a file for a layer of the demo model: what was said, and the message where it failed.
fn load(bench: &Bench, layer: usize, file: &str, more: &str) -> (String, bool) {
    let yaml = format!(
        "
name: load
stages:
  model: {{ uses: load_model, with: {{ path: {}/model }} }}
  moments: {{ uses: load_moments, inputs: {{ model: model }}, with: {{ files: {{ {layer}: {file} }}{more} }} }}
",
        demo().display()
    );
    let pipeline = match bench.load(&yaml) {
        Ok(pipeline) => pipeline,
        Err(mistakes) => return (mistakes.to_string(), false),
    };
    let store = Arc::new(Store::open(&bench.path(".palinode")).unwrap());
    let said = Arc::new(Said::default());
    let observer: Arc<dyn Observer> = Arc::clone(&said) as _;
    let report = run(&pipeline, &catalogue(), &store, &RunOptions::default(), &observer).unwrap();
    let mut text = said.0.lock().unwrap().join("\n");
    let failed = report.failure();
    if let Some((stage, _)) = failed {
        let Outcome::Failed { message, hint, .. } = &stage.outcome else { unreachable!() };
        text += &format!("\nfailed: {message} ({})", hint.as_ref().map(ToString::to_string).unwrap_or_default());
    }
    (text, failed.is_none())
}

#[test]
fn foreign_second_moments_are_found() {
    let bench = Bench::new();
    let own = moments(&bench, &demo().join("model"));
    let write = |moment: &SecondMoment, name: &str| {
        write_moment(moment, Some(1200), None, Precision::Single, &bench.path(name)).unwrap();
    };
    write(&own[0], "zero.npz");
    write(&own[2], "two.npz");
    let check = |layer, file: &str, more: &str, passes: bool, words: &str| {
        let (said, passed) = load(&bench, layer, file, more);
        assert!(passed == passes && said.contains(words), "{file} for layer {layer}: {said}");
        said
    };

    // The right ones pass, and without a warning on a text like their corpus: its own text is Palinode's.
    for (layer, file) in [(0, "zero.npz"), (2, "two.npz")] {
        let said = check(layer, file, "", true, "the mean of kᵀC⁻¹k/f on a text of Palinode's own is");
        assert!(!said.contains("warning"), "{said}");
    }
    std::fs::copy(demo().join("corpus.txt"), bench.path("text.txt")).unwrap();
    check(2, "two.npz", ", check_text: text.txt", true, "on `check_text` is");

    // Another layer, which its contents show, and its name.
    let said = check(0, "two.npz", "", false, "the mean of kᵀC⁻¹k/f");
    assert!(said.contains("another layer") && said.contains("accept_moments: true"), "{said}");
    check(0, "two.npz", ", accept_moments: true", true, "warning: layer 0: the mean of kᵀC⁻¹k/f");
    write(&own[2], "transformer.h.2.mlp.c_proj_float32_mom2_1200.npz");
    check(
        0,
        "transformer.h.2.mlp.c_proj_float32_mom2_1200.npz",
        "",
        false,
        "by its name it is of layer 2, not of layer 0",
    );

    // The sum in the place of the mean, and the mean in the place of the sum.
    let f = own[0].size();
    write(&SecondMoment::from_sum(&own[0].sum(), f, 1).unwrap(), "sum.npz");
    check(0, "sum.npz", "", false, "far below 1");
    let mean: Vec<f64> = own[0].sum().iter().map(|v| v / own[0].count() as f64).collect();
    write(&SecondMoment::from_sum(&mean, f, own[0].count()).unwrap(), "mean.npz");
    check(0, "mean.npz", "", false, "far above 1");

    // Another model of the same width.
    let other = bench.path("other");
    std::fs::create_dir(&other).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(demo().join("model").join(name), other.join(name)).unwrap();
    }
    let config = DecoderConfig::read(&other.join("config.json")).unwrap();
    let device = Device::flex();
    let decoder = Decoder::from_parameters(config.clone(), Parameters::random(&config, &device));
    write_weights(&decoder, Dtype::F32, &other.join("model.safetensors")).unwrap();
    write(&moments(&bench, &other)[0], "other.npz");
    check(0, "other.npz", "", false, "far above 1");

    // What cannot be judged is said.
    let identity: Vec<f64> = (0..f * f).map(|i| if i % (f + 1) == 0 { 9000.0 } else { 0.0 }).collect();
    write(&SecondMoment::from_sum(&identity, f, 9000).unwrap(), "identity.npz");
    check(0, "identity.npz", "", true, "warning: layer 0: the second moment is the identity");
    let mut thin = SecondMoment::new(f);
    thin.add(&vec![0.5; f]).unwrap();
    write(&thin, "thin.npz");
    check(0, "thin.npz", "", true, "warning: layer 0: the second moment is singular");
}

/// Files that Palinode wrote say which model's and which layer's they are, which is compared exactly.
#[test]
fn exported_files_are_taken_for_no_other() {
    let bench = Bench::new();
    let yaml = measure(&bench.path("gpt2")).replace("samples: 1200", "samples: 300")
        + "  out: { uses: export_moments, inputs: { model: model, moments: moments }, with: { path: stats } }\n";
    let files = artifact(&bench.run(&yaml), "out").meta["files"].clone();
    std::fs::rename(bench.path(files[1].as_str().unwrap()), bench.path("one.npz")).unwrap();
    let load = |model: &str, layer: usize, more: &str| {
        let yaml = format!(
            "
name: load
stages:
  model: {{ uses: load_model, with: {{ path: {model} }} }}
  moments: {{ uses: load_moments, inputs: {{ model: model }}, with: {{ files: {{ {layer}: one.npz }}{more} }} }}
"
        );
        match bench.load(&yaml) {
            Err(mistakes) => mistakes.to_string(),
            Ok(_) => bench.run(&yaml).failure().map_or_else(String::new, |(stage, _)| format!("{:?}", stage.outcome)),
        }
    };
    assert_eq!(load("gpt2", 1, ""), "");
    let said = load("gpt2", 2, "");
    assert!(said.contains("it is of layer 1, as it says itself, not of layer 2") && said.contains("one.npz"), "{said}");
    let other = bench.path("other");
    std::fs::create_dir(&other).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        std::fs::copy(bench.path("gpt2").join(name), other.join(name)).unwrap();
    }
    let config = DecoderConfig::read(&other.join("config.json")).unwrap();
    let decoder = Decoder::from_parameters(config.clone(), Parameters::random(&config, &Device::flex()));
    write_weights(&decoder, Dtype::F32, &other.join("model.safetensors")).unwrap();
    let said = load("other", 1, "");
    assert!(said.contains("was measured on another model"), "{said}");
    assert_eq!(load("other", 1, ", accept_moments: true"), "");
}
