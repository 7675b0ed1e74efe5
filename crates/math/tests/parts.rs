//! Keys that have parts, of which each uses some: what a block-diagonal metric gives is what the whole matrix gives.

use std::sync::{Arc, Mutex};

use palinode_math::{
    Factor, Fit, Form, History, KeptPart, Mat, MathError, PartFactors, PartKeys, Preservation, PreservationWeights,
    Problem, SecondMoment, difference_of_updates, mean_column_norm, solve,
};

const SIZES: [usize; 4] = [3, 5, 2, 4];

/// Numbers without a pattern, in (−1, 1).
fn wave(i: usize) -> f32 {
    let x = (i as f64 * 12.9898 + 78.233).sin() * 43_758.545;
    (2.0 * (x - x.floor()) - 1.0) as f32
}

/// Keys of some tokens, each of which uses two of the first three parts, and all of them the last.
fn keys(tokens: usize, seed: usize) -> Vec<f32> {
    let f: usize = SIZES.iter().sum();
    let mut keys = vec![0.0; tokens * f];
    for (t, key) in keys.chunks_exact_mut(f).enumerate() {
        let mut at = 0;
        for (part, size) in SIZES.into_iter().enumerate() {
            if part == 3 || part != (t + seed) % 3 {
                (at..at + size).for_each(|i| key[i] = wave(seed * 1000 + t * f + i));
            }
            at += size;
        }
    }
    keys
}

fn moment(tokens: usize) -> SecondMoment {
    let mut moment = SecondMoment::in_parts(&SIZES);
    moment.add(&keys(tokens, 1)).unwrap();
    moment
}

/// The same as one matrix.
fn whole(moment: &SecondMoment) -> SecondMoment {
    SecondMoment::from_sum(&moment.sum(), moment.size(), moment.count()).unwrap()
}

fn columns(values: &[f32], f: usize) -> Mat<f64> {
    Mat::from_fn(f, values.len() / f, |i, j| f64::from(values[j * f + i]))
}

fn far(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    (a - b).norm_max()
}

#[test]
fn sums_are_kept_by_part() {
    let (one, f) = (moment(60), 14);
    assert_eq!((one.size(), one.parts(), one.count()), (f, 4, 60));
    assert_eq!(one.part_counts(), [40, 40, 40, 60]);
    let all = keys(60, 1);
    let gram = |i: usize, j: usize| all.chunks_exact(f).map(|k| f64::from(k[i]) * f64::from(k[j])).sum::<f64>() / 60.0;
    let ranges: Vec<_> = one.ranges().collect();
    let together = |i: usize, j: usize| ranges.iter().any(|range| range.contains(&i) && range.contains(&j));
    let mean = one.mean();
    for i in 0..f {
        for j in 0..f {
            let expected = if together(i, j) { gram(i, j) } else { 0.0 };
            assert!((mean[(i, j)] - expected).abs() < 1e-12, "{i} {j}");
        }
    }
    assert!((one.trace() - (0..f).map(|i| gram(i, i)).sum::<f64>()).abs() < 1e-12);
    // Stored and read, and in two halves.
    let sums: Vec<Vec<f64>> = (0..4).map(|part| one.part_rows(part).collect()).collect();
    let stored = sums.iter().zip(SIZES).zip(one.part_counts()).map(|((sum, f), n)| (sum.as_slice(), f, n));
    assert_eq!(SecondMoment::from_part_sums(stored, 60).unwrap().sum(), one.sum());
    let mut first = SecondMoment::in_parts(&SIZES);
    first.add(&all[..30 * f]).unwrap();
    let mut rest = SecondMoment::in_parts(&SIZES);
    rest.add(&all[30 * f..]).unwrap();
    first.merge(&rest).unwrap();
    assert!(far(&first.mean(), &mean) < 1e-12 && first.part_counts() == one.part_counts());
    assert!(first.merge(&SecondMoment::new(f)).is_err());
    assert!(matches!(
        Factor::new(&one, PreservationWeights { lambda: 1.0, rho: 0.0 }),
        Err(MathError::Dimension { .. })
    ));
}

