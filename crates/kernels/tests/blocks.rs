//! Attention and whole blocks, against the same in f64; and what a token's numbers may depend on, to the last bit.

mod plain;

use std::ops::Range;

use palinode_kernels::{
    Activation, Alibi, Arrangement, Heads, NormKind, Past, Rotation, Row, Threads, attend, attend_back,
};
use plain::{Mixture, Noise, PlainPast, Weights, batch, bits, far, wide};

const HEADS: [Heads; 10] = [
    Heads::new(4, 4, 16, None),
    Heads::new(6, 2, 32, None),
    Heads::new(2, 1, 8, Some(5)),
    Heads::new(3, 3, 20, Some(70)),
    Heads::new(4, 1, 64, Some(1)),
    Heads::new(1, 1, 80, None),
    Heads { scale: Some(0.1), cap: Some(2.5), ..Heads::new(4, 2, 16, None) },
    Heads { cap: Some(1.5), ..Heads::new(2, 1, 16, Some(20)) },
    Heads { alibi: Some(ALIBI), ..Heads::new(6, 6, 8, None) },
    Heads { alibi: Some(Alibi { scale: 0.4, rounded: true, ..ALIBI }), scale: Some(1.0), ..Heads::new(4, 1, 8, None) },
];

const ALIBI: Alibi = Alibi { most: 8.0, scale: 1.0, rounded: false };

fn row<'a>(past: Option<&'a Past>, stem: Range<usize>, ways: &[Range<usize>]) -> Row<'a> {
    Row { past: past.filter(|past| !past.is_empty()), stem, ways: ways.to_vec() }
}

/// Rows of many kinds: short, longer than a block of keys, with a past of any length, with ways on.
fn rows(pasts: &[Past]) -> Vec<Row<'_>> {
    vec![
        row(None, 0..1, &[]),
        row(None, 1..8, &[]),
        row(None, 8..158, &[]),
        row(Some(&pasts[3]), 158..163, &[]),
        row(Some(&pasts[4]), 163..240, &[]),
        row(None, 240..250, &[250..253, 253..254, 254..260]),
        row(Some(&pasts[6]), 260..266, &[266..270, 270..271]),
        row(Some(&pasts[7]), 271..272, &[]),
        row(None, 272..342, &[342..400, 400..402]),
        row(Some(&pasts[9]), 402..402, &[402..405, 405..406]),
    ]
}

const TOKENS: usize = 406;
const PASTS: [usize; 10] = [0, 0, 0, 3, 70, 0, 16, 128, 0, 33];

#[test]
fn attention_equals_that_in_f64() {
    for heads in HEADS {
        let mut noise = Noise(7);
        let (pasts, plain): (Vec<Past>, Vec<PlainPast>) =
            PASTS.into_iter().map(|tokens| plain::past(&heads, tokens, &mut noise)).unzip();
        let rows = rows(&pasts);
        let qkv = noise.take(TOKENS * heads.width(), 1.5);
        let found = attend(&heads, &rows, &qkv, Threads::All);
        assert_eq!(bits(&found.out), bits(&attend(&heads, &rows, &qkv, Threads::One).out));
        let exact = plain::attention(&heads, &rows, &plain, &wide(&qkv));
        assert!(far(&found.out, &exact) < 1e-6, "{heads:?}: {}", far(&found.out, &exact));
    }
}

/// Scores far from each other, and rows in which the largest comes last.
#[test]
fn large_scores_do_no_harm() {
    let heads = Heads::new(1, 1, 16, None);
    let mut qkv = Noise(8).take(200 * heads.width(), 1.0);
    for (token, row) in qkv.chunks_exact_mut(heads.width()).enumerate() {
        row[..32].iter_mut().for_each(|x| *x *= 1.0 + token as f32 / 4.0);
    }
    let rows = [Row::of(0..200)];
    let found = attend(&heads, &rows, &qkv, Threads::One);
    let exact = plain::attention(&heads, &rows, &[PlainPast::default()], &wide(&qkv));
    // A score of 3,000 has a rounding of 10⁻⁴, which its exponential shows.
    assert!(far(&found.out, &exact) < 3e-4, "{}", far(&found.out, &exact));
}

