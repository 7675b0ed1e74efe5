//! What scores over a few records and a few seeds can show: intervals, paired differences, tests. Pure functions.

use std::collections::{BTreeSet, HashMap};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::metrics::Of;
use crate::summary::place;
use crate::{METRICS, RecordScores, Summary, wilson};

/// Seed of all draws: any will do, as long as it is the same for all comparisons.
const SEED: u64 = 1;
/// What a difference is called shown at, after Holm's adjustment.
pub const LEVEL: f64 = 0.05;

/// Mean and standard deviation (of a sample: the divisor is n − 1); no deviation of a single value, and nothing of none.
pub fn mean_and_deviation(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let n = values.len() as f64;
    let mean = (n > 0.0).then(|| values.iter().sum::<f64>() / n)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((mean, (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt())))
}

/// Student's 95 % interval of the mean of some values, such as one for each seed; `None` for fewer than two.
pub fn student(values: &[f64]) -> Option<[f64; 2]> {
    let (mean, deviation) = mean_and_deviation(values)?;
    let half = student_quantile(values.len() - 1) * deviation? / (values.len() as f64).sqrt();
    Some([mean - half, mean + half])
}

/// Student's 95 % interval of a mean over repetitions where no records are known, such as at a step of a sequence; `None` where all are equal.
/// Of a `share` it stays between 0 and 1.
pub fn over_values(values: &[f64], share: bool) -> Option<[f64; 2]> {
    let ends = student(values).filter(|[low, high]| low < high)?;
    Some(if share { of_a_share(ends) } else { ends })
}

/// The part of an interval in which a share can be. Student's knows nothing of 0 and 1, and a share is in between for certain.
fn of_a_share([low, high]: [f64; 2]) -> [f64; 2] {
    [low.max(0.0), high.min(1.0)]
}

