//! What is measured.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use palinode_data::EditRequest;
use palinode_edit::{Edit, Moments, Preservations, Target, TargetSettings, apply, optimise_at_most};
use palinode_eval::{Query, score};
use palinode_math::{
    Factor, Form, History, Mat, Objective, Preservation, PreservationWeights, Problem, Projector, SecondMoment,
    Spectrum, Strategy, Threshold,
};
use palinode_model::generate::{Prompt, Sampling, generate_all};
use palinode_model::{Compute, Decoder, WeightId, kernel_product};
use serde_json::{Value, json};

use crate::meter::measure;
use crate::settings::{Failure, Settings};

const MEMIT_WEIGHT: PreservationWeights = PreservationWeights { lambda: 15_000.0, rho: 0.0 };

/// Targets of `requests` records, `parallel_requests` at the same time.
pub fn targets(settings: &Settings) -> Result<Value, Failure> {
    let (decoder, text) = settings.model()?;
    let (requests, templates, how) = (settings.requests()?, settings.templates()?, settings.targets()?);
    let parallel_requests = settings.number("parallel_requests")?;
    let find =
        |how: &TargetSettings| optimise_at_most(&decoder, &text, &requests, &templates, how, parallel_requests, |_| {});
    let before = decoder.work();
    let (found, mut measured) = measure(None, || find(&how));
    let whole = decoder.work() - before;
    if settings.text("work").is_ok() {
        // What a step takes is what a second one adds.
        let [one, two] = [1, 2].map(|steps| {
            let before = decoder.work();
            find(&TargetSettings { steps, ..how }).map(|_| decoder.work() - before)
        });
        let step = two? - one?;
        // Backward passes cost what the forward passes of the same tokens cost: weights have no gradient. The last step of
        // all goes back through the head alone.
        let back = how.steps as u64;
        let tokens = whole.block_tokens + step.block_tokens * (back - 1);
        let rows = whole.head_rows + step.head_rows * back;
        measured["gflop"] = json!((block_flop(&decoder) * tokens as f64 + head_flop(&decoder) * rows as f64) / 1e9);
    }
    // A search that ended early would have cost less than the case says.
    let evaluations: usize = found?.iter().map(|target| target.trace.len()).sum();
    if evaluations < requests.len() * how.steps {
        eprintln!("{evaluations} evaluations instead of {}", requests.len() * how.steps);
    }
    Ok(measured)
}

/// Operations of one token in one block's matrices.
fn block_flop(decoder: &Decoder) -> f64 {
    let config = decoder.config();
    let attention = config.heads * config.head_dim;
    let projections = config.hidden * (2 * attention + 2 * config.kv_heads * config.head_dim);
    let gates = if config.gated { 3 } else { 2 };
    2.0 * (projections + gates * config.hidden * config.feed_forward) as f64
}

/// Operations of one row in the head.
fn head_flop(decoder: &Decoder) -> f64 {
    2.0 * (decoder.config().hidden * decoder.config().vocab) as f64
}

/// Second moments of `layers` over the first `documents` of the corpus, from text to sums.
pub fn moments(settings: &Settings) -> Result<Value, Failure> {
    let (decoder, text) = settings.model()?;
    let decoder = decoder.with_compute(settings.compute()?);
    let documents = settings.number("documents")?;
    let corpus = std::fs::read_to_string(settings.inputs()?.join("corpus.txt"))?;
    let texts: Vec<&str> = corpus.lines().take(documents).collect();
    let mut moments = Moments::new();
    for layer in settings.list("layers")? {
        moments.insert(&decoder, layer, SecondMoment::new(decoder.config().feed_forward))?;
    }
    let (added, mut measured) = measure(None, || -> Result<(), Failure> {
        for block in texts.chunks(64) {
            let rows = block.iter().map(|document| text.encode(document)).collect::<Result<Vec<_>, _>>()?;
            moments.add(&decoder, &rows, settings.number("batch_tokens")?)?;
        }
        Ok(())
    });
    added?;
    let tokens: u64 = moments.layers()?.values().map(SecondMoment::count).sum();
    let f = decoder.config().feed_forward as f64;
    // Of the products only the lower half is computed, in f64.
    measured["gflop"] = json!(block_flop(&decoder) * decoder.work().block_tokens as f64 / 1e9);
    measured["gflop_f64"] = json!(f * f * tokens as f64 / 1e9);
    Ok(measured)
}

