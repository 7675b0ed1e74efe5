use palinode_kernels::*;
use std::time::Instant;
fn best(mut f: impl FnMut()) -> f64 {
    let mut b = f64::MAX;
    for _ in 0..7 {
        let t = Instant::now();
        f();
        b = b.min(t.elapsed().as_secs_f64());
    }
    b
}
fn main() {
    let what = std::env::args().nth(1).unwrap_or_default();
    if what == "" || what == "product" {
        for (i, o) in [(768, 3072), (3072, 768), (576, 1536), (768, 2304), (576, 49152)] {
            let w = vec![0.01f32; i * o];
            for rows in [1, 2, 3, 4, 8, 16, 32, 64, 256, 1024] {
                if o > 10000 && rows > 256 {
                    continue;
                }
                let x = vec![0.5f32; rows * i];
                let n = (2_000_000_000 / (rows * i * o)).clamp(1, 30);
                let t = best(|| {
                    for _ in 0..n {
                        std::hint::black_box(product(&x, Matrix::new(&w, i, o), None, Threads::One));
                    }
                }) / n as f64;
                let y = vec![0.5f32; rows * o];
                let b = best(|| {
                    for _ in 0..n {
                        std::hint::black_box(product(&y, Matrix::new(&w, i, o).turned(), None, Threads::One));
                    }
                }) / n as f64;
                println!(
                    "{i}x{o} rows {rows}: {:.1} GF/s, back {:.1}",
                    2e-9 * (rows * i * o) as f64 / t,
                    2e-9 * (rows * i * o) as f64 / b
                );
            }
        }
    }
    if what == "" || what == "act" {
        let n = 3072 * 256;
        for a in [Activation::GeluNew, Activation::Gelu, Activation::Relu, Activation::Silu] {
            let mut x: Vec<f32> = (0..n).map(|i| (i % 1000) as f32 / 200.0 - 2.5).collect();
            let z = x.clone();
            let t = best(|| {
                x.copy_from_slice(&z);
                activate(a, &mut x, None)
            });
            let mut s = vec![1.0; n];
            let b = best(|| activate_back(a, &mut s, &z, None));
            println!("{a:?} {:.2} ns per number, back {:.2}", t * 1e9 / n as f64, b * 1e9 / n as f64);
        }
        let w = vec![1.0; 768];
        for kind in [NormKind::Layer, NormKind::Rms] {
            let norm = Norm { kind, weight: &w, bias: None, epsilon: 1e-5 };
            let x: Vec<f32> = (0..768 * 1024).map(|i| (i % 1000) as f32 / 200.0 - 2.5).collect();
            let t = best(|| {
                std::hint::black_box(norm.forward(&x));
            });
            let mut into = vec![0.0; x.len()];
            let b = best(|| norm.back(&x, &x, &mut into));
            println!("{kind:?} {:.2} ns per number, back {:.2}", t * 1e9 / x.len() as f64, b * 1e9 / x.len() as f64);
        }
        let mut l: Vec<f32> = (0..50257 * 32).map(|i| (i % 1000) as f32 / 200.0 - 2.5).collect();
        let t = best(|| {
            for row in l.chunks_exact(50257) {
                std::hint::black_box(probabilities(row));
            }
        });
        println!("probabilities {:.2} ns per number", t * 1e9 / l.len() as f64);
        let t = best(|| {
            for row in l.chunks_exact_mut(50257) {
                std::hint::black_box(log_softmax(row));
            }
        });
        println!("log_softmax {:.2} ns per number", t * 1e9 / l.len() as f64);
    }
    if what == "" || what == "attention" {
        for (heads, len, count) in [
            (Heads { heads: 12, kv_heads: 12, dim: 64, window: None }, 12, 64),
            (Heads { heads: 12, kv_heads: 12, dim: 64, window: None }, 128, 8),
            (Heads { heads: 12, kv_heads: 12, dim: 64, window: None }, 1024, 1),
            (Heads { heads: 9, kv_heads: 3, dim: 64, window: None }, 12, 64),
            (Heads { heads: 9, kv_heads: 3, dim: 64, window: None }, 1024, 1),
        ] {
            let tokens = len * count;
            let qkv: Vec<f32> = (0..tokens * heads.width()).map(|i| (i % 1013) as f32 / 500.0 - 1.0).collect();
            let rows: Vec<Row> = (0..count).map(|r| Row::of(r * len..(r + 1) * len)).collect();
            let t = best(|| {
                std::hint::black_box(attend(&heads, &rows, &qkv, Threads::One));
            });
            let a = attend(&heads, &rows, &qkv, Threads::One);
            let slope = a.out.clone();
            let b = best(|| {
                std::hint::black_box(attend_back(&heads, &rows, &qkv, &a, &slope, Threads::One));
            });
            let flop = 4.0 * (heads.heads * heads.dim * count) as f64 * (len * (len + 1) / 2) as f64;
            println!(
                "{heads:?} {count} x {len}: {:.1} GF/s, {:.2} us per token; back {:.1} GF/s, {:.2}",
                flop / t * 1e-9,
                t * 1e6 / tokens as f64,
                2.5 * flop / b * 1e-9,
                b * 1e6 / tokens as f64
            );
        }
        let heads = Heads { heads: 12, kv_heads: 12, dim: 64, window: None };
        let mut past = Past::new();
        let qkv: Vec<f32> = (0..100 * heads.width()).map(|i| (i % 1013) as f32 / 500.0 - 1.0).collect();
        past.append(&qkv, &heads);
        let rows = [Row { past: Some(&past), stem: 0..1, ways: vec![] }];
        let t = best(|| {
            for _ in 0..100 {
                std::hint::black_box(attend(&heads, &rows, &qkv[..heads.width()], Threads::One));
            }
        });
        println!("one query, 100 before: {:.2} us", t * 1e4);
    }
}
