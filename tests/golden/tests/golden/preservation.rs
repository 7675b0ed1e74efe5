//! Methods that came after MEMIT, against numbers of their authors' code: the formulas applied to recorded keys, targets and C.

use std::sync::Arc;

use palinode_golden::{Folder, Json, Tensors};
use palinode_math::{
    Delta, Factor, Form, History, LowRank, Mat, Objective, Preservation, PreservationWeights, Problem, Projector,
    PruneForm, SecondMoment, Sides, Spectrum, Threshold, from_row_major, prune, solve, sphere,
};
use palinode_model::WeightId;

use crate::care::{decoder, weight};

fn folder() -> Folder {
    Folder::given().folder("followups").folder("gpt2")
}

fn experiment(id: &str) -> Json {
    let all = folder().json("experiments.json").list();
    all.into_iter().find(|it| it.field("id").text() == id).unwrap_or_else(|| panic!("the experiment `{id}`"))
}

fn matrix(file: &Tensors, name: &str) -> Mat<f64> {
    let (shape, values) = file.floats(name);
    from_row_major("golden", &values, shape[0], shape[1]).unwrap()
}

/// C of a layer, of which the file has the upper triangle row by row.
fn moment(layer: usize) -> SecondMoment {
    let values = folder().tensors("mom2.safetensors").values(&format!("layer{layer}.mom2_upper"));
    let f = (2 * values.len()).isqrt();
    let at = |i: usize, j: usize| values[i * f - (i * i + i) / 2 + j];
    let whole: Vec<f64> = (0..f * f).map(|n| (n / f, n % f)).map(|(i, j)| at(i.min(j), i.max(j))).collect();
    SecondMoment::from_sum(&whole, f, 1).unwrap()
}

fn product(file: &Tensors, at: &str) -> Mat<f64> {
    matrix(file, &format!("{at}.resid")) * matrix(file, &format!("{at}.adj_k")).transpose()
}

fn distance(ours: &Mat<f64>, theirs: &Mat<f64>) -> f64 {
    (ours - theirs).norm_l2() / theirs.norm_l2()
}

/// Every batch of an experiment solved with a metric that remembers the batches before, if it is told to. Gives the number of changes.
fn solves(
    id: &str,
    objective: Objective,
    remembers: bool,
    tolerance: f64,
    base: impl Fn(usize) -> Arc<dyn Preservation>,
) -> usize {
    let (experiment, file) = (experiment(id), folder().tensors(&format!("{id}.safetensors")));
    let layers = experiment.field("layers").wholes();
    let batches = experiment.field("batches").list().len();
    let mut compared = 0;
    for &layer in &layers {
        let base = base(layer);
        let mut history = History::new(Arc::clone(&base), 1.0).unwrap();
        for b in 0..batches {
            let at = format!("b{b}.layer{layer}");
            let keys = matrix(&file, &format!("{at}.ks")).transpose().to_owned();
            let residual = matrix(&file, &format!("{at}.resid"));
            let mu = objective.mu(&vec![None; keys.ncols()]).unwrap();
            let problem = Problem {
                keys: keys.as_ref(),
                direction: None,
                residual: residual.as_ref(),
                mu: &mu,
                form: Form::Auto,
            };
            let metric: &dyn Preservation = if remembers { &history } else { base.as_ref() };
            let ours = solve(metric, &problem).unwrap().update.dense();
            let off = distance(&ours, &product(&file, &at));
            println!("{id}, batch {b}, layer {layer}: {off:.1e}");
            assert!(off < tolerance, "{id}, batch {b}, layer {layer}: {off:e}");
            history.remember(keys.as_ref()).unwrap();
            compared += 1;
        }
    }
    compared
}

fn factor(lambda: f64, rho: f64) -> impl Fn(usize) -> Arc<dyn Preservation> {
    move |layer| Arc::new(Factor::new(&moment(layer), PreservationWeights { lambda, rho }).unwrap())
}

#[test]
fn memit_with_a_history() {
    // Theirs keeps the history in f32.
    assert_eq!(solves("memit_seq", Objective::Memit, true, 2e-3, factor(100.0, 0.0)), 12);
}

#[test]
fn encore() {
    assert_eq!(solves("encore", Objective::Memit, true, 1e-5, factor(100.0, 10.0)), 12);
    assert_eq!(solves("encore_L0", Objective::Memit, true, 1e-5, factor(100.0, 10.0)), 2);
}

#[test]
fn emmet_and_memit_in_rounds() {
    assert_eq!(solves("emmet", Objective::Emmet { epsilon: 0.1 }, false, 1e-5, factor(100.0, 0.0)), 12);
    assert_eq!(solves("rect", Objective::Memit, false, 1e-5, factor(100.0, 0.0)), 12);
    assert_eq!(solves("memit_then_prune", Objective::Memit, false, 1e-5, factor(100.0, 0.0)), 12);
}

