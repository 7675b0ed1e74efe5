//! The solver alone against the authors' code: their second moment, keys, targets and current values go in, their update
//! must come out. The tiny models' numbers are fixtures; the trained GPT-2's are used where the golden folder lies beside
//! the repository.

use std::path::{Path, PathBuf};

use palinode_math::{Factor, Form, Mat, Objective, Preservation, Problem, SecondMoment, from_row_major, solve};
use safetensors::SafeTensors;
use serde_json::Value;

fn folders() -> Vec<(String, PathBuf)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all: Vec<_> = ["gptj-tiny", "llama-tiny"]
        .iter()
        .map(|name| ((*name).to_string(), here.join("tests/fixtures").join(name)))
        .collect();
    let trained = here.join("../../../shared/golden/gpt2");
    if trained.is_dir() {
        all.push(("gpt2".into(), trained));
    } else {
        println!("skipped: no golden folder gpt2");
    }
    all
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A stored tensor as a matrix; vectors become columns.
fn matrix(file: &SafeTensors, name: &str) -> Mat<f64> {
    let view = file.tensor(name).unwrap_or_else(|_| panic!("no tensor {name}"));
    let values: Vec<f64> = match view.dtype() {
        safetensors::Dtype::F64 => {
            view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
        }
        _ => view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
    };
    match view.shape() {
        [n] => from_row_major("vector", &values, *n, 1).unwrap(),
        [r, c] => from_row_major("matrix", &values, *r, *c).unwrap(),
        other => panic!("{name}: {other:?}"),
    }
}

/// The layer whose second moment is stored whole, with the moment.
fn moment(folder: &Path) -> (usize, SecondMoment) {
    let bytes = std::fs::read(folder.join("mom2.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let name = file.names().into_iter().find(|n| n.ends_with(".mom2")).unwrap().to_string();
    let layer: usize = name.trim_start_matches("layer").split('.').next().unwrap().parse().unwrap();
    let mean = matrix(&file, &name);
    let count = json(&folder.join("mom2.json"))["layers"][layer.to_string()]["count"].as_u64().unwrap();
    let sum: Vec<f64> = (0..mean.nrows())
        .flat_map(|i| (0..mean.ncols()).map(move |j| (i, j)))
        .map(|ij| mean[ij] * count as f64)
        .collect();
    (layer, SecondMoment::from_sum(&sum, mean.nrows(), count).unwrap())
}

fn relative(ours: &Mat<f64>, theirs: &Mat<f64>) -> f64 {
    (ours - theirs).norm_l2() / theirs.norm_l2()
}

#[test]
fn updates_from_given_inputs() {
    let mut compared = 0;
    for (model, folder) in folders() {
        let (layer, moment) = moment(&folder);
        for experiment in json(&folder.join("experiments.json")).as_array().unwrap() {
            let layers: Vec<usize> =
                experiment["layers"].as_array().unwrap().iter().map(|l| l.as_u64().unwrap() as usize).collect();
            let Some(position) = layers.iter().position(|l| *l == layer) else { continue };
            let id = experiment["id"].as_str().unwrap();
            let h = &experiment["hparams"];
            let number = |name: &str| h[name].as_f64().unwrap_or(0.0);
            let bytes = std::fs::read(folder.join(format!("{id}.safetensors"))).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            let tensor = |name: &str| matrix(&file, &format!("layer{layer}.{name}"));
            let residual = (matrix(&file, "zs") - tensor("cur_zs")).transpose().to_owned()
                * faer::Scale(1.0 / (layers.len() - position) as f64);
            let keys = tensor("ks").transpose().to_owned();
            let objective = match experiment["alg"].as_str().unwrap() {
                "memit" => Objective::Memit,
                "emmet" => Objective::Emmet { epsilon: number("emmet_lambda") },
                other => panic!("unknown algorithm {other}"),
            };
            let preservation = Preservation { lambda: number("mom2_update_weight"), rho: number("update_norm_lambda") };
            let factor = Factor::new(&moment, preservation).unwrap();
            let mu = objective.mu(&vec![None; keys.ncols()]).unwrap();
            let solution = solve(
                &factor,
                &Problem {
                    keys: keys.as_ref(),
                    direction: None,
                    residual: residual.as_ref(),
                    mu: &mu,
                    form: Form::Auto,
                },
            )
            .unwrap();
            let theirs = tensor("resid") * tensor("adj_k").transpose();
            let difference = relative(&solution.update.dense(), &theirs);
            println!("{model} {id}: {difference:.1e}");
            // Factors are stored in f32; where C is badly scaled against K Kᵀ the reference's own solve loses digits too.
            assert!(difference < 1e-5, "{model} {id}: {difference}");
            compared += 1;
        }
    }
    assert!(compared >= 8, "only {compared} experiments were compared");
}

#[test]
fn rome_from_its_left_vector() {
    let mut compared = 0;
    for (model, folder) in folders() {
        let (layer, moment) = moment(&folder);
        let factor = Factor::new(&moment, Preservation { lambda: 1.0, rho: 0.0 }).unwrap();
        let bytes = std::fs::read(folder.join("rome.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let stems: Vec<String> = file
            .names()
            .into_iter()
            .filter(|n| n.contains(&format!("_L{layer}")) && n.ends_with(".edit0.left_vector_f64run"))
            .map(|n| n.trim_end_matches(".left_vector_f64run").to_string())
            .collect();
        for stem in stems {
            let get = |name: &str| matrix(&file, &format!("{stem}.{name}"));
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
            let difference = relative(&solution.update.dense(), &theirs);
            println!("{model} {stem}: {difference:.1e}");
            assert!(difference < 1e-4, "{model} {stem}: {difference}");
            compared += 1;
        }
    }
    assert!(compared >= 2, "only {compared} edits were compared");
}
