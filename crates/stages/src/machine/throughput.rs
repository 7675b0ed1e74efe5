//! The throughput of this machine: no stage can be faster than the products and factors that it is made of.

use std::time::{Duration, Instant};

use palinode_engine::Error;
use palinode_math::{Factor, MathError, PreservationWeights, SecondMoment};
use palinode_model::{Compute, Precision, is_cpu, kernel_throughput, matmul_throughput, select_device};

use crate::errors::StageFailure;

/// Sizes of the matrix that is factored. The first that takes [`SLOW`], or the last, is reported.
const SIZES: [usize; 4] = [512, 1024, 2048, 4096];
/// What takes so long can be timed.
const SLOW: Duration = Duration::from_millis(400);

/// Measures, in floating-point operations a second and wall time: matrix products on the device of that name, in every type that
/// weights can be held in, on a CPU those with factors that are rounded to bf16, and the Cholesky factor in f64, `f³/3`, which is computed on the host whatever the device.
///
/// # Errors
/// Of the command line, when the device is not there; what the device gives when it fails.
pub fn throughput(device: &str) -> Result<Vec<(String, f64)>, Error> {
    let device = select_device(device).map_err(StageFailure::stage)?;
    let mut measured = Vec::new();
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let rate = matmul_throughput(&device, precision).map_err(StageFailure::stage)?;
        measured.push((format!("products, {}", precision.name()), rate));
    }
    if is_cpu(&device) {
        let compute = Compute::Bf16;
        let rate = kernel_throughput(compute).map_err(StageFailure::stage)?;
        measured.push((format!("products, compute: {}", compute.name()), rate));
    }
    measured.push(("factor, f64".to_owned(), factor_throughput().map_err(StageFailure::stage)?));
    Ok(measured)
}

fn factor_throughput() -> Result<f64, MathError> {
    let mut rate = 0.0;
    for f in SIZES {
        // exp(−|i − j|/20) is positive definite at any size.
        let sum: Vec<f64> = (0..f * f).map(|at| (-((at / f).abs_diff(at % f) as f64) / 20.0).exp()).collect();
        let moment = SecondMoment::from_sum(&sum, f, 1)?;
        let start = Instant::now();
        Factor::new(&moment, PreservationWeights { lambda: 1.0, rho: 0.0 })?;
        let took = start.elapsed();
        rate = (f as f64).powi(3) / 3.0 / took.as_secs_f64();
        if took >= SLOW {
            break;
        }
    }
    Ok(rate)
}
