//! After-care alone against the authors' code: their change before it, and the weights, go in; what they kept must come out.

use burn::tensor::Device;
use palinode_edit::with_edits;
use palinode_golden::Folder;
use palinode_math::{Delta, LowRank, Mat, from_row_major, rect};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, WeightId, read};

pub fn decoder() -> Decoder {
    let model = Folder::given().folder("gpt2").folder("model");
    let config = DecoderConfig::read(&model.file("config.json")).unwrap();
    let files: Vec<_> = Checkpoint::files(model.path()).unwrap().iter().map(|f| model.path().join(f)).collect();
    Decoder::load(&Checkpoint::open(&files).unwrap(), &config, &Device::flex()).unwrap()
}

/// A weight, `[out, in]`.
pub fn weight(decoder: &Decoder, id: WeightId) -> Mat<f64> {
    let weight = decoder.weight(id).unwrap();
    let [input, out] = weight.dims();
    let values: Vec<f32> = read(weight).unwrap();
    from_row_major("weight", &values, input, out).unwrap().transpose().to_owned()
}

/// RECT after each of four batches, on the weights that the batch before left.
#[test]
fn rect_keeps_what_the_authors_keep() {
    let folder = Folder::given().folder("followups").folder("gpt2");
    let file = folder.tensors("rect.safetensors");
    let experiments = folder.json("experiments.json").list();
    let experiment = experiments.into_iter().find(|it| it.field("id").text() == "rect").expect("the experiment `rect`");
    let layers = experiment.field("layers").wholes();
    let mut model = decoder();
    let mut compared = 0;
    for (b, batch) in experiment.field("batches").list().iter().enumerate() {
        for &layer in &layers {
            let id = WeightId::down(layer);
            let matrix = |name: &str| {
                let (shape, values) = file.floats(&format!("b{b}.layer{layer}.{name}"));
                from_row_major("golden", &values, shape[0], shape[1]).unwrap()
            };
            let change = LowRank { left: matrix("resid"), right: matrix("adj_k").transpose().to_owned() };
            let [out, input] = [change.left.nrows(), change.right.ncols()];
            let kept = rect(&change.into(), weight(&model, id).as_ref(), 0.4).unwrap();
            let Delta::Sparse(entries) = &kept else { panic!("{kept:?} is not sparse") };
            let facts = batch.field("per_layer").field(&layer.to_string());
            assert_eq!(entries.values().len(), facts.field("kept").whole(), "batch {b}, layer {layer}");
            let norm = facts.field("applied_fro").number();
            assert!((kept.frobenius() / norm - 1.0).abs() < 1e-5, "batch {b}, layer {layer}: {}", kept.frobenius());
            // Theirs lies as GPT-2 stores the weight, [in, out].
            let theirs = file.bits(&format!("b{b}.layer{layer}.mask_bits"));
            assert_eq!(theirs.len(), out * input);
            let other = entries.entries().filter(|([i, j], _)| !theirs[j * out + i]).count();
            println!("batch {b}, layer {layer}: {other} of {} entries are others", entries.values().len());
            // Their threshold is compared in f32, and from the second batch on the weights are theirs as far as f32 goes.
            assert!(other <= entries.values().len() / 10_000, "batch {b}, layer {layer}: {other}");
            model = with_edits(&model, [(id, &kept)]).unwrap();
            compared += 1;
        }
    }
    assert_eq!(compared, 12);
}
