//! Methods that came after MEMIT, against their authors' code: targets step by step, solves from recorded inputs, the first batch end to
//! end, and edits by gradient. Tolerances are those of the folder's README.

use std::sync::Arc;

use burn::tensor::Device;
use palinode_data::{ContextTemplates, Dataset, EditRequest, Selection, read_requests};
use palinode_edit::{
    Edit, FactToken, Lifelong, LifelongSettings, Preservations, StopRule, Taken, Target, TargetRules, TargetSettings,
    TargetSite, TuneLoss, TuneSettings, apply, optimise, solve_lifelong, take, tune, with_edits,
};
use palinode_eval::score_requests;
use palinode_golden::{Folder, Json, Tensors, relative};
use palinode_math::{
    Factor, Form, Mat, Objective, PreservationWeights, Problem, SecondMoment, Strategy, from_row_major, row_major,
    solve,
};
use palinode_model::{Checkpoint, Decoder, DecoderConfig, Text, WeightId};

struct Golden {
    folder: Folder,
    decoder: Decoder,
    text: Text,
    requests: Vec<EditRequest>,
    templates: ContextTemplates,
}

fn golden() -> Golden {
    let given = Folder::given();
    let folder = given.folder("followups").folder("gpt2");
    let model = given.folder("gpt2").folder("model");
    let config = DecoderConfig::read(&model.file("config.json")).unwrap();
    let files: Vec<_> = Checkpoint::files(model.path()).unwrap().iter().map(|f| model.path().join(f)).collect();
    let templates = given.folder("gpt2").json("templates.json");
    Golden {
        decoder: Decoder::load(&Checkpoint::open(&files).unwrap(), &config, &Device::flex()).unwrap(),
        text: Text::open(&model.file("tokenizer.json")).unwrap(),
        requests: read_requests(&folder.file("requests.json"), &Dataset::CounterFact, &Selection::default()).unwrap(),
        templates: ContextTemplates { groups: templates.field("memit_emmet").list().iter().map(Json::texts).collect() },
        folder,
    }
}

impl Golden {
    fn experiment(&self, id: &str) -> Json {
        let all = self.folder.json("experiments.json").list();
        all.into_iter().find(|it| it.field("id").text() == id).unwrap_or_else(|| panic!("no experiment {id}"))
    }

    fn tensors(&self, id: &str) -> Tensors {
        self.folder.tensors(&format!("{id}.safetensors"))
    }

    /// C of a layer.
    fn moment(&self, layer: usize) -> SecondMoment {
        let f = self.decoder.config().feed_forward;
        let upper = self.folder.tensors("mom2.safetensors").values(&format!("layer{layer}.mom2_upper"));
        assert_eq!(upper.len(), f * (f + 1) / 2);
        // Row i begins after the rows before it.
        let at = |i: usize, j: usize| upper[i * f + j - i * (i + 1) / 2];
        let sum: Vec<f64> = (0..f * f).map(|n| at((n / f).min(n % f), (n / f).max(n % f))).collect();
        SecondMoment::from_sum(&sum, f, 1).unwrap()
    }

    fn metrics(&self, layers: &[usize], lambda: f64, rho: f64) -> Preservations {
        let metric = |layer: usize| Factor::new(&self.moment(layer), PreservationWeights { lambda, rho }).unwrap();
        layers.iter().map(|&layer| (WeightId::down(layer), Arc::new(metric(layer)) as _)).collect()
    }

    fn batch(&self, experiment: &Json, batch: usize) -> Vec<EditRequest> {
        let chosen = experiment.field("batches").list()[batch].field("requests").wholes();
        chosen.into_iter().map(|i| self.requests[i].clone()).collect()
    }

    /// NLLs of all records on an edited model; the largest distance from theirs.
    fn nll_off(&self, model: &Decoder, records: &Json) -> f64 {
        let scores = score_requests(model, &self.text, &self.requests, 2048).unwrap();
        let mut worst = 0f64;
        let records = records.list();
        assert_eq!(records.len(), self.requests.len());
        for record in records {
            let id = record.field("case_id").whole().to_string();
            let at = self.requests.iter().position(|r| r.id == id).unwrap();
            let ours = &scores[at];
            for (name, ours) in [
                ("rewrite_prompts_probs", &ours.rewrite),
                ("paraphrase_prompts_probs", &ours.paraphrase),
                ("neighborhood_prompts_probs", &ours.neighborhood),
            ] {
                let theirs = record.field(name).list();
                assert_eq!(ours.len(), theirs.len());
                for (ours, theirs) in ours.iter().zip(&theirs) {
                    let old = ours.old.as_ref().unwrap();
                    worst = worst.max((ours.new.nll - theirs.field("target_new_prob").number()).abs());
                    worst = worst.max((old.nll - theirs.field("target_true_prob").number()).abs());
                }
            }
        }
        worst
    }
}

