//! Compares logits and tokens of a GGUF file with those that `scripts/check_gguf.py numbers` wrote.
//!
//! ```sh
//! cargo run --release -p palinode-model --example compare-gguf -- FILE.gguf FOLDER
//! ```

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/transformers/mod.rs"]
mod transformers;

use std::error::Error;
use std::path::PathBuf;

use burn::tensor::Device;
use palinode_golden::Folder;
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Text};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [file, folder] = args.as_slice() else { return Err("expected FILE.gguf FOLDER".into()) };
    let text = Text::open(file)?;
    let cases: Value = serde_json::from_slice(&std::fs::read(folder.join("tokens.json"))?)?;
    let cases = cases.as_array().ok_or("tokens.json is no list")?;
    let mut wrong = 0;
    for case in cases {
        let expected: Vec<u32> = serde_json::from_value(case["ids"].clone())?;
        let ours = text.encode(case["text"].as_str().unwrap_or_default())?[text.prefix()..].to_vec();
        if ours != expected {
            wrong += 1;
            println!("{}: {ours:?}, expected {expected:?}", case["text"]);
        }
    }
    println!("{} texts, {wrong} with other tokens", cases.len());
    let checkpoint = Checkpoint::open(std::slice::from_ref(file))?;
    let decoder = Decoder::load(&checkpoint, &DecoderConfig::read(file)?, &Device::flex())?;
    let worst = transformers::difference(&decoder, &Folder::at(folder));
    println!("largest difference of a logit: {worst:.1e}");
    if wrong > 0 || worst >= 1e-4 { Err("they differ".into()) } else { Ok(()) }
}