#[test]
fn a_solve_is_that_of_the_whole_matrix() {
    let (moment, f, d) = (moment(60), 14, 6);
    let k = columns(&keys(4, 7), f);
    let r = Mat::from_fn(d, 4, |i, j| f64::from(wave(500 + i * 4 + j)));
    for rho in [0.0, 2.0] {
        let weights = PreservationWeights { lambda: 3.0, rho };
        let parts =
            PartFactors::new(moment.clone(), PreservationWeights { lambda: if rho == 0.0 { 1.0 } else { 3.0 }, rho })
                .unwrap();
        let parts = parts.rescaled(3.0).unwrap_or(parts);
        let dense = Factor::new(&whole(&moment), weights).unwrap();
        for mu in [0.0, 0.5] {
            let mu = [mu; 4];
            let problem =
                Problem { keys: k.as_ref(), direction: None, residual: r.as_ref(), mu: &mu, form: Form::Auto };
            let (ours, theirs) = (solve(&parts, &problem).unwrap(), solve(&dense, &problem).unwrap());
            assert!(far(&ours.update.dense(), &theirs.update.dense()) < 1e-9);
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-8 * (1.0 + b.abs());
            assert!(close(ours.diagnostics.preservation, theirs.diagnostics.preservation), "{ours:?} {theirs:?}");
            assert!(close(ours.diagnostics.condition, theirs.diagnostics.condition));
            // Taken apart, the parts are the whole, and so are their costs.
            let (mut sum, mut cost, mut squares) = (Mat::<f64>::zeros(d, f), 0.0, 0.0);
            for range in moment.ranges() {
                let (update, own) = ours.part(&parts, range.clone()).unwrap();
                sum.as_mut().subcols_mut(range.start, range.len()).copy_from(&update.dense());
                cost += own.preservation;
                squares += own.frobenius.powi(2);
            }
            assert!(far(&sum, &theirs.update.dense()) < 1e-9);
            assert!(
                close(cost, theirs.diagnostics.preservation) && close(squares.sqrt(), theirs.diagnostics.frobenius)
            );
        }
        // With the keys of earlier rounds.
        let earlier = columns(&keys(3, 11), f);
        let [mut ours, mut theirs] =
            [Arc::new(parts) as Arc<dyn Preservation>, Arc::new(dense)].map(|base| History::new(base, 1.5).unwrap());
        for _ in 0..3 {
            ours.remember(earlier.as_ref()).unwrap();
            theirs.remember(earlier.as_ref()).unwrap();
        }
        let (ours, theirs) = (ours.project(k.as_ref()).unwrap(), theirs.project(k.as_ref()).unwrap());
        assert!(far(&ours.keys, &theirs.keys) < 1e-9 && far(&ours.gram, &theirs.gram) < 1e-9);
    }
}

/// A key of one part changes that part alone, and needs nothing of the others.
#[test]
fn parts_that_no_key_uses_are_not_needed() {
    let f = 14;
    let mut moment = SecondMoment::in_parts(&SIZES);
    let mut few = keys(60, 1);
    // The third part is used by one token.
    few.chunks_exact_mut(f).skip(1).for_each(|key| key[8..10].fill(0.0));
    few[8..10].fill(0.5);
    moment.add(&few).unwrap();
    let parts = PartFactors::new(moment.clone(), PreservationWeights { lambda: 1.0, rho: 0.0 }).unwrap();
    let mut k = columns(&keys(1, 3), f);
    (3..f).for_each(|i| k[(i, 0)] = 0.0);
    k[(0, 0)] = 1.0;
    let mut other = k.clone();
    other[(8, 0)] = 1.0;
    let r = Mat::from_fn(2, 1, |i, _| 1.0 + i as f64);
    let problem = |keys| Problem { keys, direction: None, residual: r.as_ref(), mu: &[0.0], form: Form::Auto };
    let found = solve(&parts, &problem(k.as_ref())).unwrap();
    let moved = found.update.dense() * &k;
    assert!(mean_column_norm((&moved - &r).as_ref()) < 1e-12);
    let changed: Vec<bool> = moment.ranges().map(|range| found.part(&parts, range).is_some()).collect();
    assert_eq!(changed, [true, false, false, false]);
    let error = solve(&parts, &problem(other.as_ref())).unwrap_err();
    assert_eq!(error, MathError::Part { part: 2, tokens: 1, size: 2 });
    // With a ridge there is something to go by.
    let ridge = PartFactors::new(moment.clone(), PreservationWeights { lambda: 1.0, rho: 0.1 }).unwrap();
    solve(&ridge, &problem(other.as_ref())).unwrap();
    assert_eq!(Fit::held_out(moment.clone(), &[&PartKeys::of(&few[..2 * f], moment.ranges())]).unwrap(), Fit::Singular);
}

