//! Changes of weights as named tensors, in artifacts and in exported files.
//!
//! Factors are `{name}.left` [out, r] and `{name}.right` [r, in], as they always were; entries are `{name}.shape` [2], `{name}.at` [n] (places,
//! counted row by row) and `{name}.values` [n]; all of a change is `{name}.dense` [out, in].

use palinode_math::{Delta, LowRank, Mat, Sparse, row_major};
use safetensors::{Dtype, SafeTensors};

use crate::artifacts::tensors::Named;

/// What the tensors of a change are called, behind its name; a change has the first of a form if it has that form.
const LEFT: &str = "left";
const SHAPE: &str = "shape";
const DENSE: &str = "dense";

/// Which floats a file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Floats {
    /// Of 64 bits, as they were computed.
    Double,
    /// Of 32 bits, as exported files have them.
    Single,
}

/// A change's tensors.
pub fn named(name: &str, delta: &Delta, floats: Floats) -> Vec<Named> {
    let matrix = |part: &str, matrix: &Mat<f64>| {
        let shape = vec![matrix.nrows(), matrix.ncols()];
        values(format!("{name}.{part}"), shape, row_major(matrix.as_ref()), floats)
    };
    match delta {
        Delta::LowRank(LowRank { left, right }) => vec![matrix(LEFT, left), matrix("right", right)],
        Delta::Dense(dense) => vec![matrix(DENSE, dense)],
        Delta::Sparse(sparse) => {
            let places = |part: &str, numbers: &[usize]| Named::places(format!("{name}.{part}"), numbers);
            let entries = sparse.values().to_vec();
            vec![
                places(SHAPE, &sparse.shape()),
                places("at", sparse.at()),
                values(format!("{name}.values"), vec![entries.len()], entries, floats),
            ]
        }
    }
}

fn values(name: String, shape: Vec<usize>, values: Vec<f64>, floats: Floats) -> Named {
    match floats {
        Floats::Double => Named::values(name, shape, values.into_iter()),
        Floats::Single => Named::f32(name, shape, values.into_iter().map(|value| value as f32)),
    }
}

/// Whether a file has a change of this name.
pub fn has(file: &SafeTensors<'_>, name: &str) -> bool {
    [LEFT, SHAPE, DENSE].iter().any(|part| file.tensor(&format!("{name}.{part}")).is_ok())
}

/// The change of this name.
///
/// # Errors
/// In words that name the tensor.
pub fn read(file: &SafeTensors<'_>, name: &str, floats: Floats) -> Result<Delta, String> {
    let has = |part: &str| file.tensor(&format!("{name}.{part}")).is_ok();
    let matrix = |part: &str| {
        let (shape, values) = read_floats(file, &format!("{name}.{part}"), floats)?;
        let [rows, columns] = shape[..] else { return Err(format!("{name}.{part} is not a matrix")) };
        Ok(Mat::from_fn(rows, columns, |i, j| values[i * columns + j]))
    };
    if has(DENSE) {
        return Ok(Delta::Dense(matrix(DENSE)?));
    }
    if !has(SHAPE) {
        let (left, right) = (matrix(LEFT)?, matrix("right")?);
        if left.ncols() != right.nrows() {
            return Err(format!(
                "{name}: {} columns on the left and {} rows on the right",
                left.ncols(),
                right.nrows()
            ));
        }
        return Ok(Delta::LowRank(LowRank { left, right }));
    }
    let places = |part: &str| read_places(file, &format!("{name}.{part}"));
    let [rows, columns] = places(SHAPE)?[..] else { return Err(format!("{name}.{SHAPE} is no shape of a matrix")) };
    let (_, entries) = read_floats(file, &format!("{name}.values"), floats)?;
    let sparse = Sparse::new([rows, columns], places("at")?, entries).map_err(|error| format!("{name}: {error}"))?;
    Ok(Delta::Sparse(sparse))
}

fn read_floats(file: &SafeTensors<'_>, name: &str, floats: Floats) -> Result<(Vec<usize>, Vec<f64>), String> {
    let view = file.tensor(name).map_err(|error| error.to_string())?;
    let expected = if floats == Floats::Single { Dtype::F32 } else { Dtype::F64 };
    if view.dtype() != expected {
        return Err(format!("{name} is stored as {:?}, not {expected:?}", view.dtype()));
    }
    let values: Vec<f64> = match floats {
        Floats::Single => {
            view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect()
        }
        Floats::Double => view
            .data()
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
            .collect(),
    };
    if !values.iter().all(|value| value.is_finite()) {
        return Err(format!("{name} holds values that are not numbers"));
    }
    Ok((view.shape().to_vec(), values))
}

fn read_places(file: &SafeTensors<'_>, name: &str) -> Result<Vec<usize>, String> {
    let view = file.tensor(name).map_err(|error| error.to_string())?;
    if view.dtype() != Dtype::I64 {
        return Err(format!("{name} is stored as {:?}, not I64", view.dtype()));
    }
    let numbers =
        view.data().chunks_exact(8).map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
    numbers.map(|number| usize::try_from(number).map_err(|_| format!("{name} holds the place {number}"))).collect()
}
