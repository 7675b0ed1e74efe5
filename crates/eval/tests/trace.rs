//! Causal tracing against whole runs in which values are put in their place one by one, for every family, by kernels and by the tensor
//! library, with blocks in memory and read from disk; and what makes no difference is not computed.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use palinode_eval::{TraceKind, TracePrompt, TraceRules, knowledge, noise, trace};
use palinode_golden::{FAMILIES, family};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Inner, Part, Precision, Restored, Rows, log_softmax, read};

fn open(name: &str, streamed: bool) -> Decoder {
    let model = family(name);
    let config = DecoderConfig::read(&model.join("config.json")).unwrap();
    let files: Vec<_> = Checkpoint::files(&model).unwrap().iter().map(|file| model.join(file)).collect();
    let checkpoint = Arc::new(Checkpoint::open(&files).unwrap());
    if streamed {
        Decoder::stream(checkpoint, &config, &Device::flex(), Precision::default(), false).unwrap()
    } else {
        Decoder::load(&checkpoint, &config, &Device::flex()).unwrap()
    }
}

fn prompts() -> Vec<TracePrompt> {
    vec![
        TracePrompt { ids: vec![5, 9, 3, 7, 2, 11], subject: 1..4, answer: vec![4] },
        TracePrompt { ids: vec![8, 6, 1], subject: 0..1, answer: vec![2, 7] },
        TracePrompt { ids: vec![3, 12, 4], subject: 1..3, answer: vec![9] },
    ]
}

/// Whole rows, layer by layer.
struct Whole {
    hidden: Vec<Vec<f32>>,
    attention: Vec<Vec<f32>>,
    mlp: Vec<Vec<f32>>,
    d: usize,
}

impl Whole {
    fn row(&self, of: &[Vec<f32>], layer: usize, token: usize) -> Vec<f32> {
        of[layer][token * self.d..][..self.d].to_vec()
    }
}

fn tensor(values: &[f32], d: usize) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len() / d, d]), &Device::flex())
}

fn put(values: &mut [f32], token: usize, row: &[f32]) {
    values[token * row.len()..][..row.len()].copy_from_slice(row);
}

/// One run of a text, with noise on its subject, and something of a token restored.
fn run(
    decoder: &Decoder,
    prompt: &TracePrompt,
    noise: Option<&[f32]>,
    restored: Option<(usize, &Restored, &Whole, &Whole)>,
) -> Whole {
    let (d, layers) = (decoder.config().hidden, decoder.config().layers);
    let text = [&prompt.ids[..], &prompt.answer[..prompt.answer.len() - 1]].concat();
    let mut rows: Rows = decoder.rows(&[text]);
    if let Some(noise) = noise {
        let places = rows.places(prompt.subject.clone().map(|token| (0, token)));
        rows = rows.added(places, tensor(&noise[..prompt.subject.len() * d], d));
    }
    let mut hidden = decoder.embed(&rows);
    let mut whole = Whole { hidden: Vec::new(), attention: Vec::new(), mlp: Vec::new(), d };
    for layer in 0..layers {
        let before: Vec<f32> = read(hidden.at(&rows.all())).unwrap();
        let output = decoder.block(layer, &rows, hidden.clone()).unwrap();
        let mut attention: Vec<f32> = read(output.attention.at(&rows.all())).unwrap();
        let part = |part: Part| {
            let (token, restored, clean, noisy) = restored?;
            let from = match restored {
                Restored::Hidden { layer: at, severed } if *severed == Some(part) && layer > *at => noisy,
                Restored::Outputs { part: of, layers } if *of == part && layers.contains(&layer) => clean,
                _ => return None,
            };
            let of = if part == Part::Attention { &from.attention } else { &from.mlp };
            Some((token, from.row(of, layer, token)))
        };
        if let Some((token, row)) = part(Part::Attention) {
            put(&mut attention, token, &row);
        }
        let fed = decoder.after_attention(layer, tensor(&before, d), tensor(&attention, d), Inner::default()).unwrap();
        let mut mlp: Vec<f32> = read(fed.mlp).unwrap();
        if let Some((token, row)) = part(Part::FeedForward) {
            put(&mut mlp, token, &row);
        }
        // Behind a norm or a multiplier where there is one.
        let added: Vec<f32> = read(decoder.added(layer, tensor(&mlp, d)).unwrap()).unwrap();
        let mut after: Vec<f32> = before.iter().zip(&attention).zip(&added).map(|((x, a), m)| x + a + m).collect();
        if let Some((token, Restored::Hidden { layer: at, .. }, clean, _)) = restored
            && *at == layer
        {
            put(&mut after, token, &clean.row(&clean.hidden, layer, token));
        }
        let now: Vec<f32> = read(hidden.at(&rows.all())).unwrap();
        let change: Vec<f32> = after.iter().zip(&now).map(|(after, now)| after - now).collect();
        hidden = hidden.plus(&rows.all(), tensor(&change, d));
        whole.hidden.push(after);
        whole.attention.push(attention);
        whole.mlp.push(mlp);
    }
    whole
}

fn probability(decoder: &Decoder, prompt: &TracePrompt, whole: &Whole) -> f64 {
    let last = whole.hidden.last().unwrap();
    let logs: f64 = prompt
        .answer
        .iter()
        .enumerate()
        .map(|(at, id)| {
            let row = &last[(prompt.ids.len() - 1 + at) * whole.d..][..whole.d];
            let logs: Vec<f32> = read(log_softmax(decoder.logits(tensor(row, whole.d)))).unwrap();
            f64::from(logs[*id as usize])
        })
        .sum();
    (logs / prompt.answer.len() as f64).exp()
}

