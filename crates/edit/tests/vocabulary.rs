//! Targets over vocabularies of published sizes against the same search in f64.
//!
//! The model is a small random one, but for its vocabulary. δ is searched for after its last block, at the last token of every prompt: what
//! is left above is the final norm and the head, which are written out here in f64, with their gradients and Adam.

use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use palinode_data::{ContextTemplates, EditRequest};
use palinode_edit::{FactToken, Prompt, Site, Tap, Target, TargetSettings, TargetSite, optimise, probe, prompts};
use palinode_model::{Decoder, DecoderConfig, Parameters, Text, read};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const D: usize = 48;
const EPSILON: f64 = 1e-5;

fn fixture() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/gpt2-tiny")
}

/// A GPT-2 with so many tokens, whose predictions are neither flat nor sure.
fn decoder(vocabulary: usize) -> Decoder {
    let config = format!(
        r#"{{ "model_type": "gpt2", "n_embd": {D}, "n_head": 4, "n_layer": 2, "n_positions": 128, "vocab_size": {vocabulary},
            "layer_norm_epsilon": {EPSILON}, "activation_function": "gelu_new" }}"#
    );
    let config = DecoderConfig::from_hf(&config, Path::new("config.json")).unwrap();
    let device = Device::flex();
    let mut parameters = Parameters::random(&config, &device);
    let mut random = ChaCha8Rng::seed_from_u64(vocabulary as u64);
    // Uniform, with deviation 0.3: normed rows have length √48, so that logits have deviation 2.
    let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| (random.random::<f32>() - 0.5) * 1.04).collect() };
    let rows =
        |values: Vec<f32>, n: usize| Param::from_tensor(Tensor::from_data(TensorData::new(values, [n, D]), &device));
    parameters.token_embedding = rows(normal(vocabulary * D), vocabulary);
    parameters.position_embedding = Some(rows(normal(128 * D), 128));
    Decoder::from_parameters(config, parameters)
}

/// The head in f64.
struct Head {
    /// `[V, D]`.
    embedding: Vec<f64>,
}

impl Head {
    fn of(decoder: &Decoder) -> Self {
        let weight = read::<f32, _, _>(decoder.head_weight().transpose()).unwrap();
        Self { embedding: weight.into_iter().map(f64::from).collect() }
    }

    /// Normalised input and its deviation.
    fn norm(x: &[f64]) -> (Vec<f64>, f64) {
        let mean = x.iter().sum::<f64>() / D as f64;
        let deviation = (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / D as f64 + EPSILON).sqrt();
        (x.iter().map(|v| (v - mean) / deviation).collect(), deviation)
    }

    fn log_p(&self, normed: &[f64]) -> Vec<f64> {
        let dot = |row: &[f64]| row.iter().zip(normed).map(|(w, n)| w * n).sum::<f64>();
        let logits: Vec<f64> = self.embedding.chunks(D).map(dot).collect();
        let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = largest + logits.iter().map(|l| (l - largest).exp()).sum::<f64>().ln();
        logits.into_iter().map(|l| l - log_sum).collect()
    }

