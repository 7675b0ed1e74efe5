//! Models whose products round their factors, as a stage's `compute` says.

use std::sync::Arc;

use palinode_engine::{Error, ErrorKind, FieldError, StageContext};
use palinode_model::{Compute, Precision, is_cpu};

use crate::artifacts::model::{Facts, Loaded};

/// What is wrong with `compute` for a model: one whose weights are held in fewer bits has products in those bits already, by other rules.
pub fn check(compute: Compute, model: Option<&Facts>) -> Option<FieldError> {
    let held = model?.dtype;
    if compute.is_usual() || held == Precision::F32 {
        return None;
    }
    let (compute, held) = (compute.name(), held.name());
    let message =
        format!("`compute: {compute}` rounds weights that are held in f32, and this model's are held in {held}");
    let error = FieldError::new("compute", message).expected("`dtype: f32` under load_model, or no `compute`");
    Some(error.hint(format!("with `dtype: {held}` products are taken in {held} anyway, on every device")))
}

/// The model, with products as `compute` says, and a word on what that means here.
///
/// # Errors
/// On a GPU, where nothing rounds weights that are held in f32.
pub fn computed_in(cx: &StageContext, model: Arc<Loaded>, compute: Compute) -> Result<Arc<Loaded>, Error> {
    check_here(cx, &model, compute)?;
    if compute.is_usual() {
        return Ok(model);
    }
    Ok(Arc::new(Loaded { decoder: model.decoder.clone().with_compute(compute), text: model.text.clone() }))
}

/// Whether products can be taken as `compute` says where the model is, with a word on what that means here.
///
/// # Errors
/// As [`computed_in`].
pub fn check_here(cx: &StageContext, model: &Loaded, compute: Compute) -> Result<(), Error> {
    if compute.is_usual() {
        return Ok(());
    }
    if !is_cpu(&model.decoder.device()) {
        let compute = compute.name();
        let message = format!("`compute: {compute}` is for CPUs, and this runs on {}", cx.device());
        return Err(Error::new(ErrorKind::Usage, message).hint(format!(
            "with `dtype: {compute}` under load_model a GPU takes products in {compute}; or leave `compute` out, or run on the CPU"
        )));
    }
    if let Some(told) = told(compute, compute.is_native()) {
        cx.warn(told);
    }
    Ok(())
}

/// What is said where a CPU has no instructions for it.
fn told(compute: Compute, native: bool) -> Option<String> {
    (!native).then(|| {
        let compute = compute.name();
        format!(
            "this CPU has no products in {compute} (AVX-512 BF16): `compute: {compute}` rounds in the same way here and multiplies in f32, which is no faster than f32"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever this machine's CPU has.
    #[test]
    fn a_cpu_without_products_in_bf16_is_told() {
        assert_eq!(told(Compute::F32, Compute::F32.is_native()), None);
        assert_eq!(told(Compute::Bf16, true), None);
        let words = told(Compute::Bf16, false).unwrap();
        assert!(words.contains("no products in bf16") && words.contains("no faster"), "{words}");
    }
}