#[test]
fn traces_equal_whole_runs_in_every_family() {
    for name in FAMILIES {
        let decoder = open(name, false);
        let (d, layers) = (decoder.config().hidden, decoder.config().layers);
        let noise = noise(3, 2, 3, d, 0.5);
        for window in [1, 3, 10] {
            let rules = TraceRules { kinds: &TraceKind::ALL, window, noise: &noise, batch_tokens: 64 };
            let prompts = prompts();
            let found = trace(&decoder, &prompts, &rules).unwrap();
            if window == 3 {
                let by_tensors = trace(&decoder.clone().without_kernels(), &prompts, &rules).unwrap();
                let packed = trace(&decoder.clone().without_kernels().with_packed_rows(), &prompts, &rules).unwrap();
                let streamed = trace(&open(name, true), &prompts, &rules).unwrap();
                assert_eq!(found, streamed, "{name}");
                for other in [by_tensors, packed] {
                    for (a, b) in found.iter().zip(&other) {
                        let pairs = a.restored.iter().flatten().flatten().zip(b.restored.iter().flatten().flatten());
                        let far = pairs.map(|(a, b)| (a - b).abs() / a).fold(0.0, f32::max);
                        assert!(far < 1e-4, "{name}: {far}");
                    }
                }
            }
            for (prompt, found) in prompts.iter().zip(&found) {
                let clean = run(&decoder, prompt, None, None);
                let noisy: Vec<Whole> = noise.iter().map(|noise| run(&decoder, prompt, Some(noise), None)).collect();
                let near = |a: f32, b: f64, what: &str| {
                    assert!((f64::from(a) - b).abs() < 1e-4 * b, "{name}, window {window}, {what}: {a} and {b}");
                };
                near(found.clean, probability(&decoder, prompt, &clean), "clean");
                let mean = |each: &dyn Fn(usize) -> f64| (0..noise.len()).map(each).sum::<f64>() / noise.len() as f64;
                near(found.noisy, mean(&|draw| probability(&decoder, prompt, &noisy[draw])), "noisy");
                for (kind, table) in TraceKind::ALL.iter().zip(&found.restored) {
                    for (token, row) in table.iter().enumerate() {
                        for (layer, p) in row.iter().enumerate() {
                            let restored = kind.restored(layer, window, layers);
                            let each = |draw: usize| {
                                let with = (token, &restored, &clean, &noisy[draw]);
                                probability(&decoder, prompt, &run(&decoder, prompt, Some(&noise[draw]), Some(with)))
                            };
                            near(*p, mean(&each), &format!("{} at {token}, {layer}", kind.name()));
                        }
                    }
                }
            }
        }
    }
}

/// What is added to an embedding is added before it is scaled, normed, or given a position: with the difference of two tokens, one is the other.
#[test]
fn noise_is_on_the_embedding_alone() {
    for name in FAMILIES {
        let decoder = open(name, false);
        let [one, other] = [5, 9].map(|token| decoder.token_embeddings(&[token]));
        let [plain, wanted] = [[3, 5, 7], [3, 9, 7]].map(|ids| decoder.rows(&[ids]));
        let places = plain.places([(0, 1)]);
        let given = decoder.embed(&plain.added(places, other - one));
        let wanted_at = wanted.all();
        let [given, wanted]: [Vec<f32>; 2] = [given, decoder.embed(&wanted)].map(|x| read(x.at(&wanted_at)).unwrap());
        let far = given.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far < 1e-4, "{name}: {far}");
    }
}

/// Counted in tokens through a block: the published way runs every row whole, for each token, layer and kind.
#[test]
fn what_cannot_differ_is_not_computed() {
    let decoder = open("gpt2-tiny", false);
    let (d, layers) = (decoder.config().hidden, decoder.config().layers);
    let (draws, prompt) = (10, prompts().remove(0));
    let noise = noise(3, draws, 3, d, 0.5);
    let length = prompt.ids.len();
    let rules = TraceRules { kinds: &TraceKind::ALL, window: 10, noise: &noise, batch_tokens: 512 };
    let before = decoder.work();
    trace(&decoder, std::slice::from_ref(&prompt), &rules).unwrap();
    let work = decoder.work() - before;
    let whole = (1 + draws) * length * layers;
    let published = whole * (1 + length * layers * TraceKind::ALL.len());
    assert!(work.block_tokens as usize * 8 < published, "{} of {published}", work.block_tokens);
    // The runs that are kept, and of each run that differs its last token.
    assert!(work.head_rows as usize <= (1 + draws) + draws * length * layers * TraceKind::ALL.len());
}

#[test]
fn knowledge_is_of_every_token_of_an_answer() {
    let decoder = open("llama-tiny", false);
    let mut prompt = prompts().remove(1);
    let first = knowledge(&decoder, std::slice::from_ref(&prompt), 64).unwrap()[0];
    assert!(!first.known || prompt.answer[0] == first.says);
    prompt.answer = vec![first.says];
    let [right] = knowledge(&decoder, std::slice::from_ref(&prompt), 64).unwrap()[..] else { panic!() };
    assert!(right.known && right.p > 0.0 && right.says == first.says);
    prompt.answer = vec![first.says, first.says + 1];
    let both = knowledge(&decoder, std::slice::from_ref(&prompt), 64).unwrap()[0];
    assert!(both.p < 1.0 && both.says == first.says);
}