    /// A loss of log-probabilities and its gradient with respect to `x`, given that with respect to logits.
    fn loss(&self, x: &[f64], loss: impl Fn(&[f64]) -> (f64, Vec<f64>)) -> (f64, Vec<f64>) {
        let (normed, deviation) = Self::norm(x);
        let (value, slope) = loss(&self.log_p(&normed));
        let mut gradient = vec![0.0; D];
        for (row, slope) in self.embedding.chunks(D).zip(slope) {
            gradient.iter_mut().zip(row).for_each(|(g, w)| *g += slope * w);
        }
        let mean = gradient.iter().sum::<f64>() / D as f64;
        let along = gradient.iter().zip(&normed).map(|(g, n)| g * n).sum::<f64>() / D as f64;
        (value, gradient.iter().zip(&normed).map(|(g, n)| (g - mean - n * along) / deviation).collect())
    }
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// δ of the search in f64, given the clean hidden states of the rewrite prompts and of the essence.
fn search(head: &Head, rows: &[Vec<f64>], essence: &[f64], token: usize, s: &TargetSettings) -> Vec<f64> {
    let clean = head.log_p(&Head::norm(essence).0);
    let length = norm(&rows[0]);
    let (mut delta, mut first, mut second) = (vec![0.0; D], vec![0.0; D], vec![0.0; D]);
    for number in 1..=s.steps as i32 {
        let plus = |x: &[f64]| x.iter().zip(&delta).map(|(x, d)| x + d).collect::<Vec<_>>();
        let size = norm(&delta);
        let mut gradient: Vec<f64> =
            delta.iter().map(|d| s.weight_decay * d / (size.max(1e-30) * length * length)).collect();
        let mut add = |by: f64, of: Vec<f64>| gradient.iter_mut().zip(of).for_each(|(g, v)| *g += by * v);
        let mut nll = 0.0;
        for row in rows {
            let (value, slope) = head.loss(&plus(row), |log_p| {
                let mut slope: Vec<f64> = log_p.iter().map(|l| l.exp()).collect();
                slope[token] -= 1.0;
                (-log_p[token], slope)
            });
            nll += value / rows.len() as f64;
            add(1.0 / rows.len() as f64, slope);
        }
        let (kl, slope) = head.loss(&plus(essence), |log_p| {
            let ratio = || log_p.iter().zip(&clean).map(|(now, before)| now - before);
            let kl = log_p.iter().zip(ratio()).map(|(l, r)| l.exp() * r).sum::<f64>();
            (kl, log_p.iter().zip(ratio()).map(|(l, r)| l.exp() * (r - kl)).collect())
        });
        add(s.kl_factor, slope);
        if nll + s.kl_factor * kl + s.weight_decay * size / (length * length) < s.stop_loss || number == s.steps as i32
        {
            break;
        }
        let (b1, b2) = (0.9_f64, 0.999_f64);
        for i in 0..D {
            first[i] = b1 * first[i] + (1.0 - b1) * gradient[i];
            second[i] = b2 * second[i] + (1.0 - b2) * gradient[i] * gradient[i];
            let denominator = second[i].sqrt() / (1.0 - b2.powi(number)).sqrt() + 1e-8;
            delta[i] -= s.learning_rate / (1.0 - b1.powi(number)) * first[i] / denominator;
        }
        let shrink = (s.clamp * length / norm(&delta)).min(1.0);
        for d in &mut delta {
            *d *= shrink;
        }
    }
    delta
}

#[test]
fn targets_over_published_vocabularies_are_those_of_f64() {
    let text = Text::open(&fixture().join("tokenizer.json")).unwrap();
    let request = EditRequest {
        id: "one".into(),
        prompt: "The city of {}".into(),
        subject: "Oslo".into(),
        target_new: "a".into(),
        ..EditRequest::default()
    };
    let templates = ContextTemplates::from_openings(&["The weather had been fine for days", "Because"]);
    let settings = TargetSettings {
        fact_token: FactToken::default(),
        site: TargetSite::BlockOutput,
        layer: 1,
        steps: 20,
        learning_rate: 0.1,
        kl_factor: 0.0625,
        weight_decay: 0.5,
        clamp: 4.0,
        stop_loss: 0.0,
        rules: palinode_edit::TargetRules::default(),
    };
    // GPT-2's and Qwen 2's.
    for vocabulary in [50_257, 151_936] {
        let decoder = decoder(vocabulary);
        let Target { initial, delta, trace } =
            optimise(&decoder, &text, std::slice::from_ref(&request), &templates, &settings, |_| {}).unwrap().remove(0);
        // The divergence of a prediction from itself.
        let kl = f64::from(trace[0].kl) / settings.kl_factor;
        assert!(kl.abs() <= 1e-6, "{vocabulary}: {kl:e}");

        let openings: Vec<&str> = templates.weighted().into_iter().map(|(template, _)| template).collect();
        let rows = prompts::rewrite_prompts(&text, decoder.config(), &request, &openings).unwrap();
        let [token] = rows.target[..] else { panic!("{:?}", rows.target) };
        let all: Vec<Prompt> = rows.rows.iter().chain(&rows.essences).cloned().collect();
        let hidden = probe(&decoder, &all, &[Tap { layer: 1, site: Site::BlockOutput }], 4096).unwrap().remove(0);
        let hidden: Vec<Vec<f64>> = hidden.chunks(D).map(|row| row.iter().map(|&v| f64::from(v)).collect()).collect();
        let (essence, rows) = hidden.split_last().unwrap();
        let right = search(&Head::of(&decoder), rows, essence, token as usize, &settings);
        let far = |found: &[f32], right: &[f64]| {
            found.iter().zip(right).map(|(f, r)| (f64::from(*f) - r).abs()).fold(0.0, f64::max)
        };
        assert!(far(&initial, &rows[0]) < 1e-5);
        assert!(norm(&right) > 1.0, "nothing was searched for");
        let off = far(&delta, &right);
        assert!(off <= 3e-4, "{vocabulary}: {off:e}");
        if std::env::var_os("PALINODE_SHOW").is_some() {
            println!("{vocabulary} tokens: z off by {off:.1e} of {:.2}, KL begins at {kl:.1e}", norm(&right));
        }
    }
}