/// The 97.5 % quantile of Student's t with this many degrees of freedom, 1 or more.
fn student_quantile(freedom: usize) -> f64 {
    // It falls from 12.7 with the degrees of freedom.
    let (mut low, mut high) = (0.0, 16.0);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if within(middle, freedom) < 0.95 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// P(|T| < t) of Student's t with a whole number of degrees of freedom: Abramowitz and Stegun, 26.7.3 and 26.7.4.
fn within(t: f64, freedom: usize) -> f64 {
    let angle = (t / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    let (mut term, mut sum) = (if odd { cosine } else { 1.0 }, 0.0);
    let mut at = if odd { 3 } else { 2 };
    while at <= freedom {
        sum += term;
        term *= cosine * cosine * (at - 1) as f64 / at as f64;
        at += 2;
    }
    if odd { (angle + sine * sum) * std::f64::consts::FRAC_2_PI } else { sine * sum }
}

/// Two-sided exact p of McNemar's test: `more` records succeed on the first side alone, `fewer` on the second alone. They are as many by
/// chance as heads of a fair coin (McNemar 1947, Psychometrika 12, 153).
pub fn mcnemar(more: usize, fewer: usize) -> f64 {
    let n = more + fewer;
    // Σ C(n, k) / 2ⁿ over the smaller tail, in logarithms: 2ⁿ leaves f64 at some thousand.
    let mut log = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for k in 0..=more.min(fewer) {
        tail += log.exp();
        log += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

/// Records at most of which all 2ⁿ signs are tried.
const EXACT: usize = 12;

/// Two-sided p of the paired sign-flip test of a mean difference of 0 (Fisher's randomization test): the share of all ways to choose the
/// differences' signs that give a mean at least as far from 0. More than twelve differences are tried in `draws` random ways, and the
/// observed one counts among them (Phipson and Smyth 2010, doi 10.2202/1544-6115.1585).
pub fn sign_flip(differences: &[f64], draws: usize) -> f64 {
    // What is 0 stays so whatever its sign.
    let all: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    let observed = all.iter().sum::<f64>().abs();
    // Sums of the same numbers in another order differ in the last digits.
    let reaches = |sum: f64| sum.abs() >= observed * (1.0 - 1e-12);
    if all.len() <= EXACT {
        let signed = |ways: u64| all.iter().enumerate().map(|(i, d)| if ways >> i & 1 == 1 { -d } else { *d }).sum();
        let ways = 1_u64 << all.len();
        return (0..ways).filter(|&way| reaches(signed(way))).count() as f64 / ways as f64;
    }
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut draw = || {
        let (mut bits, mut sum) = (0_u64, 0.0);
        for (i, difference) in all.iter().enumerate() {
            if i % 64 == 0 {
                bits = random.random();
            }
            sum += if bits >> (i % 64) & 1 == 1 { -difference } else { *difference };
        }
        sum
    };
    let reached = (0..draws).filter(|_| reaches(draw())).count();
    (1 + reached) as f64 / (1 + draws) as f64
}

/// Holm's adjustment of the p of several tests, in their order: all that are at most α are shown at a family-wise error of α (Holm 1979,
/// Scand. J. Stat. 6, 65).
pub fn holm(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|&a, &b| ps[a].total_cmp(&ps[b]));
    let mut adjusted = vec![0.0; ps.len()];
    let mut least: f64 = 0.0;
    for (rank, &at) in order.iter().enumerate() {
        least = least.max((ps[at] * (ps.len() - rank) as f64).min(1.0));
        adjusted[at] = least;
    }
    adjusted
}

/// The scores of one edited model (or several batches of one) with the names of their records.
#[derive(Clone, Debug)]
pub struct Scored {
    /// A name for each record; one that stands twice has a number behind it, so that both are told apart.
    ids: Vec<String>,
    summary: Summary,
}

impl Scored {
    /// Of records `after` an edit beside the same `before` it; with none after, of those before.
    pub fn new(before: &[RecordScores], after: &[RecordScores]) -> Self {
        let summary = if after.is_empty() { Summary::of(before) } else { Summary::between(before, after) };
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let named = |record: &RecordScores| record.id.clone();
        let ids = before
            .iter()
            .map(|record| {
                let times = seen.entry(&record.id).or_default();
                *times += 1;
                if *times == 1 { named(record) } else { format!("{}\u{0}{times}", record.id) }
            })
            .collect();
        Self { ids, summary }
    }

    /// The number of records that a metric is a mean of; of a harmonic mean, the number that any of its parts has.
    pub fn n(&self, metric: &str) -> Option<usize> {
        let parts = parts(metric)?;
        let has = |record: &usize| parts.iter().any(|&part| self.summary.value(*record, part).is_some());
        Some((0..self.ids.len()).filter(has).count())
    }
}

/// Repetitions of one experiment: what each differs in (such as its seed), and its scores.
pub type Repeated<'a> = Vec<(String, &'a Scored)>;

/// How two experiments differ in a metric, compared record by record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// Records that both have.
    pub n: usize,
    /// Repetitions that both have.
    pub repetitions: usize,
    /// The values of both over these.
    pub values: [f64; 2],
    /// The second's value less the first's.
    pub difference: f64,
    /// Its 95 % interval: percentile bootstrap over records, and over repetitions where there are several.
    pub interval: [f64; 2],
    /// Two-sided p of no difference: McNemar's exact test for successes, else signs flipped record by record (over all repetitions
    /// together, since these share the records).
    pub p: f64,
}

impl Paired {
    /// Whether a difference is shown: neither does the interval hold 0, nor is `p`, adjusted for many comparisons, above [`LEVEL`].
    pub fn shown(&self, p: f64) -> bool {
        is_shown(self.interval, p)
    }
}

/// Whether a difference is shown: neither does its interval hold 0, nor is `p`, adjusted for many comparisons, above [`LEVEL`].
pub fn is_shown(interval: [f64; 2], p: f64) -> bool {
    (interval[0] > 0.0 || interval[1] < 0.0) && p <= LEVEL
}

/// Values of a metric's parts by repetition, part and record; where one of two sides lacks a value, both do.
type Values = Vec<Vec<Vec<Option<f64>>>>;

/// The metrics that a metric is made of: itself, or those that it is the harmonic mean of.
fn parts(metric: &str) -> Option<Vec<usize>> {
    match METRICS[place(metric)?].of {
        Of::Harmonic(parts) => parts.iter().map(|part| place(part)).collect(),
        Of::Record(_) | Of::Change(_) => Some(vec![place(metric)?]),
    }
}

/// Bootstrap samples and random signs: fewer where there are very many records, but enough for Holm's adjustment of twenty tests.
fn draws(records: usize) -> usize {
    (5_000_000 / records.max(1)).clamp(1000, 2000)
}

/// The mean over repetitions of a metric over some records.
fn value(values: &Values, repetitions: &[usize], records: &[usize]) -> Option<f64> {
    let one = |repetition: &usize| {
        let parts = &values[*repetition];
        let mut inverse = 0.0;
        for part in parts {
            let (mut sum, mut n) = (0.0, 0_usize);
            for value in records.iter().filter_map(|&record| part[record]) {
                sum += value;
                n += 1;
            }
            if n == 0 {
                return None;
            }
            if parts.len() == 1 {
                return Some(sum / n as f64);
            }
            inverse += n as f64 / sum;
        }
        Some(parts.len() as f64 / inverse)
    };
    let known: Vec<f64> = repetitions.iter().filter_map(one).collect();
    (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
}

/// The middle 95 % of a statistic over bootstrap samples of records, and of repetitions where there are several.
fn two_way(
    repetitions: usize,
    records: usize,
    mut statistic: impl FnMut(&[usize], &[usize]) -> Option<f64>,
) -> Option<[f64; 2]> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut found = Vec::new();
    for _ in 0..draws(records) {
        let drawn: Vec<usize> = match repetitions {
            1 => vec![0],
            all => (0..all).map(|_| random.random_range(0..all)).collect(),
        };
        let sample: Vec<usize> = (0..records).map(|_| random.random_range(0..records)).collect();
        found.extend(statistic(&drawn, &sample));
    }
    found.sort_by(f64::total_cmp);
    let at = |share: f64| found[((found.len() - 1) as f64 * share).round() as usize];
    (!found.is_empty()).then(|| [at(0.025), at(0.975)])
}

/// The 95 % interval of a metric over all records and repetitions of an experiment; `None` where nobody knows the records. Of a share that all
/// records and repetitions agree on, of which draws make a point, it is Wilson's of the records: repetitions of the same records say little more.
pub fn interval(of: &Repeated<'_>, metric: &str) -> Option<[f64; 2]> {
    let (values, _, records) = aligned(of, of, metric)?;
    let drawn = two_way(values.len(), records, |drawn, sample| value(&values, drawn, sample))?;
    let share = METRICS[place(metric)?].share;
    if share && drawn[0] == drawn[1] { wilson(drawn[0], records) } else { Some(drawn) }
}

/// The values of both sides, over the repetitions and records that both have; and the number of records.
fn aligned(a: &Repeated<'_>, b: &Repeated<'_>, metric: &str) -> Option<(Values, Values, usize)> {
    let parts = parts(metric)?;
    let pairs: Vec<(&Scored, &Scored)> = match (a.as_slice(), b.as_slice()) {
        // Two single experiments are compared whatever they are called.
        ([(_, a)], [(_, b)]) => vec![(a, b)],
        _ => a.iter().filter_map(|(of, a)| Some((*a, b.iter().find(|(other, _)| other == of)?.1))).collect(),
    };
    let mut records: HashMap<&str, usize> = HashMap::new();
    for (a, b) in &pairs {
        let both: BTreeSet<&String> = b.ids.iter().collect();
        for id in a.ids.iter().filter(|id| both.contains(id)) {
            let next = records.len();
            records.entry(id).or_insert(next);
        }
    }
    if records.is_empty() {
        return None;
    }
    let side = |scored: &Scored| {
        let mut values = vec![vec![None; records.len()]; parts.len()];
        for (at, id) in scored.ids.iter().enumerate() {
            let Some(&record) = records.get(id.as_str()) else { continue };
            for (part, values) in parts.iter().zip(&mut values) {
                values[record] = scored.summary.value(at, *part);
            }
        }
        values
    };
    let (mut first, mut second): (Values, Values) = pairs.iter().map(|(a, b)| (side(a), side(b))).unzip();
    for (a, b) in first.iter_mut().flatten().flatten().zip(second.iter_mut().flatten().flatten()) {
        if a.is_none() || b.is_none() {
            (*a, *b) = (None, None);
        }
    }
    Some((first, second, records.len()))
}

/// Compares two experiments in a metric, record by record, and repetition by repetition where there are several; `None` where they share no
/// records with values.
pub fn paired(a: &Repeated<'_>, b: &Repeated<'_>, metric: &str) -> Option<Paired> {
    let (a, b, records) = aligned(a, b, metric)?;
    let repetitions: Vec<usize> = (0..a.len()).collect();
    let all: Vec<usize> = (0..records).collect();
    let less = |a: &Values, b: &Values, drawn: &[usize], sample: &[usize]| {
        Some(value(b, drawn, sample)? - value(a, drawn, sample)?)
    };
    let values = [value(&a, &repetitions, &all)?, value(&b, &repetitions, &all)?];
    let difference = values[1] - values[0];
    let interval = two_way(a.len(), records, |drawn, sample| less(&a, &b, drawn, sample))?;
    let has = |record: &usize| a.iter().flatten().any(|part| part[*record].is_some());
    let n = all.iter().filter(|record| has(record)).count();
    let p = match a[0].len() {
        1 => {
            let of = |record: usize| -> Vec<(f64, f64)> {
                a.iter().zip(&b).filter_map(|(a, b)| Some((a[0][record]?, b[0][record]?))).collect()
            };
            let pairs: Vec<Vec<(f64, f64)>> = all.iter().map(|&record| of(record)).filter(|p| !p.is_empty()).collect();
            let success = |value: f64| value == 0.0 || value == 1.0;
            if a.len() == 1 && pairs.iter().flatten().all(|(a, b)| success(*a) && success(*b)) {
                let count = |like: fn(f64, f64) -> bool| pairs.iter().flatten().filter(|(a, b)| like(*a, *b)).count();
                mcnemar(count(|a, b| a > b), count(|a, b| a < b))
            } else {
                let mean = |pairs: &Vec<(f64, f64)>| pairs.iter().map(|(a, b)| b - a).sum::<f64>() / pairs.len() as f64;
                sign_flip(&pairs.iter().map(mean).collect::<Vec<_>>(), draws(records))
            }
        }
        _ => swapped(&a, &b, &repetitions, &all, difference),
    };
    Some(Paired { n, repetitions: a.len(), values, difference, interval, p })
}

/// The number of records that a metric has values of, in any repetition of an experiment.
pub fn known_records(of: &Repeated<'_>, metric: &str) -> Option<usize> {
    let (values, _, records) = aligned(of, of, metric)?;
    let has = |record: &usize| values.iter().flatten().any(|part| part[*record].is_some());
    Some((0..records).filter(has).count())
}

/// Compares two experiments in a number of which no records are known, pair by pair of repetitions: Student's 95 % interval of the mean
/// difference, second less first, and the two-sided p of none. `None` for fewer than two pairs, and where all differ by the same: chance is then not
/// known.
pub fn paired_values(pairs: &[(f64, f64)]) -> Option<([f64; 2], f64)> {
    let differences: Vec<f64> = pairs.iter().map(|(a, b)| b - a).collect();
    let (mean, deviation) = mean_and_deviation(&differences)?;
    let largest = pairs.iter().fold(0.0, |most: f64, (a, b)| most.max(a.abs()).max(b.abs()));
    // Differences of the same numbers differ in last digits.
    let deviation = deviation.filter(|deviation| *deviation > 1e-12 * largest)?;
    let t = mean.abs() / (deviation / (pairs.len() as f64).sqrt());
    Some((student(&differences)?, 1.0 - within(t, pairs.len() - 1)))
}

/// The p of a statistic that is no mean of differences: both sides of each record are swapped at random.
fn swapped(a: &Values, b: &Values, repetitions: &[usize], records: &[usize], observed: f64) -> f64 {
    let draws = draws(records.len());
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut reached = 0_usize;
    for _ in 0..draws {
        let swap: Vec<bool> = records.iter().map(|_| random.random()).collect();
        let side = |own: &Values, other: &Values| -> Values {
            let pick = |(own, other): (&Vec<Option<f64>>, &Vec<Option<f64>>)| {
                swap.iter().enumerate().map(|(i, swap)| if *swap { other[i] } else { own[i] }).collect()
            };
            own.iter().zip(other).map(|(own, other)| own.iter().zip(other).map(pick).collect()).collect()
        };
        let (first, second) = (side(a, b), side(b, a));
        if let (Some(a), Some(b)) = (value(&first, repetitions, records), value(&second, repetitions, records)) {
            reached += usize::from((b - a).abs() >= observed.abs() * (1.0 - 1e-12));
        }
    }
    (1 + reached) as f64 / (1 + draws) as f64
}

/// What can be said of which of several experiments is the best in a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Best {
    /// Nothing is known of records: values can be compared, and nothing be said of chance.
    Untested,
    /// No one is shown to be better than all others.
    NotShown,
    /// This one is shown to be better than each of the others, after Holm's adjustment.
    Shown(usize),
}

