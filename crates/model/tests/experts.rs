//! Mixtures of experts as transformers 5 holds them: all experts of a layer in two tensors, which give the same model.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use palinode_golden::family;
use palinode_model::save::{Change, ChangedType, Written, copy_with_changes};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, ExpertId, Layout, ModelError, WeightId, read};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize_to_file};

type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

const MIXTURES: [&str; 4] = ["mixtral-tiny", "qwen2_moe-tiny", "qwen3_moe-tiny", "olmoe-tiny"];

fn config(name: &str) -> DecoderConfig {
    DecoderConfig::read(&family(name).join("config.json")).unwrap()
}

/// The tensors of a fixture, all of which are f16, with the experts of each layer in two.
fn fused(name: &str) -> Tensors {
    let bytes = std::fs::read(family(name).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = Tensors::new();
    for (name, view) in file.tensors() {
        assert_eq!(view.dtype(), Dtype::F16);
        // As transformers 5 calls Mixtral's.
        let name = name.replace(".block_sparse_moe.", ".mlp.");
        let name = name.replace(".w1.", ".gate_proj.").replace(".w3.", ".up_proj.").replace(".w2.", ".down_proj.");
        tensors.insert(name, (view.shape().to_vec(), view.data().to_vec()));
    }
    let config = config(name);
    for layer in 0..config.layers {
        let Some(experts) = config.mixture(layer) else { continue };
        let stem = format!("model.layers.{layer}.mlp.experts");
        for (whole, parts) in [("gate_up_proj", &["gate_proj", "up_proj"][..]), ("down_proj", &["down_proj"][..])] {
            let (mut all, mut shape) = (Vec::new(), Vec::new());
            for expert in 0..experts.count {
                for part in parts {
                    let (own, values) = tensors.remove(&format!("{stem}.{expert}.{part}.weight")).unwrap();
                    shape = vec![experts.count, own[0] * parts.len(), own[1]];
                    all.extend(values);
                }
            }
            tensors.insert(format!("{stem}.{whole}"), (shape, all));
        }
    }
    tensors
}

fn write(tensors: &Tensors, path: &Path) {
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F16, shape.clone(), bytes).unwrap()))
        .collect();
    serialize_to_file(views, None, path).unwrap();
}

fn load(path: &Path, config: &DecoderConfig) -> Result<Decoder, ModelError> {
    Decoder::load(&Checkpoint::open(&[path.to_owned()])?, config, &Device::flex())
}

fn logits(decoder: &Decoder) -> Vec<f32> {
    let ids: Vec<u32> = (0..20).map(|i| (i * 7 + 3) % 100).collect();
    let rows = decoder.rows(&[ids]);
    let hidden = decoder.hidden(&rows).unwrap();
    read(decoder.logits(hidden.at(&rows.all()))).unwrap()
}

#[test]
fn experts_in_one_tensor_are_those_in_many() {
    let folder = tempfile::tempdir().unwrap();
    for name in MIXTURES {
        let (config, path) = (config(name), folder.path().join("fused.safetensors"));
        write(&fused(name), &path);
        let apart = load(&family(name).join("model.safetensors"), &config).unwrap();
        assert_eq!(logits(&load(&path, &config).unwrap()), logits(&apart), "{name}");
        let bytes =
            |path: &Path| Checkpoint::open(&[path.to_owned()]).unwrap().bytes_of_blocks(&config, &Layout::of(&config));
        assert_eq!(bytes(&path), bytes(&family(name).join("model.safetensors")), "{name}");
    }
}

/// What is not as config.json says is named, and nothing is read of it.
#[test]
fn other_experts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fused.safetensors");
    let config = config("mixtral-tiny");
    let refused = |spoil: &dyn Fn(&mut Tensors)| {
        let mut tensors = fused("mixtral-tiny");
        spoil(&mut tensors);
        write(&tensors, &path);
        load(&path, &config).map(|_| ()).unwrap_err().to_string()
    };
    let down = "model.layers.1.mlp.experts.down_proj";
    let without = refused(&|tensors| {
        tensors.remove(down);
    });
    assert!(without.contains("no tensor model.layers.1.block_sparse_moe.experts.0.w2.weight"), "{without}");
    let fewer = refused(&|tensors| {
        let (shape, bytes) = tensors.get_mut(down).unwrap();
        bytes.truncate(bytes.len() / shape[0] * 3);
        shape[0] = 3;
    });
    assert!(fewer.contains("no tensor model.layers.1.block_sparse_moe.experts.3.w2.weight"), "{fewer}");
    let turned = refused(&|tensors| tensors.get_mut(down).unwrap().0.swap(1, 2));
    assert!(turned.contains("has shape [12, 16], but config.json implies [16, 12]"), "{turned}");
}

/// A change of two experts is written into the one tensor that they lie in; the others stay as they are.
#[test]
fn changes_are_written_into_one_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let (name, config) = ("mixtral-tiny", config("mixtral-tiny"));
    let layout = Layout::of(&config);
    let [path, edited, apart] = ["fused", "edited", "apart"].map(|name| folder.path().join(name));
    write(&fused(name), &path);
    let changes = |checkpoint: &Checkpoint| -> Vec<Change> {
        let of = |expert: usize| {
            let id = WeightId::of_expert(1, ExpertId::Routed(expert));
            let [out, input] = config.weight_shape(id).unwrap();
            let weight = layout.weight_name(id).unwrap();
            let delta = (0..out * input).map(|i| 0.25 * ((i % 7) as f32 - 3.0)).collect();
            let name = checkpoint.stored_name(&weight).unwrap().to_owned();
            Change { name, part: checkpoint.slice_of(&weight), out, input, delta }
        };
        [3, 0].map(of).to_vec()
    };
    let copy = |from: &Path, to: &Path| {
        let changes = changes(&Checkpoint::open(&[from.to_owned()]).unwrap());
        copy_with_changes(from, to, &changes, layout.orientation, &|_| ChangedType::Stored).unwrap()
    };
    let written = copy(&path, &edited);
    assert_eq!(written.len(), 1);
    assert_eq!(written[0].name, "model.layers.1.mlp.experts.down_proj");
    let each = copy(&family(name).join("model.safetensors"), &apart);
    assert_eq!(each.len(), 2);
    assert!((Written::lost_in_all(&each) - written[0].lost).abs() < 1e-9);
    let (one, many) = (load(&edited, &config).unwrap(), load(&apart, &config).unwrap());
    assert_eq!(logits(&one), logits(&many));
    assert_ne!(logits(&one), logits(&load(&path, &config).unwrap()));
    // All but the changed experts are as they were.
    let [before, after] = [&path, &edited].map(|path| std::fs::read(path).unwrap());
    let [before, after] = [&before, &after].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    for (name, view) in before.tensors() {
        let now = after.tensor(&name).unwrap();
        let same = |range: std::ops::Range<usize>| view.data()[range.clone()] == now.data()[range];
        let size = view.data().len();
        if name == written[0].name {
            assert!(same(size / 4..size / 4 * 3) && !same(0..size / 4) && !same(size / 4 * 3..size));
        } else {
            assert!(same(0..size), "{name}");
        }
    }
}
