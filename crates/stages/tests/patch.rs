//! Exports as other programs and later days find them: applied, reverted, and as adapters.

mod common;

use std::fs;

use common::{Bench, PIPELINE};
use palinode_engine::Overwrite;
use palinode_stages::{Restored, apply, provenance, revert};
use safetensors::SafeTensors;
use serde_json::Value;

/// A bench with one edit exported in every format.
fn exported(family: &str) -> Bench {
    let bench = Bench::new();
    let yaml = PIPELINE
        .replace("MODEL", family)
        .replace("[rome, memit, emmet]", "[emmet]")
        .replace("[single, memit]", "[memit]")
        .replace("emmet_lambda: 0.1", "emmet_lambda: 0.1, update_norm_lambda: 0.01")
        .replace("batch: 0 }", "batch: 0, formats: [model, update, peft], base_model: base }");
    bench.ran(&yaml);
    bench
}

#[test]
fn an_update_goes_on_and_comes_off() {
    for family in ["gpt2", "gptj-tiny", "llama-tiny"] {
        let bench = exported(family);
        let at = |name: &str| bench.path(name);
        let (update, base) = (at("out/emmet-memit/update.safetensors"), at(family));
        let weights = |folder: &str| fs::read(at(folder).join("model.safetensors")).unwrap();

        apply(&update, &base, &at("edited"), false, Overwrite::Refused).unwrap();
        assert!(weights("edited") == weights("out/emmet-memit"), "{family}: applied and exported models differ");
        assert!(weights("edited") != weights(family));

        assert_eq!(
            revert(&update, &at("edited"), Some(&base), &at("again"), false, Overwrite::Refused).unwrap().weights,
            Some(Restored::FromBase)
        );
        assert!(weights("again") == weights(family));
        let taken = revert(&update, &at("out/emmet-memit"), None, &at("near"), false, Overwrite::Refused).unwrap();
        assert_eq!(taken.weights == Some(Restored::Exactly), weights("near") == weights(family));
        let values = |bytes: &[u8]| -> Vec<f32> {
            let file = SafeTensors::deserialize(bytes).unwrap();
            let mut names: Vec<_> = file.names();
            names.sort_unstable();
            let data = names.into_iter().flat_map(|name| file.tensor(name).unwrap().data().to_vec());
            data.collect::<Vec<u8>>().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
        };
        let far = values(&weights("near"))
            .iter()
            .zip(values(&weights(family)))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(far < 1e-6, "{family}: {far}");
        assert!(!at("near/palinode.json").exists() && at("near/tokenizer.json").exists());

        for path in
            ["edited", "out/emmet-memit/update.safetensors", "out/emmet-memit/adapter/adapter_model.safetensors"]
        {
            let said = provenance(&at(path)).unwrap();
            assert_eq!(said.requests.as_array().unwrap().len(), 4, "{path}");
            assert_eq!(said.objective["objective"], "emmet");
        }
    }
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let bench = exported("gpt2");
    let at = |name: &str| bench.path(name);
    let update = at("out/emmet-memit/update.safetensors");
    let told = |error: palinode_engine::Error| {
        format!("{}\n  hint: {}\n", error.message, error.hint.map(|hint| hint.to_string()).unwrap_or_default())
            .replace(&bench.dir.path().display().to_string(), "DIR")
    };
    let mut text = String::new();
    text += &told(apply(&update, &at("out/emmet-memit"), &at("twice"), false, Overwrite::Refused).unwrap_err());
    text += &told(apply(&update, &at("gptj-tiny"), &at("other"), true, Overwrite::Refused).unwrap_err());
    text += &told(apply(&update, &at("gpt2"), &at("out"), false, Overwrite::Refused).unwrap_err());
    text += &told(apply(&at("corpus.txt"), &at("gpt2"), &at("text"), false, Overwrite::Refused).unwrap_err());
    text += &told(revert(&update, &at("gpt2"), None, &at("never-on"), false, Overwrite::Refused).unwrap_err());
    text += &told(
        revert(&update, &at("out/emmet-memit"), Some(&at("llama-tiny")), &at("base"), false, Overwrite::Refused)
            .unwrap_err(),
    );
    for name in ["twice", "other", "text", "never-on", "base"] {
        assert!(!at(name).exists() && !at(&format!("{name}.part")).exists(), "{name}");
    }
    let weights = at("out/emmet-memit/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(weights, bytes).unwrap();
    text +=
        &told(revert(&update, &at("out/emmet-memit"), None, &at("changed"), false, Overwrite::Refused).unwrap_err());
    insta::assert_snapshot!(text);
}

#[test]
fn an_adapter_is_the_update() {
    for (family, conv) in [("gpt2", true), ("gptj-tiny", false), ("llama-tiny", false)] {
        let bench = exported(family);
        let folder = bench.path("out/emmet-memit");
        let config: Value =
            serde_json::from_slice(&fs::read(folder.join("adapter/adapter_config.json")).unwrap()).unwrap();
        assert_eq!(config["fan_in_fan_out"], conv);
        assert_eq!(config["base_model_name_or_path"], "base");
        assert_eq!(config["rank_pattern"], config["alpha_pattern"]);
        let modules = config["target_modules"].as_array().unwrap();
        assert_eq!(modules.len(), 2);
        let adapter = fs::read(folder.join("adapter/adapter_model.safetensors")).unwrap();
        let update = fs::read(folder.join("update.safetensors")).unwrap();
        let (adapter, update) =
            (SafeTensors::deserialize(&adapter).unwrap(), SafeTensors::deserialize(&update).unwrap());
        for module in modules.iter().map(|module| module.as_str().unwrap()) {
            for (side, lora) in [("left", "lora_B"), ("right", "lora_A")] {
                let theirs = adapter.tensor(&format!("base_model.model.{module}.{lora}.weight")).unwrap();
                let ours = update.tensor(&format!("{module}.weight.{side}")).unwrap();
                assert!(theirs.shape() == ours.shape() && theirs.data() == ours.data(), "{module}.{lora}");
            }
        }
    }
}