/// The projector that the code used, as a basis: stored itself, or by what it leaves out.
pub fn recorded(id: &str, layer: usize, rho: f64) -> Arc<dyn Preservation> {
    let file = folder().tensors(&format!("{id}.projection.safetensors"));
    let (name, stored) = (format!("layer{layer}.U"), format!("layer{layer}.V"));
    let basis = if file.has(&name) {
        matrix(&file, &name)
    } else {
        let out = matrix(&file, &stored);
        let f = out.nrows();
        let p = Mat::from_fn(f, f, |i, j| f64::from(u8::from(i == j))) - &out * out.transpose();
        // The directions of P are its eigenvectors of eigenvalue 1.
        let flat: Vec<f64> = (0..f * f).map(|n| p[(n / f, n % f)]).collect();
        let spectrum = Spectrum::of(&SecondMoment::from_sum(&flat, f, 1).unwrap()).unwrap();
        spectrum.vectors().subcols(out.ncols(), f - out.ncols()).to_owned()
    };
    let values = vec![0.0; basis.ncols()];
    Arc::new(Projector::from_basis(basis, values, PreservationWeights { lambda: 0.0, rho }).unwrap())
}

#[test]
fn alphaedit_with_the_recorded_projector() {
    let blue = "blue_alphaedit";
    assert_eq!(solves(blue, Objective::Memit, true, 5e-5, |l| recorded(blue, l, 10.0)), 8);
    assert_eq!(solves("alphaedit", Objective::Memit, true, 5e-5, |l| recorded("alphaedit", l, 10.0)), 12);
    let other = "alphaedit_th0.002_l2-1";
    assert_eq!(solves(other, Objective::Memit, true, 5e-5, |l| recorded(other, l, 1.0)), 6);
}

#[test]
fn alphaedit_with_its_own_projector() {
    let weights = PreservationWeights { lambda: 0.0, rho: 10.0 };
    let said = experiment("alphaedit").field("projection");
    let own = |layer: usize| -> Arc<dyn Preservation> {
        let spectrum = Spectrum::of(&moment(layer)).unwrap();
        let projector = Projector::new(&spectrum, Threshold::Below(0.02), weights).unwrap();
        assert_eq!(projector.rank(), said.field(&layer.to_string()).field("rank").whole());
        Arc::new(projector)
    };
    assert_eq!(solves("alphaedit", Objective::Memit, true, 5e-3, own), 12);
}

#[test]
fn prune_as_in_the_paper_and_as_published() {
    let file = folder().tensors("memit_then_prune.safetensors");
    let unedited = decoder();
    for layer in [0, 1, 2] {
        let part = |name: &str| matrix(&file, &format!("prune.layer{layer}.{name}"));
        let whole = LowRank { left: part("D_left"), right: part("D_right") };
        let damped = part("A_left") * part("A_right");
        let sum = whole.dense() + &damped;
        let (delta, weight) = (Delta::from(whole), weight(&unedited, WeightId::down(layer)));
        for (form, theirs) in [(PruneForm::Paper, &damped), (PruneForm::Published, &sum)] {
            let ours = prune(&delta, weight.as_ref(), form).unwrap();
            let off = distance(&ours.dense(), theirs);
            println!("layer {layer}, {form:?}: {off:.1e}");
            assert!(off < 1e-5, "layer {layer}, {form:?}: {off:e}");
        }
    }
}

#[test]
fn sphere_on_a_batch() {
    let (theirs, changes) =
        (folder().tensors("sphere_on_alphaedit_b0.safetensors"), folder().tensors("alphaedit.safetensors"));
    let unedited = decoder();
    let mut compared = 0;
    for entry in folder().json("sphere_on_alphaedit_b0.json").field("entries").list() {
        let layer = entry.field("layer").whole();
        let at = format!("b0.layer{layer}");
        let delta = LowRank {
            left: matrix(&changes, &format!("{at}.resid")),
            right: matrix(&changes, &format!("{at}.adj_k")).transpose().to_owned(),
        };
        let (eta, alpha) = (entry.field("eta").number(), entry.field("alpha").number());
        let weight = weight(&unedited, WeightId::down(layer));
        let ours = sphere(&delta.into(), weight.as_ref(), Sides::Output, eta, alpha).unwrap();
        let norm = entry.field("norm_after").number();
        assert!((ours.frobenius() / norm - 1.0).abs() < 1e-5, "layer {layer}, {eta}: {} {norm}", ours.frobenius());
        if eta == 0.5 {
            let part = |name: &str| matrix(&theirs, &format!("layer{layer}.{name}"));
            let recorded = (part("left") * part("right")).transpose().to_owned();
            let off = distance(&ours.dense(), &recorded);
            println!("layer {layer}: {off:.1e}");
            assert!(off < 1e-5, "layer {layer}: {off:e}");
        }
        compared += 1;
    }
    assert_eq!(compared, 6);
}
