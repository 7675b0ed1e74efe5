//! How much evaluation computes, and that computing less changes nothing.

use std::path::Path;

use burn::tensor::Device;
use palinode_eval::{Query, Score, score};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Text};

fn model(folder: &str) -> (Decoder, Text) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let config = DecoderConfig::from_hf(&config, &folder).unwrap();
    let files: Vec<_> = Checkpoint::files(&folder).unwrap().iter().map(|file| folder.join(file)).collect();
    let checkpoint = Checkpoint::open(&files).unwrap();
    let decoder = Decoder::load(&checkpoint, &config, &Device::flex()).unwrap();
    (decoder, Text::open(&folder.join("tokenizer.json")).unwrap())
}

fn fixture(name: &str) -> String {
    format!("crates/model/tests/fixtures/{name}")
}

fn queries() -> Vec<Query> {
    let targets = ["South Africa", "the north of Italy", "Peru", "South America", "South Africa"];
    let prompts = ["The harbour of the old town is in", "She was born in", "The weather had been fine for days in"];
    prompts
        .map(|prompt| Query { prompt: prompt.into(), targets: targets.map(|target| format!(" {target}")).to_vec() })
        .to_vec()
}

fn each_by_itself(decoder: &Decoder, text: &Text) -> Vec<Vec<Score>> {
    let one = |query: &Query, target: &String| {
        let alone = Query { prompt: query.prompt.clone(), targets: vec![target.clone()] };
        score(decoder, text, &[alone], 4096).unwrap().remove(0).remove(0)
    };
    queries().iter().map(|query| query.targets.iter().map(|target| one(query, target)).collect()).collect()
}

/// Learned positions and rotary ones, a token before texts and none, and attention over a window that is shorter than some rows.
#[test]
fn targets_beside_each_other_score_as_each_by_itself() {
    let fixtures = ["gptj-tiny", "llama-tiny", "mistral-tiny", "qwen3-tiny"].map(fixture);
    for name in fixtures.iter().map(String::as_str).chain(["examples/demo-model/model"]) {
        let (decoder, text) = model(name);
        let together = score(&decoder, &text, &queries(), 4096).unwrap();
        for (together, alone) in together.iter().flatten().zip(each_by_itself(&decoder, &text).iter().flatten()) {
            assert!((together.nll - alone.nll).abs() < 1e-5, "{name}: {together:?} {alone:?}");
            assert_eq!(together.said, alone.said, "{name}");
        }
    }
}

#[test]
fn a_prompt_runs_once_however_many_targets_it_has() {
    let (decoder, text) = model(&fixture("llama-tiny"));
    let queries = queries();
    let mut least = 0;
    let mut most = 0;
    for query in &queries {
        let prompt = text.encode(&query.prompt).unwrap().len();
        let mut ways: Vec<Vec<u32>> = query.targets.iter().map(|target| text.encode_target(target).unwrap()).collect();
        most += ways.iter().map(|way| prompt + way.len() - 1).sum::<usize>();
        ways.sort();
        ways.dedup();
        least += prompt + ways.iter().map(|way| way.len() - 1).sum::<usize>();
    }
    let before = decoder.work();
    // Batches of one row each: nothing is padded.
    score(&decoder, &text, &queries, 1).unwrap();
    let done = decoder.work() - before;
    assert_eq!(done.block_tokens as usize, least * decoder.config().layers);
    assert!(2 * least < most, "{least} {most}");
}
