//! Blocks that are streamed and rows that are packed give what resident blocks and padded rows give.

use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{Device, Distribution, Tensor};
use palinode_golden::{FAMILIES, family};
use palinode_model::generate::{Prompt, Sampling, generate, generate_all};
use palinode_model::{
    Activations, BlockOutput, Checkpoint, Compute, Decoder, DecoderConfig, ExpertId, ModelError, Places, Precision,
    Rows, Suffix, Visit, WeightId, read,
};

fn open(name: &str) -> (Arc<Checkpoint>, DecoderConfig) {
    let folder = family(name);
    let config = DecoderConfig::read(&folder.join("config.json")).unwrap();
    let files: Vec<PathBuf> = Checkpoint::files(&folder).unwrap().iter().map(|file| folder.join(file)).collect();
    (Arc::new(Checkpoint::open(&files).unwrap()), config)
}

fn resident(name: &str, precision: Precision) -> Decoder {
    let (checkpoint, config) = open(name);
    Decoder::load_as(&checkpoint, &config, &Device::flex(), precision).unwrap()
}

fn streamed(name: &str, precision: Precision) -> Decoder {
    let (checkpoint, config) = open(name);
    Decoder::stream(checkpoint, &config, &Device::flex(), precision, false).unwrap()
}

/// Rows of different lengths, some longer than the window of the models that have one.
fn rows(decoder: &Decoder) -> Vec<Vec<u32>> {
    let vocab = decoder.config().vocab as u32;
    let row = |length: u32| (0..length).map(|i| (i * 7 + length) % vocab.min(100)).collect();
    [5, 24, 1, 13, 24, 9].map(row).to_vec()
}

