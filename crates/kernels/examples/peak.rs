use palinode_kernels::*;
use std::time::Instant;
fn best(mut f: impl FnMut()) -> f64 {
    let mut b = f64::MAX;
    for _ in 0..15 {
        let t = Instant::now();
        f();
        b = b.min(t.elapsed().as_secs_f64());
    }
    b
}
fn direct(x: &[f32], w: &[f32], i: usize, o: usize, turned: bool, out: &mut [f32]) {
    let rows = x.len() / i;
    let (ro, ri) = if turned { (i as isize, 1) } else { (1, o as isize) };
    unsafe {
        gemm::gemm(
            rows,
            o,
            i,
            out.as_mut_ptr(),
            1,
            o as isize,
            false,
            x.as_ptr(),
            1,
            i as isize,
            w.as_ptr(),
            ro,
            ri,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        )
    }
}
fn main() {
    // peak: 12 independent chains of 8 lanes
    let mut acc = [[0.5f32; 8]; 12];
    let n = 20_000_000usize;
    let t = best(|| {
        pulp::Arch::new().dispatch(|| {
            let (a, b) = (std::hint::black_box([0.999f32; 8]), std::hint::black_box([0.001f32; 8]));
            for _ in 0..n / 20 {
                for c in &mut acc {
                    for j in 0..8 {
                        c[j] = c[j].mul_add(a[j], b[j]);
                    }
                }
            }
        })
    });
    std::hint::black_box(&acc);
    println!("peak {:.1} GF/s", 2e-9 * (n / 20 * 96) as f64 / t);
    for (i, o, turned) in [(768, 3072, false), (3072, 768, false), (512, 2048, false), (576, 49152, false)] {
        let w = vec![0.01f32; i * o];
        for rows in [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 192] {
            let x = vec![0.5f32; rows * i];
            let mut out = vec![0.0; rows * o];
            let n = (1_000_000_000 / (rows * i * o)).clamp(1, 30);
            let m = if turned { Matrix::new(&w, o, i).turned() } else { Matrix::new(&w, i, o) };
            let (mut a, mut b) = (f64::MAX, f64::MAX);
            for _ in 0..8 {
                a = a.min(
                    best1(|| {
                        for _ in 0..n {
                            std::hint::black_box(product(&x, m, None, Threads::One));
                        }
                    }) / n as f64,
                );
                b = b.min(
                    best1(|| {
                        for _ in 0..n {
                            direct(&x, &w, i, o, turned, &mut out);
                        }
                    }) / n as f64,
                );
            }
            println!(
                "{i}x{o} {turned} rows {rows}: sliced {:.1} GF/s, direct {:.1}",
                2e-9 * (rows * i * o) as f64 / a,
                2e-9 * (rows * i * o) as f64 / b
            );
        }
    }
}
fn best1(mut f: impl FnMut()) -> f64 {
    let t = Instant::now();
    f();
    t.elapsed().as_secs_f64()
}
