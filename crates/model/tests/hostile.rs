//! Folders that are damaged, or made to do harm: an error that names the file, no panic, and no memory for what a file
//! merely claims.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use palinode_model::{Checkpoint, Decoder, DecoderConfig, ModelError, Text, inspect};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A copy of a fixture, to be spoiled.
struct Folder(TempDir);

impl Folder {
    fn of(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        for entry in fs::read_dir(fixture).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn json(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap();
        change(&mut value);
        fs::write(self.path(name), value.to_string()).unwrap();
    }

    /// Rewrites a shard's header, its length with it.
    fn header(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let bytes = fs::read(self.path(name)).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        change(&mut header);
        let text = header.to_string();
        let changed = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &bytes[8 + length..]].concat();
        fs::write(self.path(name), changed).unwrap();
    }

    fn bytes(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        fs::write(self.path(name), bytes).unwrap();
    }

    /// What opening it as a whole says; both ways in must refuse it.
    fn refused(&self) -> String {
        let error = self.load().expect_err("the folder was opened");
        let seen = inspect(self.0.path()).expect_err("the folder was inspected");
        assert_eq!(error.to_string(), seen.to_string());
        let hint = error.hint().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        format!("{error}{hint}").replace(&self.0.path().display().to_string(), "DIR")
    }

    fn load(&self) -> Result<Decoder, ModelError> {
        let config = DecoderConfig::read(&self.path("config.json"))?;
        let files: Vec<_> = Checkpoint::files(self.0.path())?.iter().map(|name| self.path(name)).collect();
        let decoder = Decoder::load(&Checkpoint::open(&files)?, &config, &Device::flex())?;
        Text::open(&self.path("tokenizer.json"))?;
        Ok(decoder)
    }
}

type Spoil = Box<dyn Fn(&Folder)>;

fn check(snapshot: &str, fixture: &str, cases: Vec<(&str, Spoil)>) {
    let mut text = String::new();
    for (what, spoil) in cases {
        let folder = Folder::of(fixture);
        folder.load().unwrap();
        spoil(&folder);
        text += &format!("── {what}\n{}\n", folder.refused());
    }
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => true }, {
        insta::assert_snapshot!(snapshot, text);
    });
}

fn field(name: &'static str, value: Value) -> Spoil {
    Box::new(move |folder| folder.json("config.json", |config| config[name] = value.clone()))
}

#[test]
fn options_without_an_axis() {
    let cases = vec![
        ("an unknown family", field("model_type", json!("mamba"))),
        ("no family", field("model_type", Value::Null)),
        ("quantized", field("quantization_config", json!({"quant_method": "gptq", "bits": 4}))),
        ("a mixture of experts", field("num_local_experts", json!(8))),
        ("a softcap", field("attn_logit_softcapping", json!(50.0))),
        ("a vision model", field("vision_config", json!({"hidden_size": 8}))),
        ("an unknown activation", field("hidden_act", json!("relu2"))),
        ("a mixture of experts by its family", field("model_type", json!("gpt_oss"))),
        ("a mixture of experts that is not stored", field("model_type", json!("qwen3_moe"))),
        ("rope scaling that is not known", field("rope_parameters", json!({"rope_type": "ntk", "factor": 4.0}))),
        ("yarn that shrinks to nothing", field("rope_parameters", json!({"rope_type": "yarn", "factor": -4.0}))),
        (
            "longrope of too few factors",
            field("rope_parameters", json!({"rope_type": "longrope", "short_factor": [1.0]})),
        ),
        ("rope scaling without its numbers", field("rope_parameters", json!({"rope_type": "llama3", "factor": 4.0}))),
        ("rope that differs between layers", field("rope_parameters", json!({"full_attention": {"rope_theta": 1e4}}))),
        ("part of a head rotated", field("partial_rotary_factor", json!(0.5))),
        ("unknown kinds of layers", field("layer_types", json!(["linear_attention", "full_attention", "mamba"]))),
        ("biases that are not stored", field("attention_bias", json!(true))),
        ("a head of its own that is not stored", field("tie_word_embeddings", json!(false))),
        ("fewer layers than are stored", field("num_hidden_layers", json!(2))),
        ("norms that the family has not", field("model_type", json!("llama"))),
    ];
    check("options_without_an_axis", "qwen3-tiny", cases);
}

