//! Logits and tokens against the ones that transformers computed, for every family. All models are fixtures; the trained GPT-2's
//! logits are compared by tests/golden.

mod transformers;

use std::collections::BTreeMap;

use palinode_golden::{FAMILIES, Folder, family};
use palinode_model::Text;
use palinode_model::generate::{Sampling, generate};
use transformers::{largest_difference, load};

/// Those with tokens of some texts; the tokenizer of the others is one of theirs.
const WITH_TOKENS: [&str; 8] = [
    "gpt2-tiny",
    "gpt_neox-tiny",
    "gpt_neox-sequential-tiny",
    "llama2-tiny",
    "llama3-tiny",
    "mistral-tiny",
    "qwen2-tiny",
    "qwen3-tiny",
];

#[test]
fn logits_of_every_family() {
    let mut worst = BTreeMap::new();
    for name in FAMILIES {
        let folder = Folder::at(family(name));
        worst.insert(name, largest_difference(&folder, &folder));
    }
    println!("largest logit differences: {worst:?}");
    for (name, difference) in worst {
        assert!(difference < 2e-4, "{name}: {difference}");
    }
}

/// One token after another with cached keys and values gives what the whole prompt at once does, windows included.
#[test]
fn steps_of_generation() {
    for name in FAMILIES {
        let decoder = load(&family(name));
        let prompt = Folder::at(family(name)).tensors("logits.safetensors").ids("prompt0.ids");
        let long = generate(&decoder, &prompt[..3], 24, Sampling::Greedy, 0, None).unwrap();
        assert_eq!(long.len(), 24);
        for length in 3..24 {
            let rows = decoder.rows(&[&long[..length]]);
            let last = decoder.hidden(&rows).unwrap().at(&rows.places([(0, length - 1)]));
            let logits = decoder.logits(last).into_data().try_into_vec::<f32>().unwrap();
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            assert_eq!(best as u32, long[length], "{name}: token {length}");
        }
    }
}

#[test]
fn tokens_of_every_family() {
    for name in WITH_TOKENS {
        let text = Text::open(&family(name).join("tokenizer.json")).unwrap();
        let text = text.with_settings(&family(name).join("tokenizer_config.json")).unwrap();
        let cases: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(family(name).join("tokens.json")).unwrap()).unwrap();
        for case in cases.as_array().unwrap() {
            let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
            let given = case["text"].as_str().unwrap();
            assert_eq!(text.encode(given).unwrap(), expected, "{name}: {given:?}");
        }
        let bos = ["llama2-tiny", "llama3-tiny", "mistral-tiny"].contains(&name);
        assert_eq!(text.prefix(), usize::from(bos), "{name}");
        // A continuation is what follows a prompt, and its text, whole or in part, has its space.
        let target = text.encode_target("Parma").unwrap();
        let (prompt, whole) = (text.encode("The tower stands in").unwrap(), text.encode("The tower stands in Parma"));
        assert_eq!([prompt, target.clone()].concat(), whole.unwrap(), "{name}");
        assert_eq!(text.decode_target(&target).unwrap(), " Parma", "{name}");
        let first = text.decode_target(&target[..1]).unwrap();
        assert!(first.starts_with(" P") && " Parma".starts_with(&first), "{name}: {first:?}");
    }
}
