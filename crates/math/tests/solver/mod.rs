//! The solver alone against the authors' code: their second moment, keys, targets and current values go in, their update must
//! come out. `authors.rs` gives it the small models' numbers, the comparison with golden numbers the trained model's.

use palinode_golden::{Folder, Tensors, relative};
use palinode_math::{Factor, Form, Mat, Objective, PreservationWeights, Problem, SecondMoment, from_row_major, solve};

/// A stored tensor as a matrix; vectors become columns.
fn matrix(file: &Tensors, name: &str) -> Mat<f64> {
    let (shape, values) = file.floats(name);
    match shape.as_slice() {
        [n] => from_row_major("vector", &values, *n, 1).unwrap(),
        [r, c] => from_row_major("matrix", &values, *r, *c).unwrap(),
        other => panic!("{name}: {other:?}"),
    }
}

fn rows(matrix: &Mat<f64>) -> Vec<f64> {
    (0..matrix.nrows()).flat_map(|i| (0..matrix.ncols()).map(move |j| matrix[(i, j)])).collect()
}

/// The layer whose second moment is stored whole, with the moment.
fn moment(folder: &Folder) -> (usize, SecondMoment) {
    let file = folder.tensors("mom2.safetensors");
    let name = file.names().into_iter().find(|name| name.ends_with(".mom2")).expect("a whole second moment");
    let layer: usize = name.trim_start_matches("layer").split('.').next().unwrap().parse().unwrap();
    let mean = matrix(&file, &name);
    let count = folder.json("mom2.json").field("layers").field(&layer.to_string()).field("count").whole() as u64;
    let sum: Vec<f64> = rows(&mean).iter().map(|mean| mean * count as f64).collect();
    (layer, SecondMoment::from_sum(&sum, mean.nrows(), count).unwrap())
}

/// Every update of MEMIT and EMMET that changes the layer whose second moment is stored; returns how many there are.
pub fn updates(folder: &Folder) -> usize {
    let (layer, moment) = moment(folder);
    let mut compared = 0;
    for experiment in folder.json("experiments.json").list() {
        let layers = experiment.field("layers").wholes();
        let Some(position) = layers.iter().position(|l| *l == layer) else { continue };
        let id = experiment.field("id");
        let h = experiment.field("hparams");
        let file = folder.tensors(&format!("{}.safetensors", id.text()));
        let tensor = |name: &str| matrix(&file, &format!("layer{layer}.{name}"));
        let residual = (matrix(&file, "zs") - tensor("cur_zs")).transpose().to_owned()
            * faer::Scale(1.0 / (layers.len() - position) as f64);
        let keys = tensor("ks").transpose().to_owned();
        let objective = match experiment.field("alg").text() {
            "memit" => Objective::Memit,
            "emmet" => Objective::Emmet { epsilon: h.field("emmet_lambda").number() },
            other => panic!("unknown algorithm {other}"),
        };
        let preservation = PreservationWeights {
            lambda: h.field("mom2_update_weight").number(),
            rho: h.field("update_norm_lambda").number(),
        };
        let factor = Factor::new(&moment, preservation).unwrap();
        let mu = objective.mu(&vec![None; keys.ncols()]).unwrap();
        let solution = solve(
            &factor,
            &Problem { keys: keys.as_ref(), direction: None, residual: residual.as_ref(), mu: &mu, form: Form::Auto },
        )
        .unwrap();
        let theirs = tensor("resid") * tensor("adj_k").transpose();
        let difference = relative(&rows(&solution.update.dense()), &rows(&theirs));
        println!("{} {}: {difference:.1e}", folder.path().display(), id.text());
        // Factors are stored in f32; where C is badly scaled against K Kᵀ the reference's own solve loses digits too.
        assert!(difference < 1e-5, "{} {}: {difference}", folder.path().display(), id.text());
        compared += 1;
    }
    compared
}

/// Every edit of ROME at the layer whose second moment is stored; returns how many there are.
pub fn rome(folder: &Folder) -> usize {
    let (layer, moment) = moment(folder);
    let factor = Factor::new(&moment, PreservationWeights { lambda: 1.0, rho: 0.0 }).unwrap();
    let file = folder.tensors("rome.safetensors");
    let ending = ".edit0.left_vector_f64run";
    let names = file.names();
    let stems = names.iter().filter_map(|name| name.strip_suffix(ending)).filter(|s| s.contains(&format!("_L{layer}")));
    let mut compared = 0;
    for stem in stems {
        let get = |name: &str| matrix(&file, &format!("{stem}.edit0.{name}"));
        let left = get("left_vector_f64run");
        // The direction key is not stored; C u has the same direction as k = C u |C⁻¹k|.
        let direction = moment.mean() * &left;
        let keys = get("cur_input");
        let residual = get("target_init") + get("delta") - get("cur_output");
        let solution = solve(
            &factor,
            &Problem {
                keys: keys.as_ref(),
                direction: Some(direction.as_ref()),
                residual: residual.as_ref(),
                mu: &[0.0],
                form: Form::Auto,
            },
        )
        .unwrap();
        let theirs = get("right_vector_f64run") * left.transpose();
        let difference = relative(&rows(&solution.update.dense()), &rows(&theirs));
        println!("{} {stem}: {difference:.1e}", folder.path().display());
        assert!(difference < 1e-4, "{} {stem}: {difference}", folder.path().display());
        compared += 1;
    }
    compared
}