/// Which of several experiments is the best in a metric: the most, or, with `least`, the least.
pub fn best(of: &[Repeated<'_>], metric: &str, least: bool) -> Best {
    let sign = if least { -1.0 } else { 1.0 };
    let own = |one: &Repeated<'_>| {
        let (values, _, records) = aligned(one, one, metric)?;
        value(&values, &(0..values.len()).collect::<Vec<_>>(), &(0..records).collect::<Vec<_>>())
    };
    let Some(values) = of.iter().map(|one| Some(sign * own(one)?)).collect::<Option<Vec<f64>>>() else {
        return Best::Untested;
    };
    let mut order: Vec<usize> = (0..of.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let [first, others @ ..] = order.as_slice() else { return Best::NotShown };
    let mut found = Vec::new();
    for other in others {
        let Some(pair) = paired(&of[*other], &of[*first], metric) else { return Best::Untested };
        // Whoever is not shown to be worse by itself is not after an adjustment.
        if !pair.shown(pair.p) {
            return Best::NotShown;
        }
        found.push(pair);
    }
    let adjusted = holm(&found.iter().map(|pair| pair.p).collect::<Vec<_>>());
    let all = found.iter().zip(adjusted).all(|(pair, p)| pair.shown(p));
    if all && !found.is_empty() { Best::Shown(*first) } else { Best::NotShown }
}

/// The 95 % interval of a metric over repetitions: over records too, where these are known; else Student's of the repetitions' `values`. A share of
/// `share` records or questions does not leave 0 to 1, and is never a point: where all repetitions agree, it is Wilson's.
pub fn over_repetitions(
    scores: Option<&Repeated<'_>>,
    metric: &str,
    values: &[f64],
    share: Option<usize>,
) -> Option<[f64; 2]> {
    let [low, high] = scores.and_then(|scores| interval(scores, metric)).or_else(|| student(values))?;
    match share {
        Some(n) if low == high => wilson(low, n),
        Some(_) => Some(of_a_share([low, high])),
        None => Some([low, high]),
    }
}

/// Which of several is the best where no records are known, by their values and 95 % intervals: the most, or, with `least`, the least; shown only where its
/// interval meets no other. That asks for more than a paired test would.
pub fn best_apart(of: &[(f64, [f64; 2])], least: bool) -> Best {
    let above = |a: &(f64, [f64; 2]), b: &(f64, [f64; 2])| if least { a.1[1] < b.1[0] } else { a.1[0] > b.1[1] };
    let shown = |&at: &usize| of.iter().enumerate().all(|(other, one)| other == at || above(&of[at], one));
    if of.len() < 2 { Best::NotShown } else { (0..of.len()).find(shown).map_or(Best::NotShown, Best::Shown) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wilson;

    fn near(value: f64, expect: f64, within: f64) {
        assert!((value - expect).abs() < within, "{value} is not {expect}");
    }

    /// By hand from Wilson's formula; statsmodels' `proportion_confint(…, method="wilson")` gives the same.
    #[test]
    fn shares() {
        let check = |k: f64, n: usize, expect: [f64; 2]| {
            let [low, high] = wilson(k / n as f64, n).unwrap();
            near(low, expect[0], 1e-6);
            near(high, expect[1], 1e-6);
        };
        check(8.0, 10, [0.490_162_5, 0.943_317_8]);
        check(10.0, 10, [0.722_467_2, 1.0]);
        check(0.0, 10, [0.0, 0.277_532_8]);
        assert_eq!(wilson(0.5, 0), None);
    }

    /// Tables of Student's t.
    #[test]
    fn seeds() {
        for (freedom, expect) in [(1, 12.706_205), (2, 4.302_653), (3, 3.182_446), (4, 2.776_445), (30, 2.042_272)] {
            near(student_quantile(freedom), expect, 1e-5);
        }
        assert_eq!(mean_and_deviation(&[1.0, 2.0, 3.0]), Some((2.0, Some(1.0))));
        assert_eq!((mean_and_deviation(&[4.0]), mean_and_deviation(&[])), (Some((4.0, None)), None));
        let [low, high] = student(&[1.0, 2.0, 3.0]).unwrap();
        near(low, 2.0 - 4.302_653 / 3.0_f64.sqrt(), 1e-5);
        near(high, 2.0 + 4.302_653 / 3.0_f64.sqrt(), 1e-5);
        assert_eq!(student(&[1.0]), None);
    }

    /// Binomial tails by hand: 2 (1 + 9) / 2⁹ and so on.
    #[test]
    fn successes() {
        near(mcnemar(1, 8), 20.0 / 512.0, 1e-12);
        near(mcnemar(8, 1), 20.0 / 512.0, 1e-12);
        near(mcnemar(0, 5), 2.0 / 32.0, 1e-12);
        assert_eq!((mcnemar(0, 0), mcnemar(4, 4)), (1.0, 1.0));
        assert!(mcnemar(1000, 3000) < 1e-100 && mcnemar(3000, 3001) > 0.9);
    }

    /// All signs of three differences: 6 and −6 of eight sums reach 6; the same by the random way, to its own accuracy.
    #[test]
    fn signs() {
        near(sign_flip(&[1.0, 2.0, 3.0], 10), 2.0 / 8.0, 1e-12);
        near(sign_flip(&[1.0, -2.0, 3.0, 0.0], 10), 6.0 / 8.0, 1e-12);
        assert_eq!((sign_flip(&[], 10), sign_flip(&[0.0], 10)), (1.0, 1.0));
        // For equal differences flips are coins: 2 · 2⁻¹³, below what the draws can tell; and three against ten.
        assert!(sign_flip(&[1.0; 13], 2000) < 0.003);
        let mixed: Vec<f64> = (0..13).map(|i| if i < 3 { -1.0 } else { 1.0 }).collect();
        near(sign_flip(&mixed, 100_000), mcnemar(3, 10), 0.005);
    }

    /// By hand: differences 1, 2, 3 have t = 2 √3 with two degrees of freedom, and p = 1 − t / √(t² + 2).
    #[test]
    fn pairs_without_records() {
        let ([low, high], p) = paired_values(&[(0.0, 1.0), (5.0, 7.0), (1.0, 4.0)]).unwrap();
        near(low, 2.0 - 4.302_653 / 3.0_f64.sqrt(), 1e-5);
        near(high, 2.0 + 4.302_653 / 3.0_f64.sqrt(), 1e-5);
        near(p, 1.0 - (12.0_f64 / 14.0).sqrt(), 1e-12);
        assert!(!is_shown([low, high], p), "0 lies within");
        assert_eq!(paired_values(&[(0.0, 1.0)]), None);
        assert_eq!(paired_values(&[(0.1, 0.2), (0.2, 0.3)]), None, "nothing is known of chance");
    }

    /// What is known of repetitions alone.
    #[test]
    fn repetitions_without_records() {
        assert_eq!(over_repetitions(None, "accuracy", &[0.0; 3], Some(10)), wilson(0.0, 10));
        let [low, high] = over_repetitions(None, "accuracy", &[0.5, 1.0, 1.0], Some(10)).unwrap();
        assert!(low > 0.0 && low < 0.5 && high == 1.0, "{low} {high}");
        assert_eq!(over_values(&[0.0, 1.0], true), Some([0.0, 1.0]));
        assert!(over_values(&[0.0, 1.0], false).unwrap()[1] > 1.0 && over_values(&[0.5, 0.5], true).is_none());
        let [_, high] = over_repetitions(None, "relative_norm", &[3.0, 4.0, 5.0], None).unwrap();
        assert!(high > 5.0);
        assert_eq!(over_repetitions(None, "norm", &[3.0], None), None);
        let of = [(1.0, [0.5, 1.5]), (3.0, [2.5, 3.5]), (2.0, [1.9, 2.1])];
        assert_eq!((best_apart(&of, false), best_apart(&of, true)), (Best::Shown(1), Best::Shown(0)));
        let near = [(1.0, [0.5, 1.5]), (1.2, [0.7, 1.7])];
        assert_eq!((best_apart(&near, false), best_apart(&near[..1], false)), (Best::NotShown, Best::NotShown));
    }

    /// statsmodels' `multipletests(…, method="holm")`.
    #[test]
    fn many() {
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (p, expect) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            near(*p, expect, 1e-12);
        }
        assert_eq!(holm(&[0.6, 0.9]), [1.0, 1.0]);
    }

    fn scored(likelihoods: &[(f64, f64)]) -> Scored {
        let record = |(i, &(new, old)): (usize, &(f64, f64))| {
            let score = |nll: f64| serde_json::json!({ "nll": nll, "said": [2], "hits": 0 });
            let asked = serde_json::json!({ "prompt": "p", "new": score(new), "old": score(old) });
            serde_json::from_value(serde_json::json!({
                "id": i.to_string(), "rewrite": [asked], "paraphrase": [], "neighborhood": [],
            }))
            .unwrap()
        };
        Scored::new(&likelihoods.iter().enumerate().map(record).collect::<Vec<_>>(), &[])
    }

    #[test]
    fn pairs() {
        let side = |good: usize, of: usize| {
            scored(&(0..of).map(|i| if i < good { (0.1, 2.0) } else { (2.0, 0.1) }).collect::<Vec<_>>())
        };
        let (all, few, most) = (side(20, 20), side(4, 20), side(19, 20));
        let one = |scored| -> Repeated<'_> { vec![(String::new(), scored)] };
        let found = paired(&one(&few), &one(&all), "ES").unwrap();
        assert_eq!((found.n, found.repetitions, found.difference), (20, 1, 0.8));
        near(found.p, mcnemar(16, 0), 1e-12);
        assert!(found.interval[0] > 0.5 && found.shown(found.p));
        // One record of twenty is no difference, and the star says nothing.
        let close = paired(&one(&most), &one(&all), "ES").unwrap();
        assert!(close.interval[0] <= 0.0 && close.p == 1.0 && !close.shown(close.p), "{close:?}");
        assert_eq!(best(&[one(&few), one(&all)], "ES", false), Best::Shown(1));
        assert_eq!(best(&[one(&few), one(&all)], "ES", true), Best::Shown(0));
        assert_eq!(best(&[one(&few), one(&all), one(&most)], "ES", false), Best::NotShown);
        assert_eq!(best(&[one(&few)], "unheard_of", false), Best::Untested);
        // Repetitions are paired by what they are called.
        let many = |a, b| -> Repeated<'_> { vec![("1".into(), a), ("2".into(), b)] };
        let found = paired(&many(&few, &most), &many(&most, &all), "ES").unwrap();
        assert_eq!(found.repetitions, 2);
        near(found.difference, 0.4, 1e-12);
        let [low, high] = interval(&many(&few, &all), "ES").unwrap();
        assert!(low < 0.3 && high == 1.0, "{low} {high}");
        assert_eq!((all.n("ES"), all.n("PS"), all.n("x")), (Some(20), Some(0), None));
        // What all agree on is no point.
        assert_eq!(interval(&many(&all, &all), "ES"), wilson(1.0, 20));
    }
}
