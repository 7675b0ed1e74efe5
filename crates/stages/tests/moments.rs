//! Second moments from elsewhere are as good as those that were measured here.

mod common;

use common::{Bench, PIPELINE, artifact};
use palinode_edit::{Precision, write_moment};
use palinode_math::SecondMoment;
use safetensors::SafeTensors;

#[test]
fn published_moments_give_the_same_update() {
    let bench = Bench::new();
    let yaml = PIPELINE.replace("MODEL", "gpt2");
    let report = bench.run(&yaml);
    let moments = artifact(&report, "moments");
    for layer in moments.meta["layers"].as_array().unwrap() {
        let number = layer["layer"].as_u64().unwrap();
        let bytes = std::fs::read(bench.blob(moments, &format!("layer{number}.safetensors"))).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let sum = tensors.tensor("sum").unwrap();
        let values: Vec<f64> = sum.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
        let moment = SecondMoment::from_sum(&values, sum.shape()[0], layer["tokens"].as_u64().unwrap()).unwrap();
        write_moment(&moment, Some(120), Precision::Double, &bench.path(&format!("{number}.npz"))).unwrap();
    }
    let measured = "{ uses: covariance, inputs: { model: model }, with: { corpus: corpus.txt, layers: [1, 2] } }";
    let loaded = "{ uses: load_moments, inputs: { model: model }, with: { files: { 1: 1.npz, 2: 2.npz } } }";
    assert!(yaml.contains(measured));
    let ran = bench.ran(&yaml.replace(measured, loaded));
    // They are the same contents, so that nothing after them has to be done again.
    assert!(ran.contains(&"moments".to_owned()) && !ran.iter().any(|name| name.starts_with("scores")), "{ran:?}");
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let bench = Bench::new();
    let yaml = |files: &str| {
        format!(
            "name: m\nstages:\n  model: {{ uses: load_model, with: {{ path: gpt2 }} }}\n  moments: {{ uses: load_moments, \
             inputs: {{ model: model }}, with: {{ files: {files} }} }}\n"
        )
    };
    let told = |files: &str| bench.load(&yaml(files)).map(|_| ()).unwrap_err().to_string();
    assert!(told("{}").contains("`files` is empty"));
    assert!(told("{ 1: none.npz }").contains("none.npz"));
    let path = bench.path("small.npz");
    let moment = SecondMoment::from_sum(&[2.0, 1.0, 1.0, 2.0], 2, 10).unwrap();
    write_moment(&moment, None, Precision::Single, &path).unwrap();
    assert!(told("{ 7: small.npz }").contains("the model has no layer 7"));
    let report = bench.run(&yaml("{ 1: small.npz }"));
    let failed = format!("{:?}", report.stages.iter().find(|stage| stage.instance == "moments").unwrap().outcome);
    assert!(failed.contains("keys of size 2, but the model's are of size 128"), "{failed}");
}
