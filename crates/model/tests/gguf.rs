//! GGUF files against the folders that they were made of, against the dequantization of the format's own package, and written again.

mod transformers;

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use palinode_golden::Folder;
use palinode_model::save::Change;
use palinode_model::{
    Checkpoint, Decoder, DecoderConfig, EditedType, Layout, ModelError, Positions, Rotary, RotaryScaling, Text,
    companions_of_gguf, copy_gguf_with_changes, inspect, write_gguf_as_safetensors,
};
use serde_json::Value;
use transformers::{difference, largest_difference};

/// Made by scripts/make_gguf_fixtures.py of the folders beside them.
const FAMILIES: [&str; 7] = [
    "gpt2-tiny",
    "gpt_neox-tiny",
    "gpt_neox-sequential-tiny",
    "llama2-tiny",
    "llama3-tiny",
    "qwen2-tiny",
    "qwen3-tiny",
];

/// Of the small ones, whose constants are those of their families.
const SMALL: [&str; 10] = [
    "gemma2-tiny",
    "phi3-tiny",
    "olmo-tiny",
    "granite-tiny",
    "cohere-tiny",
    "glm4-tiny",
    "ministral3-tiny",
    "bloom-tiny",
    "falcon-tiny",
    "mpt-tiny",
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn gguf(name: &str) -> PathBuf {
    fixtures().join(format!("gguf/{name}.gguf"))
}

fn open(path: &Path) -> (Checkpoint, DecoderConfig) {
    (Checkpoint::open(&[path.to_owned()]).unwrap(), DecoderConfig::read(path).unwrap())
}

fn decoder(path: &Path) -> Decoder {
    let (checkpoint, config) = open(path);
    Decoder::load(&checkpoint, &config, &Device::flex()).unwrap()
}

fn values(checkpoint: &Checkpoint, name: &str, shape: &[usize]) -> Vec<f32> {
    let mut values = Vec::new();
    checkpoint.read_rows(name, shape, |_, rows| values.extend_from_slice(rows)).unwrap();
    values
}

/// Tensors put back into order, the configuration and what it leaves out: logits are those of transformers for the folder.
#[test]
fn logits_of_every_family() {
    for name in FAMILIES.into_iter().chain(SMALL) {
        let decoder = decoder(&gguf(name));
        let mut folder = DecoderConfig::read(&fixtures().join(name).join("config.json")).unwrap();
        // The format knows no windows of this architecture.
        let mut logits = fixtures().join(name);
        if name == "qwen2-tiny" {
            folder.windows.clear();
            logits = fixtures().join("gguf").join(name);
        }
        // Numbers that the file has in f32.
        if let Positions::Rotary(Rotary { scaling: Some(RotaryScaling::Each { factors, attention }), .. }) =
            &mut folder.positions
        {
            *attention = (*attention as f32).to_string().parse().unwrap();
            for factor in factors {
                *factor = f64::from(*factor as f32);
            }
        }
        let worst = difference(&decoder, &Folder::at(logits));
        assert!(worst < 1e-4, "{name}: {worst}");
        let (checkpoint, config) = open(&gguf(name));
        assert_eq!(config, folder, "{name}");
        let layout = Layout::of(&config);
        let path = fixtures().join(name).join("model.safetensors");
        let stored = Checkpoint::open(&[path]).unwrap();
        for (tensor, shape) in layout.tensors(&config) {
            let (ours, theirs) = (values(&checkpoint, &tensor, &shape), values(&stored, &tensor, &shape));
            // What is added to 1 loses digits that 1 has no room for.
            let off = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(off <= if config.norm_plus_one { 1e-7 } else { 0.0 }, "{name}: {tensor}: {off}");
            assert_eq!(ours.len(), theirs.len(), "{name}: {tensor}");
        }
    }
}

#[test]
fn tokens_of_every_family() {
    for name in FAMILIES {
        let text = Text::open(&gguf(name)).unwrap();
        let cases: Value =
            serde_json::from_slice(&fs::read(fixtures().join(name).join("tokens.json")).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let given = case["text"].as_str().unwrap();
            assert_eq!(text.encode(given).unwrap(), expected, "{name}: {given:?}");
        }
        let target = text.encode_target("Parma").unwrap();
        assert_eq!(text.decode_target(&target).unwrap(), " Parma", "{name}");
    }
}

/// Digits, spaces, emoji, other scripts: split as the named pre-tokenizer splits them.
#[test]
fn tokens_of_every_pre_tokenizer() {
    let all: Value = serde_json::from_slice(&fs::read(fixtures().join("gguf/vocabularies.json")).unwrap()).unwrap();
    let all = all.as_object().unwrap();
    assert_eq!(all.len(), 5);
    for (name, cases) in all {
        let text = Text::open(&gguf(name)).unwrap();
        for case in cases.as_array().unwrap() {
            let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let given = case["text"].as_str().unwrap();
            assert_eq!(text.encode(given).unwrap(), expected, "{name}: {given:?}");
        }
    }
}

/// Every type, to the last bit, rows of quantized projections put back into order among them; and what is computed with them.
#[test]
fn values_of_every_type() {
    let (checkpoint, config) = open(&gguf("types"));
    let expected = Folder::at(fixtures().join("gguf")).tensors("types.safetensors");
    let layout = Layout::of(&config);
    let mut kinds = std::collections::BTreeSet::new();
    for (name, shape) in layout.tensors(&config) {
        let ours: Vec<f64> = values(&checkpoint, &name, &shape).into_iter().map(f64::from).collect();
        let (kind, _) = checkpoint.stored(&name).unwrap();
        assert_eq!(ours, expected.values(&name), "{name} ({kind})");
        kinds.insert(kind);
    }
    assert_eq!(kinds.len(), 13, "{kinds:?}");
    let worst = difference(&decoder(&gguf("types")), &Folder::at(fixtures().join("gguf/types")));
    assert!(worst < 1e-4, "{worst}");
}

/// What a folder is made of, edited or not, computes what the file does.
#[test]
fn as_a_folder() {
    for name in ["gpt2-tiny", "llama2-tiny", "types"] {
        let source = gguf(name);
        let out = tempfile::tempdir().unwrap();
        for (file, text) in companions_of_gguf(&source).unwrap() {
            fs::write(out.path().join(file), text).unwrap();
        }
        write_gguf_as_safetensors(&source, &out.path().join("model.safetensors"), &[]).unwrap();
        let folder = Folder::at(out.path());
        let at = if name == "types" { fixtures().join("gguf/types") } else { fixtures().join(name) };
        assert!(largest_difference(&folder, &Folder::at(at)) < 1e-4, "{name}");
        assert_eq!(inspect(out.path()).unwrap().editable.len(), inspect(&source).unwrap().editable.len());
        let text = Text::open(&out.path().join("tokenizer.json")).unwrap();
        let text = text.with_settings(&out.path().join("tokenizer_config.json")).unwrap();
        assert_eq!(text.facts(), Text::open(&source).unwrap().facts(), "{name}");
    }
}

/// An edited tensor has the change, as near as its type holds it; every other byte of the tensors and of the metadata stays.
#[test]
fn written_again() {
    for (name, kind, near) in
        [("types", EditedType::F16, 1e-3), ("types", EditedType::Q8, 1e-2), ("gpt2-tiny", EditedType::F16, 1e-6)]
    {
        let source = gguf(name);
        let (before, config) = open(&source);
        let layout = Layout::of(&config);
        let (out, input) = (config.hidden, config.feed_forward);
        let delta: Vec<f32> = (0..out * input).map(|i| (i as f32 * 0.37).sin() * 0.2).collect();
        let change = Change { name: layout.edited_weight(1), part: None, out, input, delta: delta.clone() };
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("edited.gguf");
        let changed = copy_gguf_with_changes(&source, &target, std::slice::from_ref(&change), kind).unwrap();
        assert_eq!((changed.len(), &changed[0].name), (1, &change.name));
        assert!(changed[0].lost < 0.02 && (changed[0].lost == 0.0) == (name == "gpt2-tiny"), "{changed:?}");
        let (after, again) = open(&target);
        assert_eq!(again, config);
        for (tensor, shape) in layout.tensors(&config) {
            let (old, new) = (values(&before, &tensor, &shape), values(&after, &tensor, &shape));
            if tensor == change.name {
                let turned = shape == [input, out];
                for (i, (old, new)) in old.iter().zip(&new).enumerate() {
                    let at = if turned { i % out * input + i / out } else { i };
                    assert!((old + delta[at] - new).abs() < near, "{name}: {old} + {} is {new}", delta[at]);
                }
            } else {
                assert_eq!(old, new, "{name}: {tensor}");
                assert_eq!(before.stored(&tensor).unwrap().0, after.stored(&tensor).unwrap().0);
            }
        }
        // Nothing changed: the same bytes.
        copy_gguf_with_changes(&source, &target, &[], kind).unwrap();
        assert!(fs::read(&source).unwrap() == fs::read(&target).unwrap(), "{name}: a copy differs");
    }
}

/// Files that are damaged, or made to do harm: an error, no panic, and no memory for what a file merely claims.
#[test]
fn damaged_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let whole = fs::read(gguf("llama2-tiny")).unwrap();
    let said = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let open = || -> Result<(), ModelError> {
            let config = DecoderConfig::read(&path)?;
            Decoder::load(&Checkpoint::open(std::slice::from_ref(&path))?, &config, &Device::flex())?;
            Text::open(&path)?;
            Ok(())
        };
        let error = open().expect_err("a damaged file was opened");
        assert_eq!(error.to_string(), inspect(&path).expect_err("it was inspected").to_string());
        error.to_string().replace(&dir.path().display().to_string(), "DIR")
    };
    let at = |text: &str| whole.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
    let with = |place: usize, bytes: &[u8]| {
        let mut spoiled = whole.clone();
        spoiled[place..place + bytes.len()].copy_from_slice(bytes);
        spoiled
    };
    let tokens = at("tokenizer.ggml.tokens") + "tokenizer.ggml.tokens".len();
    let tensor = at("blk.0.ffn_down.weight") + "blk.0.ffn_down.weight".len();
    let cases = [
        ("version 1", with(4, &1u32.to_le_bytes())),
        ("big-endian", with(4, &3u32.to_be_bytes())),
        ("a billion tensors", with(8, &1_000_000_000u64.to_le_bytes())),
        ("all the keys there are", with(16, &u64::MAX.to_le_bytes())),
        ("a longer key", with(24, &u64::MAX.to_le_bytes())),
        ("another architecture", with(at("llama"), b"mamba")),
        ("a list of lists", with(tokens + 4, &9u32.to_le_bytes())),
        ("a longer list", with(tokens + 8, &(1u64 << 40).to_le_bytes())),
        ("a longer token", with(tokens + 16, &(1u64 << 60).to_le_bytes())),
        ("nine sides", with(tensor, &9u32.to_le_bytes())),
        ("a side past counting", with(tensor + 4, &(u64::MAX / 8).to_le_bytes())),
        ("another shape", with(tensor + 12, &16u64.to_le_bytes())),
        ("IQ4_XS", with(tensor + 20, &23u32.to_le_bytes())),
        ("a type of the future", with(tensor + 20, &977u32.to_le_bytes())),
        ("a place between places", with(tensor + 24, &33u64.to_le_bytes())),
        ("a place past the end", with(tensor + 24, &(1u64 << 62).to_le_bytes())),
        ("another tensor's name", with(at("blk.0.ffn_down"), b"blk.0.ffn_gate")),
        ("a tensor that no llama has", with(at("blk.0.ffn_down"), b"blk.0.ffn_norx")),
        ("the same vocabulary kind, but not", with(at("tokenizer.ggml.model") + 32, b"rwkvx")),
        ("half of it", whole[..whole.len() / 2].to_vec()),
        ("its beginning", whole[..200].to_vec()),
    ];
    let mut text = String::new();
    for (what, bytes) in cases {
        text += &format!("── {what}\n{}\n", said(&bytes));
    }
    // Cut anywhere in the description.
    for end in (4..tensor).step_by(97) {
        said(&whole[..end]);
    }
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => true }, {
        insta::assert_snapshot!("damaged_files", text);
    });
}

#[test]
fn names_that_are_not_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let whole = fs::read(gguf("smollm")).unwrap();
    let name = whole.windows(14).position(|window| window == b"\x06\0\0\0\0\0\0\0smollm").unwrap() + 8;
    let mut spoiled = whole.clone();
    spoiled[name..name + 6].copy_from_slice(b"smolln");
    fs::write(&path, &spoiled).unwrap();
    let error = Text::open(&path).unwrap_err().to_string();
    assert!(error.contains("the pre-tokenizer \"smolln\" is not supported (supported: gpt-2, "), "{error}");
}