/// Likelihoods of both targets after the rewrite prompt, the paraphrases and the neighbours of `requests` records.
pub fn scores(settings: &Settings) -> Result<Value, Failure> {
    let (decoder, text) = settings.model()?;
    let decoder = decoder.with_compute(settings.compute()?);
    let requests = settings.requests()?;
    let queries: Vec<Query> = requests.iter().flat_map(questions).collect();
    let tokens = settings.number("batch_tokens")?;
    let (scored, mut measured) = measure(None, || score(&decoder, &text, &queries, tokens));
    let all = scored?.into_iter().flatten().map(|score| score.nll);
    // What both sides must agree on.
    measured["nll"] = json!(all.clone().sum::<f64>() / all.count() as f64);
    Ok(measured)
}

fn questions(request: &EditRequest) -> Vec<Query> {
    let others = request.paraphrases.iter().cloned().chain(request.neighbors.iter().map(|of| of.prompt.clone()));
    let targets = [Some(&request.target_new), request.target_true.as_ref()];
    std::iter::once(request.filled_prompt())
        .chain(others)
        .map(|prompt| Query {
            targets: targets.iter().copied().flatten().map(|target| request.continuation(&prompt, target)).collect(),
            prompt,
        })
        .collect()
}

/// `texts` texts of `length` tokens that begin with the records' rewrite prompts, each token one of the five most probable ones.
pub fn texts(settings: &Settings) -> Result<Value, Failure> {
    let (decoder, text) = settings.model()?;
    let decoder = decoder.with_compute(settings.compute()?);
    let (count, length) = (settings.number("texts")?, settings.number("length")?);
    let requests = settings.requests()?;
    let prompt = |(stream, request): (u64, &EditRequest)| {
        Ok(Prompt { tokens: text.encode(&request.filled_prompt())?, length, stream })
    };
    let prompts: Vec<Prompt> =
        (0..).zip(requests.iter().cycle().take(count)).map(prompt).collect::<Result<_, Failure>>()?;
    let given: usize = prompts.iter().map(|prompt| prompt.tokens.len()).sum();
    let sampling = Sampling::TopK { k: 5, seed: 1 };
    let (written, mut measured) = measure(None, || generate_all(&decoder, &prompts, sampling, None));
    measured["new_tokens"] = json!(written?.iter().map(Vec::len).sum::<usize>() - given);
    Ok(measured)
}

/// One layer's update; `cached=1` leaves the factor of the preservation metric out, which every further batch does.
pub fn solve(settings: &Settings) -> Result<Value, Failure> {
    let (f, d, batch) = (settings.number("f")?, settings.number("d")?, settings.number("batch")?);
    let moment = SecondMoment::from_sum(&smooth_moment(f), f, 1)?;
    let keys = Mat::from_fn(f, batch, |i, b| (0.37 * (i as f64 + 1.0) * (b as f64 + 1.0)).sin());
    let residual = Mat::from_fn(d, batch, |i, b| (0.11 * (i as f64 + 2.0) * (b as f64 + 3.0)).cos());
    let mu = vec![if settings.text("objective")? == "memit" { 1.0 } else { 0.1 }; batch];
    let ready = if settings.number("cached")? == 1 { Some(Factor::new(&moment, MEMIT_WEIGHT)?) } else { None };
    let (solved, measured) = measure(None, || {
        let factor = match ready {
            Some(factor) => factor,
            None => Factor::new(&moment, MEMIT_WEIGHT)?,
        };
        let problem =
            Problem { keys: keys.as_ref(), direction: None, residual: residual.as_ref(), mu: &mu, form: Form::Auto };
        // The weight's change itself is part of the work, as it is in the reference.
        palinode_math::solve(&factor, &problem).map(|solution| solution.update.dense())
    });
    solved?;
    Ok(measured)
}