#[test]
fn attention_has_its_gradient() {
    for heads in [
        Heads::new(4, 2, 4, None),
        Heads::new(2, 2, 16, Some(4)),
        Heads::new(1, 1, 18, None),
        Heads { scale: Some(0.7), cap: Some(0.8), ..Heads::new(4, 2, 4, Some(6)) },
        Heads { alibi: Some(ALIBI), ..Heads::new(3, 3, 8, None) },
        Heads { alibi: Some(ALIBI), cap: Some(1.1), ..Heads::new(2, 1, 8, None) },
    ] {
        let mut noise = Noise(9);
        let (pasts, plain): (Vec<Past>, Vec<PlainPast>) =
            [0, 18, 0, 5, 3].into_iter().map(|tokens| plain::past(&heads, tokens, &mut noise)).unzip();
        let rows = [
            row(None, 0..7, &[]),
            row(Some(&pasts[1]), 7..12, &[]),
            row(None, 12..15, &[15..17, 17..18]),
            row(Some(&pasts[3]), 18..20, &[20..21, 21..23]),
            row(Some(&pasts[4]), 23..24, &[]),
        ];
        let qkv = noise.take(24 * heads.width(), 1.0);
        let slope = noise.take(24 * heads.queries(), 1.0);
        let attended = attend(&heads, &rows, &qkv, Threads::One);
        let found = attend_back(&heads, &rows, &qkv, &attended, &slope, Threads::One);
        assert_eq!(bits(&found), bits(&attend_back(&heads, &rows, &qkv, &attended, &slope, Threads::All)));
        let exact = differences(&qkv, |x| {
            let out = plain::attention(&heads, &rows, &plain, x);
            out.iter().zip(&slope).map(|(y, s)| y * f64::from(*s)).sum()
        });
        assert!(far(&found, &exact) < 1e-6, "{heads:?}: {}", far(&found, &exact));
    }
}

/// Many keys and queries, for which finite differences would take too long: the gradient in f64 by the formula.
#[test]
fn attention_over_several_blocks_has_its_gradient() {
    for window in [None, Some(50)] {
        let heads = Heads::new(2, 1, 16, window);
        let mut noise = Noise(10);
        let (past, plain) = plain::past(&heads, 100, &mut noise);
        let rows = [Row { past: Some(&past), stem: 0..90, ways: std::iter::once(90..160).collect() }];
        let (qkv, slope) = (noise.take(160 * heads.width(), 1.0), noise.take(160 * heads.queries(), 1.0));
        let attended = attend(&heads, &rows, &qkv, Threads::One);
        let found = attend_back(&heads, &rows, &qkv, &attended, &slope, Threads::One);
        let loss = |x: &[f64]| -> f64 {
            let out = plain::attention(&heads, &rows, std::slice::from_ref(&plain), x);
            out.iter().zip(&slope).map(|(y, s)| y * f64::from(*s)).sum()
        };
        // Along directions without a pattern: a wrong number anywhere shows in all of them.
        for _ in 0..8 {
            let direction = noise.take(qkv.len(), 1.0);
            let along: f64 = found.iter().zip(&direction).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let moved = |step: f64| -> Vec<f64> {
                qkv.iter().zip(&direction).map(|(x, d)| f64::from(*x) + step * f64::from(*d)).collect()
            };
            let exact = (loss(&moved(1e-5)) - loss(&moved(-1e-5))) / 2e-5;
            assert!((along - exact).abs() < 1e-4, "{along} instead of {exact}");
        }
    }
}