#[test]
fn experts_that_cannot_be() {
    let cases = vec![
        ("no experts", field("num_experts", json!(0))),
        ("a million experts", field("num_experts", json!(1 << 20))),
        ("more than are stored", field("num_experts", json!(5))),
        ("fewer than are stored", field("num_experts", json!(3))),
        ("more at once than there are", field("num_experts_per_tok", json!(5))),
        ("none at once", field("num_experts_per_tok", json!(0))),
        ("wider ones", field("moe_intermediate_size", json!(9))),
        ("a wider one for all tokens", field("shared_expert_intermediate_size", json!(13))),
        ("no layer of them", field("mlp_only_layers", json!([0, 1, 2]))),
        ("a layer of them that is none", field("mlp_only_layers", json!([]))),
        ("layers that are no list", field("mlp_only_layers", json!("all"))),
        ("every zeroth layer", field("decoder_sparse_step", json!(0))),
        ("a family without one for all tokens", field("model_type", json!("qwen3_moe"))),
    ];
    check("experts_that_cannot_be", "qwen2_moe-tiny", cases);
}

#[test]
fn axes_that_cannot_be() {
    let cases = vec![
        ("a cap below zero", field("attn_logit_softcapping", json!(-1.0))),
        ("a cap that is a text", field("final_logit_softcapping", json!("high"))),
        ("scores divided by zero", field("query_pre_attn_scalar", json!(0))),
        ("a window of nothing", field("sliding_window", json!(0))),
        ("kinds for too few layers", field("layer_types", json!(["full_attention"]))),
        ("tokens that see those behind them", field("use_bidirectional_attention", json!(true))),
        ("a family without norms behind", field("model_type", json!("gemma"))),
    ];
    check("axes_that_cannot_be", "gemma2-tiny", cases);
}

#[test]
fn sizes_that_cannot_be() {
    let cases = vec![
        ("zero layers", field("num_hidden_layers", json!(0))),
        ("a billion layers", field("num_hidden_layers", json!(1_000_000_000))),
        ("minus one head", field("num_attention_heads", json!(-1))),
        ("half a head", field("num_attention_heads", json!(2.5))),
        ("a hidden size past counting", field("hidden_size", json!(u64::MAX))),
        ("heads that cannot share", field("num_key_value_heads", json!(3))),
        ("a head of odd size", field("head_dim", json!(13))),
        ("heads too wide together", field("head_dim", json!(1 << 27))),
        ("a text for a number", field("vocab_size", json!("many"))),
        ("a base of zero", field("rope_parameters", json!({"rope_theta": 0.0, "rope_type": "default"}))),
        ("an epsilon below zero", field("rms_norm_eps", json!(-1.0))),
        (
            "a long text for a number",
            Box::new(|folder| folder.json("config.json", |c| c["vocab_size"] = json!("x".repeat(1 << 20)))),
        ),
        (
            "a configuration of 32 MB",
            Box::new(|folder| folder.json("config.json", |c| c["note"] = json!("x".repeat(32 << 20)))),
        ),
        ("lists in lists", Box::new(|folder| fs::write(folder.path("config.json"), "[".repeat(1 << 20)).unwrap())),
        ("not UTF-8", Box::new(|folder| fs::write(folder.path("config.json"), b"{\"a\": \"\xff\"}").unwrap())),
    ];
    check("sizes_that_cannot_be", "qwen3-tiny", cases);
}

const WEIGHTS: &str = "model.safetensors";
const KEY: &str = "model.norm.weight";

