//! Logits against the ones that transformers computed. `logits.rs` gives it the fixtures, the comparison with golden numbers the
//! trained model.

use std::path::Path;

use burn::tensor::Device;
use palinode_golden::Folder;
use palinode_model::{Checkpoint, Decoder, DecoderConfig};

/// The model in a folder of Hugging Face's layout.
pub fn load(folder: &Path) -> Decoder {
    let config = DecoderConfig::read(&folder.join("config.json")).unwrap();
    let files: Vec<_> = Checkpoint::files(folder).unwrap().iter().map(|f| folder.join(f)).collect();
    Decoder::load(&Checkpoint::open(&files).unwrap(), &config, &Device::flex()).unwrap()
}

/// As [`difference`], for the model in a folder.
pub fn largest_difference(model: &Folder, logits: &Folder) -> f64 {
    difference(&load(model.path()), logits)
}

/// Largest difference over every prompt's last logits (all positions of prompt 0), all prompts in one padded batch.
pub fn difference(decoder: &Decoder, logits: &Folder) -> f64 {
    let file = logits.tensors("logits.safetensors");
    let count = file.names().iter().filter(|n| n.ends_with(".ids")).count();
    assert!(count > 0, "no prompts");
    let rows: Vec<Vec<u32>> = (0..count).map(|i| file.ids(&format!("prompt{i}.ids"))).collect();
    let batch = decoder.rows(&rows);
    let hidden = decoder.hidden(&batch).unwrap().at(&batch.all());
    let all = decoder.logits(hidden).into_data().try_into_vec::<f32>().unwrap();
    let vocab = decoder.config().vocab;
    let row = |i: usize, t: usize| &all[(rows[..i].iter().map(Vec::len).sum::<usize>() + t) * vocab..][..vocab];
    let mut worst = 0f64;
    let mut compare = |ours: &[f32], theirs: &[f64]| {
        assert_eq!(ours.len(), theirs.len());
        for (a, b) in ours.iter().zip(theirs) {
            assert!(a.is_finite(), "a logit is {a}");
            worst = worst.max((f64::from(*a) - b).abs());
        }
    };
    for (i, ids) in rows.iter().enumerate() {
        compare(row(i, ids.len() - 1), &file.values(&format!("prompt{i}.last_logits")));
    }
    let first = file.values("prompt0.all_logits");
    assert_eq!(first.len(), rows[0].len() * vocab);
    for (t, theirs) in first.chunks_exact(vocab).enumerate() {
        compare(row(0, t), theirs);
    }
    worst
}