/// Whether the tokens before are computed with a token, were kept, or are a stem: a token's result is the same to the last bit.
#[test]
fn a_token_knows_what_it_sees_and_nothing_else() {
    for heads in HEADS {
        let mut noise = Noise(11);
        let width = heads.width();
        let qkv = noise.take(150 * width, 1.5);
        let whole = attend(&heads, &[Row::of(0..150)], &qkv, Threads::One).out;
        let of = |from: usize, to: usize| bits(&whole[from * heads.queries()..to * heads.queries()]);
        for cut in [1, 15, 16, 17, 63, 64, 65, 100, 128, 149] {
            let mut past = Past::new();
            past.append(&qkv[..cut / 2 * width], &heads);
            past.append(&qkv[cut / 2 * width..cut * width], &heads);
            let rest = attend(&heads, &[row(Some(&past), 0..150 - cut, &[])], &qkv[cut * width..], Threads::One);
            assert_eq!(bits(&rest.out), of(cut, 150), "{heads:?}, {cut} before");
            // As a way beside another one, which lies between.
            let other = noise.take(9 * width, 1.0);
            let parted = [&qkv[..cut * width], &other, &qkv[cut * width..]].concat();
            let parted = attend(&heads, &[row(None, 0..cut, &[cut..cut + 9, cut + 9..159])], &parted, Threads::One);
            assert_eq!(bits(&parted.out[(cut + 9) * heads.queries()..]), of(cut, 150), "{heads:?}, {cut} before");
            let first = attend(&heads, &[Row::of(0..cut)], &qkv[..cut * width], Threads::One);
            assert_eq!(bits(&first.out), of(0, cut));
        }
    }
}

fn differences(x: &[f32], loss: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = wide(x);
    let count = x.len();
    let difference = |i: usize| {
        let (at, step) = (x[i], 1e-5);
        x[i] = at + step;
        let above = loss(&x);
        x[i] = at - step;
        let below = loss(&x);
        x[i] = at;
        (above - below) / (2.0 * step)
    };
    (0..count).map(difference).collect()
}

/// Blocks as the families have them.
fn blocks() -> Vec<Weights> {
    let heads = Heads::new;
    let plain = Weights::new(24, 40, heads(3, 3, 8, None), Arrangement::Sequential, Activation::GeluNew);
    let parallel = Weights::new(24, 40, heads(3, 3, 8, None), Arrangement::Parallel, Activation::GeluNew);
    let two = Weights::new(24, 40, heads(3, 3, 8, None), Arrangement::ParallelTwoNorms, Activation::Gelu);
    let relu = Weights::new(24, 40, heads(3, 3, 8, None), Arrangement::Sequential, Activation::Relu);
    let gated = |heads| {
        let mut weights = Weights::new(24, 40, heads, Arrangement::Sequential, Activation::Silu);
        (weights.kind, weights.gated, weights.bias) = (NormKind::Rms, true, false);
        weights
    };
    let mut normed = gated(heads(4, 2, 10, Some(3)));
    normed.head_norm = Some(10);
    // As Gemma 2 has it.
    let mut sandwich = gated(Heads { scale: Some(0.2), cap: Some(1.5), ..heads(4, 2, 8, Some(4)) });
    (sandwich.activation, sandwich.norms_behind) = (Activation::GeluNew, true);
    // As OLMo 2 has it: no norms before, and one over all heads together.
    let mut behind = gated(heads(4, 2, 6, None));
    (behind.norms_before, behind.norms_behind, behind.head_norm) = (false, true, Some(24));
    let mut multiplied = gated(heads(4, 4, 6, None));
    (multiplied.multiplier, multiplied.clip) = (0.22, Some(0.9));
    // A weight for each number of each head, normed head by head.
    let mut each = Weights::new(24, 40, heads(3, 3, 8, None), Arrangement::Parallel, Activation::Silu);
    (each.gated, each.head_norm, each.each_head) = (true, Some(8), true);
    let alibi = Heads { alibi: Some(ALIBI), ..heads(3, 3, 8, None) };
    let distant = Weights::new(24, 40, alibi, Arrangement::Sequential, Activation::GeluNew);
    // As Mixtral, Qwen 2 and OLMoE have it; with fewer tokens than experts in rows of few tokens.
    let mixture = |top, normalised, shared| {
        let mut weights = gated(heads(4, 2, 6, None));
        weights.experts = Some(Mixture { top, normalised, shared });
        weights
    };
    let experts = [mixture(2, true, false), mixture(2, false, true), mixture(3, false, false), mixture(1, true, true)];
    let mut all = vec![plain, parallel, two, relu, gated(heads(4, 1, 6, None))];
    all.extend([normed, sandwich, behind, multiplied, each, distant]);
    all.extend(experts);
    all
}

const FREQUENCIES: [f64; 3] = [1.0, 0.1, 0.01];