/// A round of a sequence at one layer: `method=memit_seq` or `alphaedit`, after `before` rounds of `batch` edits each that the metric remembers.
/// With `cold=1` what a sequence does once is part of it: the factor, and for AlphaEdit the spectrum.
pub fn round(settings: &Settings) -> Result<Value, Failure> {
    let (f, d, batch) = (settings.number("f")?, settings.number("d")?, settings.number("batch")?);
    let before = settings.number("before")?;
    let moment = SecondMoment::from_sum(&smooth_moment(f), f, 1)?;
    let alphaedit = settings.text("method")? == "alphaedit";
    let base = || -> Result<Arc<dyn Preservation>, Failure> {
        if !alphaedit {
            return Ok(Arc::new(Factor::new(&moment, MEMIT_WEIGHT)?));
        }
        let weights = PreservationWeights { lambda: 0.0, rho: 10.0 };
        Ok(Arc::new(Projector::new(&Spectrum::of(&moment)?, Threshold::Dimensions(KEPT), weights)?))
    };
    let keys = |round: usize| {
        Mat::from_fn(f, batch, |i, b| (0.37 * (i as f64 + 1.0) * ((round * batch + b) as f64 + 1.0)).sin())
    };
    let residual = Mat::from_fn(d, batch, |i, b| (0.11 * (i as f64 + 2.0) * (b as f64 + 3.0)).cos());
    let mu = vec![1.0; batch];
    let one = |history: &mut History, round: usize| -> Result<Mat<f64>, Failure> {
        let keys = keys(round);
        let problem =
            Problem { keys: keys.as_ref(), direction: None, residual: residual.as_ref(), mu: &mu, form: Form::Auto };
        let change = palinode_math::solve(&*history, &problem)?.update.dense();
        history.remember(keys.as_ref())?;
        Ok(change)
    };
    if settings.number("cold")? == 1 {
        let (done, measured) = measure(None, || one(&mut History::new(base()?, 1.0)?, 0));
        done?;
        return Ok(measured);
    }
    let mut history = History::new(base()?, 1.0)?;
    for round in 0..before {
        history.remember(keys(round).as_ref())?;
    }
    // The mean over some rounds.
    let rounds = settings.number("rounds")?;
    let (done, mut measured) = measure(None, || -> Result<(), Failure> {
        (before..before + rounds).try_for_each(|round| one(&mut history, round).map(drop))
    });
    done?;
    for what in ["wall", "cpu"] {
        measured[what] = json!(measured[what].as_f64().map(|seconds| seconds / rounds as f64));
    }
    measured["factorings"] = json!(history.consolidations());
    Ok(measured)
}

/// The share of directions that AlphaEdit may use in [`round`].
const KEPT: f64 = 0.75;

/// A whole MEMIT run with second moments given: targets, factors, keys, solves, changes of every layer.
pub fn edit(settings: &Settings) -> Result<Value, Failure> {
    let (decoder, text) = settings.model()?;
    let (requests, templates, how) = (settings.requests()?, settings.templates()?, settings.targets()?);
    let layers = settings.list("layers")?;
    let plan = Strategy::Memit.plan(&layers)?;
    let parallel_requests = settings.number("parallel_requests")?;
    let f = decoder.config().feed_forward;
    let moment = SecondMoment::from_sum(&smooth_moment(f), f, 1)?;
    let (edited, measured) = measure(None, || -> Result<Decoder, Failure> {
        let found = optimise_at_most(&decoder, &text, &requests, &templates, &how, parallel_requests, |_| {})?;
        let values: Vec<f32> = found.iter().flat_map(Target::value).collect();
        let metrics = layers
            .iter()
            .map(|&layer| Ok((WeightId::down(layer), Arc::new(Factor::new(&moment, MEMIT_WEIGHT)?) as _)))
            .collect::<Result<Preservations, Failure>>()?;
        let edit = Edit {
            objective: Objective::Memit,
            plan: &plan,
            templates: &templates,
            targets: how,
            parallel_requests,
            tokens: 4096,
        };
        let applied = apply(&decoder, &text, &requests, &values, &metrics, &edit)?;
        Ok(palinode_edit::with_edits(&decoder, applied.layers.iter().map(|l| (l.weight, &l.delta)))?)
    });
    edited?;
    Ok(measured)
}