/// Each document judged by the sums without it, part by part.
#[test]
fn documents_are_held_out_by_part() {
    let (f, tokens) = (14, 400);
    let moment = moment(tokens);
    let all = keys(tokens, 1);
    let documents: Vec<&[f32]> = all.chunks_exact(10 * f).take(5).collect();
    let parted: Vec<PartKeys> = documents.iter().map(|keys| PartKeys::of(keys, moment.ranges())).collect();
    let parted: Vec<&PartKeys> = parted.iter().collect();
    let Fit::Ratio(found) = Fit::held_out(moment.clone(), &parted).unwrap() else { panic!("no ratio") };
    let mut total = 0.0;
    for (at, document) in documents.iter().enumerate() {
        let mut rest = SecondMoment::in_parts(&SIZES);
        rest.add(&all[..at * 10 * f]).unwrap();
        rest.add(&all[(at + 1) * 10 * f..]).unwrap();
        let inverse = Factor::new(&whole(&rest), PreservationWeights { lambda: 1.0, rho: 0.0 }).unwrap();
        total += inverse.forms(columns(document, f).as_ref()).unwrap().into_iter().sum::<f64>();
    }
    let expected = total / 50.0 / f as f64;
    assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
}

/// The halves of each part are the sums of the even and the odd units, also where they were kept, and read again, and put together.
#[test]
fn each_part_has_its_halves() {
    let f: usize = SIZES.iter().sum();
    let all = keys(120, 1);
    let units: Vec<&[f32]> = all.chunks_exact(30 * f).collect();
    let mut halves = [SecondMoment::in_parts(&SIZES), SecondMoment::in_parts(&SIZES)];
    let (mut whole, mut joined) = (SecondMoment::in_parts(&SIZES), SecondMoment::in_parts(&SIZES));
    for (number, unit) in units.into_iter().enumerate() {
        halves[number % 2].add(unit).unwrap();
        let mut alone = SecondMoment::in_parts(&SIZES);
        for moment in [&mut whole, &mut alone] {
            if number % 2 == 1 {
                moment.begin_odd();
            }
            moment.add(unit).unwrap();
            if number % 2 == 1 {
                moment.end_odd();
            }
        }
        joined.merge(&alone).unwrap();
    }
    let rows: Vec<Vec<f64>> = (0..4).map(|part| whole.kept_rows(part).collect()).collect();
    let parts = rows.iter().zip(whole.part_counts()).enumerate().map(|(part, (rows, count))| KeptPart {
        rows,
        count,
        odd: whole.kept_odd(part).unwrap(),
    });
    let kept = SecondMoment::from_kept(parts, (whole.count(), whole.odd_count().unwrap())).unwrap();
    assert_eq!((kept.sum(), kept.difference()), (whole.sum(), whole.difference()));
    assert_eq!(kept.part_counts(), whole.part_counts());
    for moment in [&whole, &joined, &kept] {
        for (half, expected) in [moment.even().unwrap(), moment.odd().unwrap()].iter().zip(&halves) {
            assert_eq!((half.count(), half.part_counts()), (expected.count(), expected.part_counts()));
            assert!(far(&half.mean(), &expected.mean()) < 1e-12);
        }
        // By the part where it is most.
        let norm = |moment: &Mat<f64>, range: &std::ops::Range<usize>| {
            moment.as_ref().submatrix(range.start, range.start, range.len(), range.len()).norm_l2()
        };
        let apart = halves[0].mean() - halves[1].mean();
        let each = whole.ranges().map(|range| norm(&apart, &range) / norm(&whole.mean(), &range));
        let expected = each.fold(0.0, f64::max);
        assert!((moment.difference().unwrap() - expected).abs() < 1e-9);
    }
    // The direction of an update is that of the whole matrices.
    let k = columns(&keys(4, 7), f);
    let direction = |half: &SecondMoment| {
        let projected = Factor::new(&self::whole(half), PreservationWeights { lambda: 1.0, rho: 0.0 }).unwrap();
        let projected = projected.project(k.as_ref()).unwrap();
        Mat::from_fn(f, 4, |i, at| projected.keys[(i, at)] / projected.gram[(at, at)])
    };
    let (one, two) = (direction(&halves[0]), direction(&halves[1]));
    let each = (0..4).map(|at| {
        let (one, two) = (one.col(at), two.col(at));
        2.0 * (one - two).norm_l2() / (one.norm_l2() + two.norm_l2())
    });
    let expected = each.sum::<f64>() / 4.0;
    let found = difference_of_updates(&whole, k.as_ref()).unwrap().unwrap();
    assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    // A part that one token uses says nothing, nor does a key that uses it.
    let mut few = all.clone();
    few.chunks_exact_mut(f).skip(1).for_each(|key| key[8..10].fill(0.0));
    let halves_of = |keys: &[f32]| {
        let mut moment = SecondMoment::in_parts(&SIZES);
        moment.add(&keys[..60 * f]).unwrap();
        moment.begin_odd();
        moment.add(&keys[60 * f..]).unwrap();
        moment.end_odd();
        moment
    };
    let (thin, full) = (halves_of(&few), halves_of(&all));
    assert!(thin.difference().unwrap() <= full.difference().unwrap());
    let mut one = columns(&keys(1, 7), f);
    one[(8, 0)] = 1.0;
    assert!(difference_of_updates(&full, one.as_ref()).unwrap().is_some());
    assert_eq!(difference_of_updates(&thin, one.as_ref()).unwrap(), None);
}