#[test]
fn blocks_and_their_way_back_equal_those_in_f64() {
    for weights in blocks() {
        let mut noise = Noise(12);
        let heads = weights.heads;
        let (pasts, plain): (Vec<Past>, Vec<PlainPast>) =
            [0, 4, 0].into_iter().map(|tokens| plain::past(&heads, tokens, &mut noise)).unzip();
        let rows = vec![row(None, 0..4, &[]), row(Some(&pasts[1]), 4..7, &[]), row(None, 7..9, &[9..11, 11..12])];
        let positions = [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 2];
        let rotation = Rotation::new(&FREQUENCIES, positions);
        let x = noise.take(12 * weights.d, 1.0);
        let slope = noise.take(12 * weights.d, 1.0);
        let block = weights.block();
        let batch = batch(rows.clone(), Some(&rotation));
        let plainly = |x: &[f64]| weights.plain(x, &rows, &plain, Some((&FREQUENCIES, &positions)));
        let found = block.forward(&x, &batch, Threads::One);
        let exact = plainly(&wide(&x));
        for (name, found, exact) in [
            ("hidden", &found.hidden, &exact.hidden),
            ("attention", &found.attention, &exact.attention),
            ("key", &weights.wide_key(&found), &exact.key),
            ("mlp", &found.mlp, &exact.mlp),
            ("qkv", &found.qkv, &exact.qkv),
        ] {
            assert!(far(found, exact) < 2e-6, "{name} of {:?}: {}", weights.arrangement, far(found, exact));
        }
        let (hidden, kept) = block.forward_kept(x.clone(), &batch, Threads::One);
        assert_eq!(bits(&hidden), bits(&found.hidden));
        let back = block.back(kept, slope.clone(), &batch, Threads::One);
        let exact = differences(&x, |x| plainly(x).hidden.iter().zip(&slope).map(|(y, s)| y * f64::from(*s)).sum());
        assert!(far(&back, &exact) < 3e-6, "{:?}: {}", weights.arrangement, far(&back, &exact));
    }
}

/// A row alone, among others, in one piece or in two: the same to the last bit, forward and back.
#[test]
fn a_row_of_a_block_knows_no_other() {
    for weights in blocks() {
        let mut noise = Noise(13);
        let (d, heads) = (weights.d, weights.heads);
        let block = weights.block();
        let lengths = [5, 1, 30, 80, 2, 17];
        let tokens: usize = lengths.iter().sum();
        let mut rows = Vec::new();
        let mut positions = Vec::new();
        for length in lengths {
            rows.push(Row::of(positions.len()..positions.len() + length));
            positions.extend(0..length);
        }
        let rotation = Rotation::new(&FREQUENCIES, positions.iter().copied());
        let (x, slope) = (noise.take(tokens * d, 1.0), noise.take(tokens * d, 1.0));
        let together = batch(rows.clone(), Some(&rotation));
        let (hidden, kept) = block.forward_kept(x.clone(), &together, Threads::All);
        let back = block.back(kept, slope.clone(), &together, Threads::All);
        for row in rows {
            let range = row.stem.clone();
            let cells = range.start * d..range.end * d;
            let length = range.len();
            let own = Rotation::new(&FREQUENCIES, 0..length);
            let alone = batch(vec![Row::of(0..length)], Some(&own));
            let (one, kept) = block.forward_kept(x[cells.clone()].to_vec(), &alone, Threads::One);
            assert_eq!(bits(&one), bits(&hidden[cells.clone()]));
            let one = block.back(kept, slope[cells.clone()].to_vec(), &alone, Threads::One);
            assert_eq!(bits(&one), bits(&back[cells.clone()]));
            // Token by token, as text is generated.
            let mut past = Past::new();
            for token in 0..length {
                let turn = Rotation::new(&FREQUENCIES, [token]);
                let passed = {
                    let next = batch(vec![plain_row(&past)], Some(&turn));
                    block.forward(&x[cells.start + token * d..][..d], &next, Threads::All)
                };
                past.append(&passed.qkv, &heads);
                assert_eq!(bits(&passed.hidden), bits(&hidden[cells.start + token * d..][..d]), "token {token}");
            }
        }
    }
}

fn plain_row(past: &Past) -> Row<'_> {
    row(Some(past), 0..1, &[])
}