fn logits(decoder: &Decoder, rows: &Rows) -> Vec<f32> {
    let hidden = decoder.hidden(rows).unwrap();
    read(decoder.logits(hidden.at(&rows.all()))).unwrap()
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn streamed_blocks_give_the_same_bits() {
    for name in FAMILIES {
        for precision in [Precision::F32, Precision::Bf16] {
            let (here, there) = (resident(name, precision), streamed(name, precision));
            let texts = rows(&here);
            assert_eq!(logits(&there, &there.rows(&texts)), logits(&here, &here.rows(&texts)), "{name}");
            let text = |decoder: &Decoder| generate(decoder, &texts[0], 12, Sampling::TopK { k: 5, seed: 1 }, 2, None);
            assert_eq!(text(&there).unwrap(), text(&here).unwrap(), "{name}");
        }
        let [here, there] = [resident(name, Precision::F32), streamed(name, Precision::F32)]
            .map(|decoder| decoder.with_compute(Compute::Bf16));
        let texts = rows(&here);
        assert_eq!(logits(&there, &there.rows(&texts)), logits(&here, &here.rows(&texts)), "{name}: in bf16");
    }
}

#[test]
fn an_edit_lies_over_a_streamed_block() {
    let down: fn(usize) -> WeightId = WeightId::down;
    let shared: fn(usize) -> WeightId = |layer| WeightId::of_expert(layer, ExpertId::Shared);
    for (name, id) in [("gpt2-tiny", down), ("gptj-tiny", down), ("llama-tiny", down), ("qwen2_moe-tiny", shared)] {
        let (here, there) = (resident(name, Precision::F32), streamed(name, Precision::F32));
        let texts = rows(&here);
        let change =
            Tensor::<2>::random(here.weight(id(1)).unwrap().dims(), Distribution::Normal(0.0, 0.1), &Device::flex());
        let edited = |decoder: &Decoder| {
            let once = decoder.with_change(id(1), change.clone()).unwrap();
            once.with_change(id(0), change.clone()).unwrap().with_change(id(1), change.clone()).unwrap()
        };
        let (before, after) = (logits(&there, &there.rows(&texts)), logits(&edited(&there), &there.rows(&texts)));
        assert_eq!(after, logits(&edited(&here), &here.rows(&texts)), "{name}");
        assert!(far(&before, &after) > 1e-3, "{name}");
        // The source is as it was.
        assert_eq!(logits(&there, &there.rows(&texts)), before, "{name}");
    }
}

/// The hidden state at the last token of each row of a batch.
struct LastTokens {
    rows: Vec<Vec<u32>>,
    places: Option<Places>,
    seen: Vec<usize>,
}

impl LastTokens {
    fn of(rows: &[Vec<u32>]) -> Self {
        Self { rows: rows.to_vec(), places: None, seen: Vec::new() }
    }
}

impl Visit for LastTokens {
    type Found = (Vec<f32>, Vec<usize>);

    fn begin(&mut self, decoder: &Decoder) -> Rows {
        let rows = decoder.rows(&self.rows);
        self.places = Some(rows.places(self.rows.iter().enumerate().map(|(row, ids)| (row, ids.len() - 1))));
        rows
    }

    fn see(&mut self, layer: usize, _: &BlockOutput) -> Result<(), ModelError> {
        self.seen.push(layer);
        Ok(())
    }

    fn finish(self, _: &Decoder, hidden: &Activations) -> Result<Self::Found, ModelError> {
        Ok((read(hidden.at(self.places.as_ref().unwrap()))?, self.seen))
    }
}

/// Layers are the outer loop and batches the inner one: a block is read once for all of them, and two are in memory at most.
#[test]
fn a_streamed_block_is_read_once_for_all_batches() {
    let (here, there) = (resident("gpt2-tiny", Precision::F32), streamed("gpt2-tiny", Precision::F32));
    let last = there.config().layers - 1;
    let texts = rows(&here);
    let batches = |()| texts.chunks(2).map(LastTokens::of).collect::<Vec<_>>();
    let all: Vec<usize> = (0..=last).collect();
    let found = there.visit_all(batches(()), last, 4).unwrap();
    assert_eq!(found, here.visit_all(batches(()), last, 4).unwrap());
    assert!(found.iter().all(|(_, seen)| *seen == all));
    let streaming = there.streaming().unwrap();
    assert_eq!(streaming.reads, vec![1; last + 1]);
    assert!((1..=2).contains(&streaming.most_in_memory), "{streaming:?}");

    // In order too, and no further than the last layer that is asked for.
    let mut order = Vec::new();
    let collect = |some: Vec<&mut LastTokens>| {
        order.extend(some.iter().map(|visit| (visit.seen.len(), visit.rows[0].len())));
        Ok::<(), ModelError>(())
    };
    there.visit_in_order(batches(()), 0, 1, collect).unwrap();
    let firsts: Vec<_> = texts.chunks(2).map(|some| (1, some[0].len())).collect();
    assert_eq!(order, firsts);
    let mut reads = vec![1; last + 1];
    reads[0] = 2;
    assert_eq!(there.streaming().unwrap().reads, reads);
    assert!(here.streaming().is_none());
}

/// Threads that walk by themselves wait for room, and none of them forever.
#[test]
fn few_blocks_are_in_memory_however_many_walk() {
    let decoder = streamed("llama-tiny", Precision::F32);
    let texts = rows(&decoder);
    let alone = logits(&decoder, &decoder.rows(&texts));
    std::thread::scope(|scope| {
        let walk = |_| scope.spawn(|| (0..5).all(|_| logits(&decoder, &decoder.rows(&texts)) == alone));
        let walks: Vec<_> = (0..6).map(walk).collect();
        assert!(walks.into_iter().all(|walk| walk.join().unwrap()));
    });
    assert!(decoder.streaming().unwrap().most_in_memory <= 2);
    assert!(decoder.weight_bytes() < resident("llama-tiny", Precision::F32).weight_bytes());
}

/// Held blocks are read once, however often they are walked through; the one block that is not held stays where it was read.
#[test]
fn held_blocks_are_read_once() {
    let decoder = streamed("gptj-tiny", Precision::F32);
    let layers = decoder.config().layers;
    let held = decoder.hold(1..layers).unwrap();
    let texts = rows(&decoder);
    let of = |decoder: &Decoder| logits(decoder, &decoder.rows(&texts));
    let once = of(&held);
    assert_eq!(of(&held), once);
    assert_eq!(held.streaming().unwrap().reads, vec![1; layers]);
    let weight = held.hold(1..layers).unwrap().weight(WeightId::down(1)).unwrap();
    let edited = held.with_change(WeightId::down(1), weight.clone()).unwrap();
    assert_ne!(of(&edited), once);
    assert_eq!(edited.streaming().unwrap().reads[1], 1);
}

/// Suffixes go through streamed blocks together, there and back, and compute what was inside a block again: with the same bits as where all
/// blocks are in memory, or some of them.
#[test]
fn suffixes_go_through_streamed_blocks_together() {
    for name in FAMILIES {
        for kernels in [true, false] {
            let form = |decoder: Decoder| if kernels { decoder } else { decoder.without_kernels() };
            let (here, there) = (form(resident(name, Precision::F32)), form(streamed(name, Precision::F32)));
            let layers = here.config().layers;
            let texts = rows(&here);
            let d = here.config().hidden;
            let noise = |n: usize, seed: usize| {
                let values: Vec<f32> = (0..n * d).map(|i| ((i * 37 + seed) % 101) as f32 / 101.0 - 0.5).collect();
                Tensor::<2>::from_data(burn::tensor::TensorData::new(values, [n, d]), &Device::flex())
            };
            let of = |decoder: &Decoder| {
                let batches = [&texts[..2], &texts[3..]];
                let build = |batch: &&[Vec<u32>]| {
                    let (starts, marks) = (vec![1; batch.len()], vec![2; batch.len()]);
                    decoder.suffix(&decoder.rows(batch), starts, &marks, 0, |_, _| Ok(())).unwrap().0
                };
                let suffixes: Vec<Suffix> = batches.iter().map(build).collect();
                decoder.rest();
                let before = decoder.streaming().map(|streaming| streaming.reads);
                let added = suffixes.iter().zip(batches).map(|(suffix, batch)| (suffix, noise(batch.len(), 5)));
                let runs = decoder.run_suffixes(added.collect(), 4).unwrap();
                let places: Vec<Places> =
                    suffixes.iter().map(|suffix| suffix.places(decoder, [(0, 4), (1, 5)])).collect();
                let mut values = Vec::new();
                let mut back = Vec::new();
                for ((suffix, places), (hidden, run)) in suffixes.iter().zip(&places).zip(runs) {
                    values.push(read::<f32, 2, _>(hidden.at(places)).unwrap());
                    back.push((suffix, run, places, noise(2, 11)));
                }
                let gradients = decoder.suffixes_back(back, 4).unwrap();
                values.extend(gradients.into_iter().map(|gradient| read::<f32, 2, _>(gradient).unwrap()));
                let reads = decoder.streaming().map(|streaming| streaming.reads);
                (
                    values,
                    before.zip(reads).map(|(before, after)| after.iter().zip(before).map(|(a, b)| a - b).collect()),
                )
            };
            let (wanted, _) = of(&here);
            assert!(wanted.iter().flatten().any(|value| *value != 0.0));
            let (found, reads): (_, Option<Vec<u64>>) = of(&there);
            assert!(found == wanted, "{name}, kernels {kernels}");
            // There and back, and the last two are still in memory when the way turns.
            let mut expected = vec![2; layers];
            expected[0] = 0;
            expected[layers - 2..].fill(1);
            assert_eq!(reads, Some(expected), "{name}");
            let (found, _) = of(&there.hold(layers - 1..layers).unwrap());
            assert!(found == wanted, "{name}, kernels {kernels}, one block held");
        }
    }
}

/// The tensor library on padded rows, the same on packed ones, and kernels.
fn forms(name: &str) -> [Decoder; 3] {
    let kernels = resident(name, Precision::F32);
    let padded = kernels.clone().without_kernels();
    [padded.clone(), padded.with_packed_rows(), kernels]
}

#[test]
fn packed_rows_give_what_padded_rows_give() {
    for name in FAMILIES {
        let [padded, packed, kernels] = forms(name);
        let texts = rows(&padded);
        let before = padded.work();
        let a = logits(&padded, &padded.rows(&texts));
        let padded_work = padded.work() - before;
        for packed in [packed, kernels] {
            let before = packed.work();
            let b = logits(&packed, &packed.rows(&texts));
            let work = packed.work() - before;
            assert!(far(&a, &b) < 2e-5, "{name}: {}", far(&a, &b));
            let tokens: usize = texts.iter().map(Vec::len).sum();
            assert_eq!(work.block_tokens as usize, tokens * padded.config().layers);
            assert!(padded_work.block_tokens > work.block_tokens);
            // Single values, by row and position.
            let some = [(1, 20), (0, 4), (5, 0), (2, 0)];
            let at = |decoder: &Decoder| {
                let rows = decoder.rows(&texts);
                read::<f32, 2, _>(decoder.hidden(&rows).unwrap().at(&rows.places(some))).unwrap()
            };
            assert!(far(&at(&padded), &at(&packed)) < 1e-5, "{name}");
        }
    }
}

#[test]
fn packed_rows_share_prefixes_as_padded_rows_do() {
    for name in FAMILIES {
        let [padded, packed, kernels] = forms(name);
        if !padded.config().sees(30) {
            continue;
        }
        let texts = rows(&padded);
        let ways = vec![texts[0].clone(), texts[3][..2].to_vec(), texts[5][..4].to_vec()];
        let prefixes = [(texts[3].as_slice(), ways.as_slice()), (texts[0].as_slice(), &ways[1..])];
        let shared = |decoder: &Decoder| logits(decoder, &decoder.shared_prefix(&prefixes));
        let a = shared(&padded);
        for packed in [packed, kernels] {
            let b = shared(&packed);
            assert!(far(&a, &b) < 2e-5, "{name}: {}", far(&a, &b));
        }
        // And what each text gives alone: here the second continuation of the first prefix.
        let vocab = padded.config().vocab;
        let alone = [texts[3].as_slice(), &ways[1]].concat();
        let alone = logits(&padded, &padded.rows(&[alone]));
        let from = texts[3].len() + ways[0].len();
        let beside = &a[from * vocab..(from + ways[1].len()) * vocab];
        assert!(far(&alone[texts[3].len() * vocab..], beside) < 1e-5, "{name}");
    }
}

/// On the CPU a text's numbers are the same to the last bit whatever is computed beside it, and a text that is written is the same
/// as if it were written alone.
#[test]
fn a_text_does_not_know_what_stands_beside_it() {
    for name in FAMILIES {
        let decoder = resident(name, Precision::F32);
        let vocab = decoder.config().vocab;
        let texts = rows(&decoder);
        let together = logits(&decoder, &decoder.rows(&texts));
        let mut from = 0;
        for text in &texts {
            let alone = logits(&decoder, &decoder.rows(&[text]));
            assert!(alone == together[from..from + alone.len()], "{name}");
            from += text.len() * vocab;
        }
        if decoder.config().sees(30) {
            let ways = [texts[0].clone(), texts[5].clone()];
            let shared = logits(&decoder, &decoder.shared_prefix(&[(&texts[3], &ways)]));
            let alone = logits(&decoder, &decoder.rows(&[[texts[3].as_slice(), &ways[1]].concat()]));
            let end = shared.len() - ways[1].len() * vocab;
            assert!(shared[end..] == alone[texts[3].len() * vocab..], "{name}");
        }
        let prompts: Vec<Prompt> = (0..40)
            .map(|i| Prompt {
                tokens: texts[i % 6][..(i % 5 + 1).min(texts[i % 6].len())].to_vec(),
                length: 8 + i % 7,
                stream: i as u64,
            })
            .collect();
        for sampling in [Sampling::Greedy, Sampling::TopK { k: 4, seed: 3 }] {
            let all = generate_all(&decoder, &prompts, sampling, Some(1)).unwrap();
            for (prompt, written) in prompts.iter().zip(&all) {
                let alone = generate(&decoder, &prompt.tokens, prompt.length, sampling, prompt.stream, Some(1));
                assert_eq!(&alone.unwrap(), written, "{name}");
            }
            let by_tensors = generate_all(&decoder.clone().without_kernels(), &prompts[..3], Sampling::Greedy, Some(1));
            let by_kernels = generate_all(&decoder, &prompts[..3], Sampling::Greedy, Some(1));
            assert_eq!(by_tensors.unwrap(), by_kernels.unwrap(), "{name}");
        }
    }
}

/// The way back of a suffix by kernels is that of autodiff.
#[test]
fn a_suffix_finds_back_as_autodiff_does() {
    for name in FAMILIES {
        let [padded, _, kernels] = forms(name);
        let texts = rows(&padded);
        let chosen = [0, 1, 3, 5];
        let texts: Vec<&[u32]> = chosen.iter().map(|&i| texts[i].as_slice()).collect();
        let (starts, marks) = (vec![1, 7, 0, 3], [2, 7, 4, 5]);
        let reads = [(0, 2), (0, 4), (1, 23), (2, 11), (3, 8), (3, 5)];
        let d = padded.config().hidden;
        let noise = |n: usize, seed: usize| {
            let values: Vec<f32> = (0..n * d).map(|i| ((i * 37 + seed) % 101) as f32 / 101.0 - 0.5).collect();
            Tensor::<2>::from_data(burn::tensor::TensorData::new(values, [n, d]), &Device::flex())
        };
        let of = |decoder: &Decoder, keep: &[usize]| {
            let batch = decoder.rows(&texts);
            let (suffix, _) = decoder.suffix(&batch, starts.clone(), &marks, 0, |_, _| Ok(())).unwrap();
            let suffix = suffix.keep(decoder, keep);
            let reads = reads.iter().filter_map(|&(row, at)| Some((keep.iter().position(|&kept| kept == row)?, at)));
            let places = suffix.places(decoder, reads.clone());
            let (hidden, run) = suffix.run(decoder, noise(keep.len(), 5)).unwrap();
            let values: Vec<f32> = read(hidden.at(&places)).unwrap();
            let slope = noise(reads.count(), 11);
            (values, read::<f32, 2, _>(suffix.back(decoder, run, &places, slope).unwrap()).unwrap())
        };
        for keep in [vec![0, 1, 2, 3], vec![1, 3]] {
            let (a, b) = (of(&padded, &keep), of(&kernels, &keep));
            let scale = a.1.iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!(far(&a.0, &b.0) < 2e-5, "{name}: {}", far(&a.0, &b.0));
            assert!(scale > 0.0 && far(&a.1, &b.1) < 1e-5 * scale.max(1.0), "{name}: {} of {scale}", far(&a.1, &b.1));
        }
    }
}

/// What a step of a target search computes there and back is the same to the last bit with copies of weights. A block that is streamed is let go all
/// the same, and an edited model has no copy of what it was.
#[test]
fn copies_of_weights_change_no_bit() {
    for name in FAMILIES {
        let (here, there) = (resident(name, Precision::F32), streamed(name, Precision::F32));
        let (layers, d) = (here.config().layers, here.config().hidden);
        let texts = rows(&here);
        let noise = |n: usize, seed: usize| {
            let values: Vec<f32> = (0..n * d).map(|i| ((i * 37 + seed) % 101) as f32 / 101.0 - 0.5).collect();
            Tensor::<2>::from_data(burn::tensor::TensorData::new(values, [n, d]), &Device::flex())
        };
        let of = |decoder: &Decoder| {
            let batch = decoder.rows(&texts[3..]);
            let (suffix, _) = decoder.suffix(&batch, vec![1, 3, 0], &[2, 4, 5], 0, |_, _| Ok(())).unwrap();
            let places = suffix.places(decoder, [(0, 4), (1, 8), (2, 5)]);
            let (hidden, run) = suffix.run(decoder, noise(3, 5)).unwrap();
            let normed = decoder.final_norm(hidden.at(&places));
            let losses = decoder.cross_entropies(&normed, &[3, 1, 4], &[1.0, 0.5, 0.25]).unwrap();
            let back = suffix.back(decoder, run, &places, losses.gradient.clone()).unwrap();
            let numbers = [normed, losses.values, losses.gradient, back];
            numbers.map(|numbers| read::<f32, 2, _>(numbers).unwrap())
        };
        for compute in [Compute::F32, Compute::Bf16] {
            let [here, there] = [&here, &there].map(|decoder| decoder.clone().with_compute(compute));
            let plain = of(&here);
            let copied = here.with_copies(1..layers, compute).unwrap();
            assert_eq!(copied.copied_layers(), (1..layers).collect::<Vec<_>>());
            assert!(of(&copied) == plain, "{name}, {compute:?}");

            let again = there.with_copies(1..layers, compute).unwrap();
            assert!(again.copied_layers().is_empty());
            assert!(of(&again) == plain, "{name}, {compute:?}: streamed");
            let held = there.hold(layers - 1..layers).unwrap().with_copies(1..layers, compute).unwrap();
            assert_eq!(held.copied_layers(), [layers - 1]);
            assert!(of(&held) == plain, "{name}, {compute:?}: held");
            assert!(there.streaming().unwrap().most_in_memory <= 2);

            let last = WeightId::down(layers - 1);
            if here.config().mixture(layers - 1).is_none() {
                let change = here.weight(last).unwrap();
                let edited = copied.with_change(last, change.clone()).unwrap();
                assert!(edited.copied_layers().is_empty());
                assert!(of(&edited) == of(&here.with_change(last, change).unwrap()), "{name}, {compute:?}: edited");
            }
            // Products in another type take none.
            let other = if compute == Compute::F32 { Compute::Bf16 } else { Compute::F32 };
            assert!(copied.with_compute(other).copied_layers().is_empty());
        }
    }
}

#[test]
fn packed_batches_hold_as_many_tokens_as_they_may() {
    let [padded, packed, kernels] = forms("gpt2-tiny");
    let lengths = [5, 3, 9, 3, 20, 1];
    assert_eq!(padded.batches(&lengths, 12), [vec![5, 1, 3], vec![0], vec![2], vec![4]]);
    for decoder in [packed, kernels] {
        assert_eq!(decoder.batches(&lengths, 12), [vec![5, 1, 3, 0], vec![2], vec![4]]);
    }
}