fn settings(h: &Json, layer: usize, site: TargetSite, stop: StopRule) -> TargetSettings {
    let number = |name: &str| h.field(name).number();
    TargetSettings {
        fact_token: FactToken::default(),
        site,
        layer,
        steps: h.field("v_num_grad_steps").whole(),
        learning_rate: number("v_lr"),
        kl_factor: number("kl_factor"),
        weight_decay: number("v_weight_decay"),
        clamp: number("clamp_norm_factor"),
        stop_loss: 0.05,
        rules: TargetRules { stop, ..TargetRules::default() },
    }
}

fn rows(m: &Mat<f64>) -> Vec<f64> {
    row_major(m.as_ref())
}

fn change(file: &Tensors, stem: &str) -> Mat<f64> {
    let matrix = |name: &str| {
        let (shape, values) = file.floats(&format!("{stem}.{name}"));
        from_row_major("golden", &values, shape[0], shape[1]).unwrap().to_owned()
    };
    matrix("resid") * matrix("adj_k").transpose()
}

/// Targets, the first batch end to end, and the model after it.
fn first_batch(id: &str, site: TargetSite, stop: StopRule, strategy: Strategy) {
    let g = golden();
    let experiment = g.experiment(id);
    let h = experiment.field("hparams");
    let layers = experiment.field("layers").wholes();
    let rho = if h.has("update_norm_lambda") { h.field("update_norm_lambda").number() } else { 0.0 };
    let lambda = h.field("mom2_update_weight").number();
    let plan = strategy.plan(&layers).unwrap();
    let settings = settings(&h, plan.target_layer, site, stop);
    let requests = g.batch(&experiment, 0);
    let targets = optimise(&g.decoder, &g.text, &requests, &g.templates, &settings, |_| {}).unwrap();
    let file = g.tensors(id);
    let d = g.decoder.config().hidden;
    let zs = if file.has("b0.zs") { "b0.zs".to_owned() } else { format!("b0.layer{}.zs", plan.target_layer) };
    let zs = file.values(&zs);
    let traces = g.folder.json(&format!("{id}.compute_z.json")).list();
    for (i, target) in targets.iter().enumerate() {
        let theirs = traces
            .iter()
            .find(|t| {
                t.field("batch").whole() == 0
                    && t.field("z_layer").whole() == plan.target_layer
                    && t.field("case_id").whole().to_string() == requests[i].id
            })
            .unwrap();
        let steps = theirs.field("steps").list();
        assert_eq!(target.trace.len(), theirs.field("n_steps").whole(), "{id}: steps of request {i}");
        for (ours, theirs) in target.trace.iter().zip(&steps) {
            // Printed with three decimals.
            let off = (f64::from(ours.loss) - theirs.list()[0].number()).abs();
            assert!(off < 2e-3, "{id} request {i}: loss {} off by {off}", ours.loss);
        }
        let off = relative(&target.value(), &zs[i * d..][..d]);
        assert!(off < 1e-3, "{id} request {i}: z off by {off}");
    }
    let values: Vec<f32> = targets.iter().flat_map(Target::value).collect();
    let edit = Edit {
        objective: Objective::Memit,
        plan: &plan,
        templates: &g.templates,
        targets: settings,
        parallel_requests: 32,
        tokens: 4096,
    };
    let edits = apply(&g.decoder, &g.text, &requests, &values, &g.metrics(&layers, lambda, rho), &edit).unwrap();
    assert_eq!(edits.layers.len(), layers.len());
    for e in &edits.layers {
        let layer = e.weight.layer;
        let theirs = change(&file, &format!("b0.layer{layer}"));
        let off = relative(&rows(&e.delta.dense()), &rows(&theirs));
        let tolerance = if layer == 0 { 5e-3 } else { 2e-2 };
        println!("{id} layer {layer}: {off:.1e} of {tolerance:.0e}");
        assert!(off < tolerance, "{id} layer {layer}: {off}");
    }
    let model = with_edits(&g.decoder, edits.layers.iter().map(|e| (e.weight, &e.delta))).unwrap();
    let off = g.nll_off(&model, &g.folder.json(&format!("{id}.eval_after.json")).list()[0]);
    println!("{id}: log-likelihoods after the first batch differ by {off:.1e} at most");
    assert!(off < 2e-2, "{id}: {off}");
}

