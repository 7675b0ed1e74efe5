//! How fast a device multiplies matrices.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};

use crate::decoder::host::kernel_product;
use crate::device::readback::failure;
use crate::{Compute, ModelError, Precision};

/// Sizes that are tried, in turn: the first whose product takes [`SLOW`], or the last, is measured.
const SIZES: [usize; 6] = [256, 512, 1024, 2048, 4096, 8192];
/// A product that takes so long says something of the arithmetic, and little of how it was started.
const SLOW: Duration = Duration::from_millis(5);
/// How long products are repeated.
const LONG: Duration = Duration::from_millis(500);

/// Floating-point operations a second in products of square matrices, `2n³` each, of numbers in `precision`: the roof under which
/// everything that is computed there stands. Takes about a second once kernels are compiled.
///
/// # Errors
/// [`ModelError::OutOfMemory`]; [`ModelError::Readback`], where the device fails.
pub fn matmul_throughput(device: &Device, precision: Precision) -> Result<f64, ModelError> {
    let mut last = None;
    for n in SIZES {
        // Products of these keep the size of what they multiply, however many there are.
        let spread = Distribution::Normal(0.0, (n as f64).sqrt().recip());
        let [a, b] = [spread, spread].map(|spread| Tensor::<2>::random([n, n], spread, device).cast(precision.dtype()));
        // Compiles, and looks for the fastest way.
        let a = timed(device, a, &b, 2)?.0;
        let (a, one) = timed(device, a, &b, 1)?;
        let enough = one >= SLOW;
        last = Some((n, a, b, one));
        if enough {
            break;
        }
    }
    let Some((n, a, b, one)) = last else { return Ok(0.0) };
    let times = (LONG.as_secs_f64() / one.as_secs_f64().max(1e-6)).ceil().clamp(1.0, 1e4) as u32;
    let (_, took) = timed(device, a, &b, times)?;
    Ok(2.0 * (n as f64).powi(3) * f64::from(times) / took.as_secs_f64())
}

/// As [`matmul_throughput`], of products as blocks on a CPU compute them: `[n, n]` by a weight of that shape, of one size.
///
/// # Errors
/// [`ModelError::Readback`].
pub fn kernel_throughput(compute: Compute) -> Result<f64, ModelError> {
    const N: usize = 1024;
    let device = Device::flex();
    let spread = Distribution::Normal(0.0, (N as f64).sqrt().recip());
    let [a, b] = [spread; 2].map(|spread| Tensor::<2>::random([N, N], spread, &device));
    let lost = || ModelError::Readback("numbers that are not in this machine's memory".into());
    let (mut product, mut times, start) = (a, 0, Instant::now());
    while times == 0 || start.elapsed() < LONG {
        product = kernel_product(product, b.clone(), compute).ok_or_else(lost)?;
        times += 1;
    }
    Ok(2.0 * (N as f64).powi(3) * f64::from(times) / start.elapsed().as_secs_f64())
}

/// `a · bᵏ`, and how long it took until the last product was there.
fn timed(device: &Device, a: Tensor<2>, b: &Tensor<2>, k: u32) -> Result<(Tensor<2>, Duration), ModelError> {
    let sync = || device.sync().map_err(|error| failure(error.to_string()));
    sync()?;
    let start = Instant::now();
    let a = (0..k).fold(a, |a, _| a.matmul(b.clone()));
    sync()?;
    Ok((a, start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_has_a_rate() {
        for precision in [Precision::F32, Precision::Bf16] {
            let rate = matmul_throughput(&Device::flex(), precision).unwrap();
            assert!(rate.is_finite() && rate > 1e6, "{rate}");
        }
        for compute in [Compute::F32, Compute::Bf16] {
            let rate = kernel_throughput(compute).unwrap();
            assert!(rate.is_finite() && rate > 1e6, "{rate}");
        }
    }
}