/// How far results with products in bf16 are from those in f32: second moments of `layers` over `documents`, targets of `requests` at the last of
/// the layers, and updates, each as the norm of the difference over the norm. Updates first with what a pipeline rounds, then with what it does not:
/// keys, current values and `h₀`. Times are of no use.
pub fn apart(settings: &Settings) -> Result<Value, Failure> {
    let (plain, text) = settings.model()?;
    let rounded = plain.clone().with_compute(Compute::Bf16);
    let (requests, templates) = (settings.requests()?, settings.templates()?);
    let (layers, f) = (settings.list("layers")?, plain.config().feed_forward);
    let lambda: f64 = settings.text("lambda").unwrap_or("15000").parse()?;
    let parallel_requests = settings.number("parallel_requests").unwrap_or(8);
    let corpus = std::fs::read_to_string(settings.inputs()?.join("corpus.txt"))?;
    let texts: Vec<&str> = corpus.lines().take(settings.number("documents")?).collect();
    let documents = texts.iter().map(|document| text.encode(document)).collect::<Result<Vec<_>, _>>()?;
    let moments = |decoder: &Decoder| -> Result<_, Failure> {
        let mut moments = Moments::new();
        for &layer in &layers {
            moments.insert(decoder, layer, SecondMoment::new(f))?;
        }
        for unit in documents.chunks(64) {
            moments.add(decoder, unit, 2048)?;
        }
        Ok(moments.take()?)
    };
    let moments = [moments(&plain)?, moments(&rounded)?];
    let of = |layer: &usize| distance(&moments[1][layer].sum(), &moments[0][layer].sum());
    let of_moments: Vec<f64> = layers.iter().map(of).collect();

    let exact = settings.targets()?;
    let in_bf16 =
        TargetSettings { rules: palinode_edit::TargetRules { compute: Compute::Bf16, ..exact.rules }, ..exact };
    let find = |decoder: &Decoder, how: &TargetSettings| {
        optimise_at_most(decoder, &text, &requests, &templates, how, parallel_requests, |_| {})
    };
    let [exact_targets, targets, whole] = [find(&plain, &exact)?, find(&plain, &in_bf16)?, find(&rounded, &in_bf16)?];
    let all = |targets: &[Target], part: fn(&Target) -> Vec<f32>| -> Vec<f64> {
        targets.iter().flat_map(part).map(f64::from).collect()
    };
    let value: fn(&Target) -> Vec<f32> = Target::value;
    let delta: fn(&Target) -> Vec<f32> = |target| target.delta.clone();
    let initial: fn(&Target) -> Vec<f32> = |target| target.initial.clone();
    let last = |targets: &[Target]| {
        let losses = targets.iter().filter_map(|target| target.trace.last()).map(|step| f64::from(step.nll));
        losses.sum::<f64>() / targets.len() as f64
    };

    let plan = Strategy::Memit.plan(&layers)?;
    let update = |decoder: &Decoder, moments: &std::collections::BTreeMap<usize, SecondMoment>, targets: &[Target]| {
        let metric = |(layer, moment): (&usize, &SecondMoment)| {
            let weights = PreservationWeights { lambda, rho: 0.0 };
            Ok((WeightId::down(*layer), Arc::new(Factor::new(moment, weights)?) as _))
        };
        let metrics = moments.iter().map(metric).collect::<Result<Preservations, Failure>>()?;
        let edit = Edit {
            objective: Objective::Memit,
            plan: &plan,
            templates: &templates,
            targets: exact,
            parallel_requests,
            tokens: 4096,
        };
        let values: Vec<f32> = targets.iter().flat_map(Target::value).collect();
        let applied = apply(decoder, &text, &requests, &values, &metrics, &edit)?;
        let numbers = |delta: &palinode_math::Delta| palinode_math::row_major(delta.dense().as_ref());
        Ok::<_, Failure>(applied.layers.iter().flat_map(|layer| numbers(&layer.delta)).collect::<Vec<f64>>())
    };
    let exact_update = update(&plain, &moments[0], &exact_targets)?;
    let from = |decoder: &Decoder, moments, targets: &[Target]| -> Result<f64, Failure> {
        Ok(distance(&update(decoder, moments, targets)?, &exact_update))
    };
    Ok(json!({
        "moments": of_moments,
        "targets": {
            "delta": distance(&all(&targets, delta), &all(&exact_targets, delta)),
            "z": distance(&all(&targets, value), &all(&exact_targets, value)),
            "nll": [last(&exact_targets), last(&targets)],
        },
        "update": {
            "of moments": from(&plain, &moments[1], &exact_targets)?,
            "of targets": from(&plain, &moments[0], &targets)?,
            "of both": from(&plain, &moments[1], &targets)?,
        },
        "refused": {
            "h0 over δ": distance(&all(&whole, initial), &all(&exact_targets, initial)) * size(&all(&exact_targets, initial))
                / size(&all(&exact_targets, delta)),
            "update of h0": from(&plain, &moments[0], &whole)?,
            "update of keys and values": from(&rounded, &moments[0], &exact_targets)?,
        },
    }))
}