/// Every batch's changes from recorded keys, targets and current values.
fn solves(id: &str, share: impl Fn(usize, usize) -> f64) -> usize {
    let g = golden();
    let experiment = g.experiment(id);
    let layers = experiment.field("layers").wholes();
    let lambda = experiment.field("hparams").field("mom2_update_weight").number();
    let metrics = g.metrics(&layers, lambda, 0.0);
    let file = g.tensors(id);
    let mut compared = 0;
    for b in 0..experiment.field("batches").list().len() {
        for (i, &layer) in layers.iter().enumerate() {
            let own = format!("b{b}.layer{layer}.zs");
            let matrix = |name: &str| {
                let (shape, values) = file.floats(name);
                from_row_major("golden", &values, shape[0], shape[1]).unwrap().transpose().to_owned()
            };
            let z = matrix(&if file.has(&own) { own } else { format!("b{b}.zs") });
            let k = matrix(&format!("b{b}.layer{layer}.ks"));
            let now = matrix(&format!("b{b}.layer{layer}.cur_zs"));
            let part = share(layers.len(), i);
            let residual = Mat::from_fn(z.nrows(), z.ncols(), |r, c| (z[(r, c)] - now[(r, c)]) * part);
            let mu = vec![1.0; k.ncols()];
            let (keys, residual) = (k.as_ref(), residual.as_ref());
            let problem = Problem { keys, direction: None, residual, mu: &mu, form: Form::Auto };
            let metric = &metrics[&WeightId::down(layer)];
            let ours = palinode_math::Delta::from(solve(metric.as_ref(), &problem).unwrap().update).dense();
            let theirs = change(&file, &format!("b{b}.layer{layer}"));
            let off = relative(&rows(&ours), &rows(&theirs));
            assert!(off < 1e-5, "{id} batch {b} layer {layer}: {off}");
            compared += 1;
        }
    }
    compared
}

#[test]
fn encore() {
    // The history of the first batch is empty.
    first_batch("encore", TargetSite::BlockOutput, StopRule::Argmax(4), Strategy::Memit);
}

#[test]
fn encore_where_targets_stop_early() {
    first_batch("encore_L0", TargetSite::BlockOutput, StopRule::Argmax(4), Strategy::Memit);
}

#[test]
fn pmet() {
    first_batch("pmet", TargetSite::MlpWithAttention, StopRule::Divergence, Strategy::Sqrt);
    assert_eq!(solves("pmet", |m, i| 1.0 / ((m - i) as f64).sqrt()), 12);
}

#[test]
fn pmet_where_targets_stop_early() {
    first_batch("pmet_L0", TargetSite::MlpWithAttention, StopRule::Divergence, Strategy::Sqrt);
}

#[test]
fn blue() {
    first_batch("blue_memit", TargetSite::BlockOutput, StopRule::Loss, Strategy::Boundary);
    assert_eq!(solves("blue_memit", |_, _| 1.0), 8);
}