/// A part is fetched when a key uses it, once; one that could not be read is tried again.
#[test]
fn parts_are_fetched_when_a_key_uses_them() {
    let (moment, f) = (moment(60), 14);
    let weights = PreservationWeights { lambda: 3.0, rho: 0.5 };
    let all = PartFactors::new(moment.clone(), weights).unwrap();
    let sizes: Vec<(usize, u64)> = SIZES.into_iter().zip(moment.part_counts()).collect();
    let fetched = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&fetched);
    let lazy = PartFactors::fetched(sizes, weights, move |part| {
        log.lock().unwrap().push(part);
        if log.lock().unwrap().len() == 1 {
            return Err(MathError::Unread { part, message: "no such file".to_owned() });
        }
        Ok(moment.part(part))
    })
    .unwrap();
    assert_eq!(lazy.size(), f);
    let mut k = columns(&keys(2, 7), f);
    // Both keys use the second part alone.
    (0..3).chain(8..f).for_each(|i| (0..2).for_each(|at| k[(i, at)] = 0.0));
    (3..8).for_each(|i| k[(i, 0)] = 1.0 + i as f64);
    let error = lazy.project(k.as_ref()).unwrap_err();
    assert_eq!(error.to_string(), "the second moment of part 1 of the keys cannot be read: no such file");
    for _ in 0..2 {
        let (ours, theirs) = (lazy.project(k.as_ref()).unwrap(), all.project(k.as_ref()).unwrap());
        assert_eq!((ours.keys, ours.gram), (theirs.keys, theirs.gram));
    }
    assert_eq!(*fetched.lock().unwrap(), [1, 1]);
}

/// Keys without what is 0 are the keys.
#[test]
fn keys_are_kept_by_part() {
    let (f, all) = (14, keys(5, 1));
    let moment = moment(5);
    let parted = PartKeys::of(&all, moment.ranges());
    assert_eq!(parted.tokens(), 5);
    // Token t does not use the part (t + 1) mod 3.
    assert_eq!([0, 1, 2, 3].map(|part| parted.users(part).len()), [4, 3, 3, 5]);
    for token in 0..5 {
        let mut key = Mat::zeros(f, 1);
        parted.write(token, moment.ranges(), key.col_mut(0));
        assert_eq!(key, columns(&all[token * f..(token + 1) * f], f));
    }
    assert!(parted.users(4).is_empty() && parted.values(4).is_empty());
    assert_eq!(PartKeys::of(&[0.0, 0.0], std::iter::once(0..2)).users(0), [0]);
}