#[test]
fn headers_that_lie() {
    let length = |length: u64| -> Spoil {
        Box::new(move |folder| folder.bytes(WEIGHTS, |bytes| bytes[..8].copy_from_slice(&length.to_le_bytes())))
    };
    let entry = |name: &'static str, value: Value| -> Spoil {
        Box::new(move |folder| folder.header(WEIGHTS, |header| header[KEY][name] = value.clone()))
    };
    let cases = vec![
        ("a header of no length", length(0)),
        ("a header longer than the file", length(1 << 24)),
        ("a header of gigabytes", length(1 << 40)),
        ("a header of all there is", length(u64::MAX)),
        ("a header that is not JSON", Box::new(|folder| folder.bytes(WEIGHTS, |bytes| bytes[8..40].fill(b'{')))),
        ("an end before the beginning", entry("data_offsets", json!([64, 0]))),
        ("an end past the file", entry("data_offsets", json!([0, 1u64 << 50]))),
        ("two tensors in one place", entry("data_offsets", json!([128, 192]))),
        ("a shape that its bytes cannot hold", entry("shape", json!([1u64 << 40]))),
        ("a shape past counting", entry("shape", json!([u64::MAX, u64::MAX]))),
        ("another type of the same size", entry("dtype", json!("I16"))),
        ("a type of another size", entry("dtype", json!("F64"))),
        ("a type that does not exist", entry("dtype", json!("F7"))),
        ("a shape of the same size", entry("shape", json!([2, 16]))),
        ("half the file", Box::new(|folder| folder.bytes(WEIGHTS, |bytes| bytes.truncate(bytes.len() / 2)))),
        ("one byte too many", Box::new(|folder| folder.bytes(WEIGHTS, |bytes| bytes.push(0)))),
        ("four bytes", Box::new(|folder| folder.bytes(WEIGHTS, |bytes| bytes.truncate(4)))),
        ("nothing", Box::new(|folder| folder.bytes(WEIGHTS, Vec::clear))),
        (
            "a tensor less",
            Box::new(|folder| {
                folder.header(WEIGHTS, |header| {
                    let entry = header.as_object_mut().unwrap().remove(KEY).unwrap();
                    header["model.norm.wait"] = entry;
                });
            }),
        ),
    ];
    check("headers_that_lie", "qwen3-tiny", cases);
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn shards_that_are_not_there() {
    let named = |name: &'static str| -> Spoil {
        Box::new(move |folder| folder.json(INDEX, |index| index["weight_map"]["lm_head.weight"] = json!(name)))
    };
    let cases = vec![
        ("a parent's file", named("../model.safetensors")),
        ("an absolute path", named("/etc/passwd")),
        ("a folder's file", named("sub/model.safetensors")),
        ("another system's separator", named("..\\model.safetensors")),
        ("the folder itself", named(".")),
        ("no name", named("")),
        ("an absent file", named("model-00009-of-00004.safetensors")),
        ("a number", Box::new(|folder| folder.json(INDEX, |index| index["weight_map"]["lm_head.weight"] = json!(3)))),
        ("no map", Box::new(|folder| fs::write(folder.path(INDEX), "{}").unwrap())),
        ("an empty map", Box::new(|folder| fs::write(folder.path(INDEX), r#"{"weight_map": {}}"#).unwrap())),
        ("not JSON", Box::new(|folder| fs::write(folder.path(INDEX), "weights").unwrap())),
        (
            "a tensor in two shards",
            Box::new(|folder| {
                fs::copy(folder.path("model-00001-of-00004.safetensors"), folder.path("copy.safetensors")).unwrap();
                folder.json(INDEX, |index| index["weight_map"]["more"] = json!("copy.safetensors"));
            }),
        ),
        (
            "a truncated shard",
            Box::new(|folder| folder.bytes("model-00002-of-00004.safetensors", |bytes| bytes.truncate(999))),
        ),
        ("no shard at all", Box::new(|folder| fs::remove_file(folder.path(INDEX)).unwrap())),
        (
            "a checkpoint that runs code",
            Box::new(|folder| {
                fs::rename(folder.path(INDEX), folder.path("pytorch_model.bin.index.json")).unwrap();
            }),
        ),
    ];
    check("shards_that_are_not_there", "mistral-tiny", cases);
}

/// Who decides on a beginning-of-sequence token, and what of a tokenizer is refused.
#[test]
fn tokenizers() {
    let folder = Folder::of("llama2-tiny");
    let settings = |text: &str| {
        fs::write(folder.path("tokenizer_config.json"), text).unwrap();
        Text::open(&folder.path("tokenizer.json")).unwrap().with_settings(&folder.path("tokenizer_config.json"))
    };
    // Llama's own class goes by the flag, others by the post-processor.
    for (class, flag, prefix) in [
        ("LlamaTokenizer", "true", 1),
        ("LlamaTokenizerFast", "false", 0),
        ("PreTrainedTokenizerFast", "false", 1),
        ("GPT2Tokenizer", "null", 1),
    ] {
        let text =
            format!(r#"{{"tokenizer_class": "{class}", "add_bos_token": {flag}, "bos_token": {{"content": "<s>"}}}}"#);
        assert_eq!(settings(&text).unwrap().prefix(), prefix, "{class} {flag}");
    }
    let absent = r#"{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "bos_token": "<bos>"}"#;
    assert!(settings(absent).unwrap_err().to_string().ends_with("the bos_token \"<bos>\" is not in the vocabulary"));
    assert!(settings("{").unwrap_err().to_string().contains("not valid JSON"));
    // An end token that the post-processor appends does not come between a prompt and its continuation.
    folder.json("tokenizer.json", |json| {
        json["post_processor"]["single"]
            .as_array_mut()
            .unwrap()
            .push(json!({"SpecialToken": {"id": "</s>", "type_id": 0}}));
        json["post_processor"]["special_tokens"]["</s>"] = json!({"id": "</s>", "ids": [2], "tokens": ["</s>"]});
    });
    let text = Text::open(&folder.path("tokenizer.json")).unwrap();
    let ids = text.encode("The city").unwrap();
    assert_eq!((ids[0], text.prefix(), ids.contains(&2)), (1, 1, false));
    // A token that the model has no embedding for is refused rather than looked up, also where the tokenizer adds it.
    folder.json("tokenizer.json", |json| {
        json["post_processor"]["special_tokens"]["<s>"]["ids"] = json!([70_000]);
    });
    let added = Text::open(&folder.path("tokenizer.json")).unwrap().within(160);
    let error = added.encode("The city").unwrap_err();
    assert!(error.to_string().ends_with("token 70000 is beyond the model's vocabulary"), "{error}");
    let error = text.within(10).encode("The city").unwrap_err();
    assert!(error.to_string().ends_with("is beyond the model's vocabulary"), "{error}");

    // What the tokenizers library would panic over.
    let open = || Text::open(&folder.path("tokenizer.json")).map(|_| ()).unwrap_err().to_string();
    folder.json("tokenizer.json", |json| json["post_processor"]["special_tokens"] = json!({}));
    let text = fs::read_to_string(folder.path("tokenizer.json")).unwrap();
    assert!(open().ends_with("its parts do not fit together") || open().contains("SpecialToken"), "{}", open());
    let decoder = text.find("\"decoder\"").unwrap() + 30;
    fs::write(folder.path("tokenizer.json"), &text[..decoder]).unwrap();
    assert!(open().contains("not valid JSON: EOF"), "{}", open());

    fs::remove_file(folder.path("tokenizer.json")).unwrap();
    let error = inspect(folder.0.path()).unwrap_err();
    assert!(error.to_string().ends_with("has no tokenizer.json") && error.hint().is_some(), "{error}");
}

/// A header may claim what it likes: nothing is allocated for a shape before it was compared with what is stored.
#[test]
fn a_large_model_of_a_small_file() {
    let folder = Folder::of("qwen3-tiny");
    folder.json("config.json", |config| {
        config["vocab_size"] = json!(1 << 28);
        config["hidden_size"] = json!(1 << 28);
    });
    assert!(matches!(folder.load(), Err(ModelError::Shape { .. })));
    assert!(DecoderConfig::read(&folder.path("config.json")).unwrap().parameters() > 1 << 56);
}