/// The changes from recorded keys and gradients, statistics included; then keys, gradients and the first batch from the model.
#[test]
fn ultraedit() {
    let g = golden();
    let experiment = g.experiment("ultraedit");
    let layers = experiment.field("layers").wholes();
    let h = experiment.field("hparams");
    let settings = LifelongSettings {
        weights: layers.iter().map(|&layer| WeightId::down(layer)).collect(),
        learning_rate: h.field("lr").number(),
        mini_batch: h.field("sub_batch").whole(),
    };
    let file = g.tensors("ultraedit");
    let matrix = |name: &str| {
        let (shape, values) = file.floats(name);
        from_row_major("golden", &values, shape[0], shape[1]).unwrap().to_owned()
    };
    let mut lifelong = Lifelong::new();
    let mut model = g.decoder.clone();
    let batches = experiment.field("batches").list();
    for (b, batch) in batches.iter().enumerate() {
        let mut from = 0;
        let recorded: Vec<Vec<Taken>> = batch
            .field("rows_per_sub_batch")
            .wholes()
            .into_iter()
            .map(|count| {
                let part = |name: String| {
                    let all = matrix(&name);
                    Mat::from_fn(count, all.ncols(), |i, j| all[(from + i, j)])
                };
                let of = |layer: &usize| Taken {
                    keys: part(format!("b{b}.layer{layer}.keys")),
                    gradients: part(format!("b{b}.layer{layer}.grads")),
                };
                let taken = layers.iter().map(of).collect();
                from += count;
                taken
            })
            .collect();
        let requests = g.batch(&experiment, b);
        let own = take(&model, &g.text, &requests, &settings).unwrap();
        for (ours, theirs) in own.iter().flatten().zip(recorded.iter().flatten()) {
            let off = [
                relative(&rows(&ours.keys), &rows(&theirs.keys)),
                relative(&rows(&ours.gradients), &rows(&theirs.gradients)),
            ];
            println!("ultraedit batch {b}: keys {:.1e}, gradients {:.1e}", off[0], off[1]);
            assert!(off[0] < if b == 0 { 1e-5 } else { 1e-3 } && off[1] < if b == 0 { 1e-3 } else { 5e-2 }, "{off:?}");
        }
        let edits = solve_lifelong(&recorded, &settings, &mut lifelong).unwrap();
        for e in &edits {
            let layer = e.weight.layer;
            let (keys, coef) = (matrix(&format!("b{b}.layer{layer}.keys")), matrix(&format!("b{b}.layer{layer}.coef")));
            let off = relative(&rows(&e.delta.dense()), &rows(&(coef.transpose() * keys)));
            println!("ultraedit batch {b} layer {layer}: {off:.1e}");
            assert!(off < 1e-5, "batch {b} layer {layer}: {off}");
        }
        let seen = lifelong.values().next().unwrap();
        assert!(relative(&seen.mean, &file.values(&format!("b{b}.norm.mean"))) < 1e-5);
        let deviations: Vec<f64> = (0..seen.mean.len()).map(|j| seen.deviation(j)).collect();
        assert!(relative(&deviations, &file.values(&format!("b{b}.norm.std"))) < 1e-5);
        model = with_edits(&model, edits.iter().map(|e| (e.weight, &e.delta))).unwrap();
        let off = g.nll_off(&model, &g.folder.json("ultraedit.eval_after.json").list()[b]);
        println!("ultraedit batch {b}: log-likelihoods differ by {off:.1e}");
        assert!(off < if b == 0 { 2e-2 } else { 0.2 }, "batch {b}: {off}");
    }
}

#[test]
fn constrained_fine_tuning() {
    let g = golden();
    for id in ["ftl", "ftl_eps0.02"] {
        let experiment = g.experiment(id);
        let h = experiment.field("hparams");
        let settings = TuneSettings {
            layer: 0,
            loss: TuneLoss::PromptLast,
            epochs: h.field("num_steps").whole(),
            mini_batch: h.field("batch_size").whole(),
            shuffle: None,
            learning_rate: h.field("lr").number(),
            bound: Some(h.field("norm_constraint").number()),
            stop_loss: 1e-2,
            bias: true,
        };
        let requests = g.batch(&experiment, 0);
        let tuned = tune(&g.decoder, &g.text, &requests, &settings, |_, _| {}).unwrap();
        let printed = experiment.field("batches").list()[0].field("losses_printed").list();
        assert_eq!(tuned.losses.len(), printed.len(), "{id}");
        for (i, (ours, theirs)) in tuned.losses.iter().zip(&printed).enumerate() {
            let off = (ours - theirs.number()).abs();
            assert!(off < 1e-2, "{id} step {i}: {ours} off by {off}");
        }
        let (shape, theirs) = g.tensors(id).floats("b0.layer0.dW");
        let theirs = from_row_major("dW", &theirs, shape[0], shape[1]).unwrap().transpose().to_owned();
        let off = relative(&rows(&tuned.delta.dense()), &rows(&theirs));
        let bias = relative(&tuned.bias.unwrap(), &g.tensors(id).values("b0.layer0.dbias"));
        println!("{id}: dW {off:.1e}, dbias {bias:.1e}");
        assert!(off < 5e-2 && bias < 5e-2, "{id}: {off} {bias}");
    }
}