fn size(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The norm of the difference over the norm of the second.
fn distance(x: &[f64], exact: &[f64]) -> f64 {
    let off: Vec<f64> = x.iter().zip(exact).map(|(a, b)| a - b).collect();
    size(&off) / size(exact)
}

/// The machine's matrix product, `[m, k] × [k, n]`: in f32 and bf16 as blocks of models are computed, and by `faer` in f64, as solves are.
pub fn gemm(settings: &Settings) -> Result<Value, Failure> {
    let (m, k, n) = (settings.number("m")?, settings.number("k")?, settings.number("n")?);
    let repeat = settings.number("repeat")?;
    let flops = Some(2.0 * (m * k * n * repeat) as f64);
    let (a, b): (Vec<f32>, Vec<f32>) = ((0..m * k).map(pseudo).collect(), (0..k * n).map(pseudo).collect());
    Ok(match settings.text("dtype").unwrap_or("f32") {
        "f64" => {
            let (a, b) = (
                Mat::from_fn(m, k, |i, j| f64::from(a[i * k + j])),
                Mat::from_fn(k, n, |i, j| f64::from(b[i * n + j])),
            );
            drop(&a * &b);
            measure(flops, || (0..repeat).for_each(|_| drop(&a * &b))).1
        }
        kind => {
            let compute = if kind == "bf16" { Compute::Bf16 } else { Compute::F32 };
            let tensor =
                |values, shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values, shape), &Device::flex());
            let (a, b) = (tensor(a, [m, k]), tensor(b, [k, n]));
            let product = || kernel_product(a.clone(), b.clone(), compute).map(Tensor::into_data);
            if product().is_none() {
                return Err("kernels do not compute here".into());
            }
            measure(flops, || (0..repeat).for_each(|_| drop(product()))).1
        }
    })
}

/// Numbers between −1 and 1 that follow no pattern.
fn pseudo(at: usize) -> f32 {
    ((at as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0
}

/// Cholesky factor in f64, `f³/3` operations.
pub fn cholesky(settings: &Settings) -> Result<Value, Failure> {
    let f = settings.number("f")?;
    let moment = SecondMoment::from_sum(&smooth_moment(f), f, 1)?;
    let (factor, measured) = measure(Some((f as f64).powi(3) / 3.0), || Factor::new(&moment, MEMIT_WEIGHT));
    factor?;
    Ok(measured)
}

/// A positive definite matrix by formula, so that both sides have the same: `0.9 exp(−|i − j|/20) + 0.1`. Without the last part wide ones would
/// have numbers below the smallest normal one, and so would their factors, which CPUs multiply many times more slowly.
fn smooth_moment(f: usize) -> Vec<f64> {
    let decay: Vec<f64> = (0..f).map(|n| 0.9 * (-(n as f64) / 20.0).exp() + 0.1).collect();
    (0..f * f).map(|at| decay[(at / f).abs_diff(at % f)]).collect()
}
