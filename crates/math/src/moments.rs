//! The uncentred second moment of a layer's keys.

use std::ops::Range;

use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, Side};

use crate::MathError;
use crate::matrix::{check_finite, check_size, from_row_major};

/// How far rounding may take an entry, relative to its bound: half precision rounds to one part in 2048, and sums on an
/// accelerator are not symmetric to the last bit.
const ROUNDING: f64 = 0.01;

/// Sum of `k kᵀ` over tokens, `f × f` in f64, with the count of tokens; `C` is their quotient.
///
/// The sum is kept rather than the mean since sums over disjoint documents add: that is how the work is split, resumed,
/// extended and merged.
///
/// Where a key has parts of which a token uses a few, as with a mixture of experts, the sum is kept of each part by itself: `C` is
/// block-diagonal, with `Σ k kᵀ / N` of a part's tokens over the count `N` of *all* tokens, and what two parts do together is left out.
///
/// # Halves
/// How far `C` would be another on other text of the same kind shows in two halves of the text. So a sum that grows from nothing also keeps that of
/// its odd units, above its diagonal, where a symmetric matrix has room: what is added between [`SecondMoment::begin_odd`] and
/// [`SecondMoment::end_odd`]. Of keys in parts, each part has its own.
#[derive(Clone, Debug)]
pub struct SecondMoment {
    /// One behind the other along the diagonal; of most layers there is one.
    parts: Vec<Part>,
    count: u64,
    /// Tokens of the odd units, where all parts know their sums; while an odd unit is added, less all that were there before.
    odd: Option<i64>,
}

/// The sum over the keys of one part.
#[derive(Clone, Debug)]
struct Part {
    /// The sum is its lower triangle. What is above the diagonal is the odd units' sum where `odd` is known, and else means nothing.
    sum: Mat<f64>,
    /// Tokens that use the part.
    count: u64,
    odd: Option<Odd>,
}

/// What there is of the odd units' sum beside what lies above the diagonal.
#[derive(Clone, Debug, PartialEq)]
struct Odd {
    diagonal: Vec<f64>,
    /// Tokens of them that use the part; while an odd unit is added, less all that were there before.
    count: i64,
}

/// A part of a sum with its halves, as it is kept: see [`SecondMoment::from_kept`].
#[derive(Clone, Copy, Debug)]
pub struct KeptPart<'a> {
    /// Its rows, as [`SecondMoment::kept_rows`] gives them, row-major `f × f`.
    pub rows: &'a [f64],
    /// Tokens that use it.
    pub count: u64,
    /// The odd units' sum on the diagonal, and their tokens that use it, as [`SecondMoment::kept_odd`] gives them.
    pub odd: (&'a [f64], u64),
}

/// Rows and columns that are taken at a time where a matrix is read across.
const TILE: usize = 64;

impl Part {
    fn new(f: usize) -> Self {
        Self { sum: Mat::zeros(f, f), count: 0, odd: Some(Odd { diagonal: vec![0.0; f], count: 0 }) }
    }

    /// Adds the whole sum, so often, to that of the odd units.
    fn add_to_odd(&mut self, times: f64) {
        let f = self.size();
        let Some(odd) = &mut self.odd else { return };
        odd.count += times as i64 * self.count as i64;
        for (i, to) in odd.diagonal.iter_mut().enumerate() {
            *to += times * self.sum[(i, i)];
        }
        let sum = &mut self.sum;
        for_each_below(f, |i, j| sum[(j, i)] += times * sum[(i, j)]);
    }

    /// The sum of the odd units, or of the even ones, by itself.
    fn half(&self, is_odd: bool) -> Option<Self> {
        let odd = self.odd.as_ref()?;
        let f = self.size();
        let count = u64::try_from(odd.count).ok().filter(|count| *count <= self.count)?;
        let mut sum = Mat::zeros(f, f);
        for_each_below(f, |i, j| {
            let there = self.sum[(j, i)];
            sum[(i, j)] = if is_odd { there } else { self.sum[(i, j)] - there };
        });
        for (i, &there) in odd.diagonal.iter().enumerate() {
            sum[(i, i)] = if is_odd { there } else { self.sum[(i, i)] - there };
        }
        Some(Self { sum, count: if is_odd { count } else { self.count - count }, odd: None })
    }

    /// How far the halves are from each other, relative to the whole, where so many tokens are in the even units and in the odd ones.
    fn difference(&self, [one, two]: [f64; 2]) -> Option<f64> {
        let odd = self.odd.as_ref()?;
        let all = one + two;
        let mut sums = [0.0; 2];
        let mut add = |whole: f64, odd: f64, times: f64| {
            let apart = (whole - odd) / one - odd / two;
            sums[0] += times * apart * apart;
            sums[1] += times * (whole / all) * (whole / all);
        };
        for (i, &there) in odd.diagonal.iter().enumerate() {
            add(self.sum[(i, i)], there, 1.0);
        }
        for_each_below(self.size(), |i, j| add(self.sum[(i, j)], self.sum[(j, i)], 2.0));
        (sums[1] > 0.0).then(|| (sums[0] / sums[1]).sqrt())
    }

    fn size(&self) -> usize {
        self.sum.nrows()
    }

    /// Row `i`, of `f` values.
    fn row(&self, i: usize) -> impl Iterator<Item = f64> + '_ {
        (0..self.size()).map(move |j| self.sum[(i.max(j), i.min(j))])
    }

    /// Does `each` with every column of the sum, from the diagonal down, and the same values of a row-major symmetric matrix: of
    /// such a one a column is a row, and lies in memory as one piece.
    fn each_column<T: Copy + Into<f64>>(
        &mut self,
        what: &'static str,
        values: &[T],
        mut each: impl FnMut(&mut [f64], &[T]),
    ) -> Result<(), MathError> {
        let f = self.size();
        if values.len() != f * f {
            return Err(MathError::Dimension { what, found: values.len(), expected: f * f });
        }
        if !values.iter().all(|&value| value.into().is_finite()) {
            return Err(MathError::NotFinite { what });
        }
        for j in 0..f {
            each(&mut self.sum.col_as_slice_mut(j)[j..], &values[j * f + j..(j + 1) * f]);
        }
        Ok(())
    }

    fn stored(sum: &[f64], f: usize, count: u64) -> Result<Self, MathError> {
        let mut part = Self { sum: Mat::zeros(f, f), count, odd: None };
        part.each_column("second moment", sum, |to, from| to.copy_from_slice(from))?;
        Ok(part)
    }
}

impl SecondMoment {
    /// Of no tokens yet, for keys of size `f`.
    pub fn new(f: usize) -> Self {
        Self::in_parts(&[f])
    }

    /// Of no tokens yet, for keys that have parts of these sizes, of which a token uses some.
    pub fn in_parts(sizes: &[usize]) -> Self {
        Self { parts: sizes.iter().map(|&f| Part::new(f)).collect(), count: 0, odd: Some(0) }
    }

    /// What is added from now on belongs to an odd unit.
    pub fn begin_odd(&mut self) {
        self.add_to_odd(-1.0);
    }

    /// The odd unit is added.
    pub fn end_odd(&mut self) {
        self.add_to_odd(1.0);
    }

    /// Adds the whole sum, so often, to that of the odd units.
    fn add_to_odd(&mut self, times: f64) {
        let Some(odd) = &mut self.odd else { return };
        *odd += times as i64 * self.count as i64;
        self.parts.iter_mut().for_each(|part| part.add_to_odd(times));
    }

    /// Adds the sum of odd units, and their tokens, that were summed elsewhere, row-major `[f, f]`, symmetric, of keys in one part: to what is known of
    /// them alone.
    ///
    /// # Errors
    /// [`MathError::Dimension`], also for keys of several parts; [`MathError::NotFinite`].
    pub fn with_odd(mut self, sum: &[f64], count: u64) -> Result<Self, MathError> {
        check_size("parts of a key", self.parts.len(), 1)?;
        let f = self.size();
        if sum.len() != f * f {
            return Err(MathError::Dimension { what: "sum of odd units", found: sum.len(), expected: f * f });
        }
        if !sum.iter().all(|value| value.is_finite()) {
            return Err(MathError::NotFinite { what: "sum of odd units" });
        }
        for part in &mut self.parts {
            for j in 0..f {
                // Of a symmetric matrix a row is a column.
                part.sum.col_as_slice_mut(j)[..j].copy_from_slice(&sum[j * f..j * f + j]);
            }
            part.odd = Some(Odd { diagonal: (0..f).map(|i| sum[i * f + i]).collect(), count: count as i64 });
        }
        self.odd = Some(count as i64);
        Ok(self)
    }

    /// The rows of a part as they are kept, one behind the other: of each, the sum up to the diagonal, and behind that the odd units' sum, where it is
    /// known.
    pub fn kept_rows(&self, part: usize) -> impl Iterator<Item = f64> + '_ {
        let part = &self.parts[part];
        (0..part.size()).flat_map(move |i| (0..part.size()).map(move |j| part.sum[(i, j)]))
    }

    /// The odd units' sum of a part on the diagonal, and their tokens that use it, where they are known.
    pub fn kept_odd(&self, part: usize) -> Option<(&[f64], u64)> {
        let odd = self.parts[part].odd.as_ref()?;
        Some((&odd.diagonal, u64::try_from(odd.count).ok()?))
    }

    /// The tokens of odd units, where their sums are known.
    pub fn odd_count(&self) -> Option<u64> {
        u64::try_from(self.odd?).ok()
    }

    /// From parts as they are kept, with the count of all tokens and that of those in odd units.
    ///
    /// # Errors
    /// [`MathError::Dimension`], [`MathError::NotFinite`].
    pub fn from_kept<'a>(
        parts: impl IntoIterator<Item = KeptPart<'a>>,
        (count, odd): (u64, u64),
    ) -> Result<Self, MathError> {
        let what = "second moment with its halves";
        let part = |kept: KeptPart<'_>| {
            let (diagonal, odd) = kept.odd;
            let f = diagonal.len();
            if kept.rows.len() != f * f {
                return Err(MathError::Dimension { what, found: kept.rows.len(), expected: f * f });
            }
            if !kept.rows.iter().chain(diagonal).all(|value| value.is_finite()) {
                return Err(MathError::NotFinite { what });
            }
            let sum = Mat::from_fn(f, f, |i, j| kept.rows[i * f + j]);
            let odd = Some(Odd { diagonal: diagonal.to_vec(), count: odd as i64 });
            Ok(Part { sum, count: kept.count, odd })
        };
        let parts = parts.into_iter().map(part).collect::<Result<_, _>>()?;
        Ok(Self { parts, count, odd: Some(odd as i64) })
    }

    /// Whether the sums of even and odd units are known.
    pub fn has_halves(&self) -> bool {
        self.odd.is_some()
    }

    /// The odd units' sum by itself, where it is known.
    pub fn odd(&self) -> Option<Self> {
        self.half(true)
    }

    /// The even units' sum by itself, where it is known.
    pub fn even(&self) -> Option<Self> {
        self.half(false)
    }

    fn half(&self, is_odd: bool) -> Option<Self> {
        let odd = self.odd_count().filter(|odd| *odd <= self.count)?;
        let parts = self.parts.iter().map(|part| part.half(is_odd)).collect::<Option<_>>()?;
        Some(Self { parts, count: if is_odd { odd } else { self.count - odd }, odd: None })
    }

    /// How far the halves are from each other: `‖C₁ − C₂‖ / ‖C‖` in the Frobenius norm, of the even units' `C₁` and the odd ones' `C₂`. With
    /// halves that are independent, `C` is off by half of it. None where the halves are not known, or one of them is empty.
    ///
    /// Of several parts it is that of the part where it is largest, among those that as many tokens use as they have dimensions: of the others
    /// nothing can be said, and there is no inverse of them either. None where there is no such part.
    pub fn difference(&self) -> Option<f64> {
        let (two, all) = (self.odd? as f64, self.count as f64);
        let one = all - two;
        if two <= 0.0 || one <= 0.0 {
            return None;
        }
        let several = self.parts.len() > 1;
        let seen = self.parts.iter().filter(|part| !several || part.count >= part.size() as u64);
        seen.filter_map(|part| part.difference([one, two])).reduce(f64::max)
    }

    /// From a stored sum (row-major `f × f`, symmetric) and count.
    ///
    /// # Errors
    /// [`MathError::Dimension`], [`MathError::NotFinite`].
    pub fn from_sum(sum: &[f64], f: usize, count: u64) -> Result<Self, MathError> {
        Ok(Self { parts: vec![Part::stored(sum, f, count)?], count, odd: None })
    }

    /// From the stored sums of parts, each row-major `f × f` and symmetric, with its size and the count of its tokens, and the count of all tokens.
    ///
    /// # Errors
    /// [`MathError::Dimension`], [`MathError::NotFinite`].
    pub fn from_part_sums<'a>(
        parts: impl IntoIterator<Item = (&'a [f64], usize, u64)>,
        count: u64,
    ) -> Result<Self, MathError> {
        let parts = parts.into_iter().map(|(sum, f, count)| Part::stored(sum, f, count));
        Ok(Self { parts: parts.collect::<Result<_, _>>()?, count, odd: None })
    }

    /// From a stored sum read row by row, for one that is too large to lie in memory twice: `next` fills row `i` of `f`
    /// values.
    ///
    /// # Errors
    /// What `next` gives; [`MathError::NotFinite`]; [`MathError::NotAMoment`] for a matrix that is no sum of `k kᵀ`: a
    /// negative diagonal entry, one that is not symmetric, or an off-diagonal entry beyond the bound of Cauchy and Schwarz.
    pub fn from_rows<E: From<MathError>>(
        f: usize,
        count: u64,
        mut next: impl FnMut(usize, &mut [f64]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut sum = Mat::zeros(f, f);
        for i in 0..f {
            // Of a symmetric matrix a column is a row.
            next(i, sum.col_as_slice_mut(i))?;
        }
        check_finite("second moment", sum.as_ref())?;
        check_moment(&sum)?;
        Ok(Self { parts: vec![Part { sum, count, odd: None }], count, odd: None })
    }

    /// Row `i` of the sum, `f` values: 0 outside its part.
    pub fn row(&self, i: usize) -> impl Iterator<Item = f64> + '_ {
        let all = self.ranges().zip(&self.parts);
        all.flat_map(move |(range, part)| {
            range.clone().map(move |j| {
                let at = |index: usize| index - range.start;
                if range.contains(&i) { part.sum[(at(i.max(j)), at(i.min(j)))] } else { 0.0 }
            })
        })
    }

    /// Adds a block of keys, row-major `[tokens, f]`. A token uses a part where the part of its key is not 0.
    ///
    /// # Errors
    /// [`MathError::Dimension`], [`MathError::NotFinite`].
    pub fn add(&mut self, keys: &[f32]) -> Result<(), MathError> {
        let f = self.size();
        let tokens = keys.len().checked_div(f).unwrap_or(0);
        // Column-major f × tokens is the same memory as row-major tokens × f.
        let block = from_row_major("key block", keys, tokens, f)?;
        let ranges: Vec<Range<usize>> = self.ranges().collect();
        let several = ranges.len() > 1;
        for (part, range) in self.parts.iter_mut().zip(ranges) {
            let own = block.subcols(range.start, range.len());
            matmul(
                part.sum.as_mut(),
                BlockStructure::TriangularLower,
                Accum::Add,
                own.transpose(),
                BlockStructure::Rectangular,
                own,
                BlockStructure::Rectangular,
                1.0,
                faer::get_global_parallelism(),
            );
            let used = |token: usize| !several || (0..own.ncols()).any(|j| own[(token, j)] != 0.0);
            part.count += (0..tokens).filter(|&token| used(token)).count() as u64;
        }
        self.count += tokens as u64;
        Ok(())
    }

    /// Adds `Σ k kᵀ` of `tokens` keys of each part by a product of someone else's: `add` is given the part's number and the columns of its sum, of
    /// as many numbers as the part has, adds to their numbers from the diagonal down, and to no others, and gives the tokens that use the part.
    pub fn add_by(&mut self, tokens: u64, mut add: impl FnMut(usize, &mut [&mut [f64]]) -> u64) {
        for (number, part) in self.parts.iter_mut().enumerate() {
            let mut columns: Vec<&mut [f64]> = part
                .sum
                .col_iter_mut()
                .filter_map(|column| Some(column.try_as_col_major_mut()?.as_slice_mut()))
                .collect();
            part.count += add(number, &mut columns);
        }
        self.count += tokens;
    }

    /// Adds `Σ k kᵀ` of `tokens` keys that was summed elsewhere, row-major `[f, f]`, symmetric, of keys in one part.
    ///
    /// # Errors
    /// [`MathError::Dimension`], also for keys of several parts; [`MathError::NotFinite`].
    pub fn add_sum(&mut self, sum: &[f32], tokens: u64) -> Result<(), MathError> {
        check_size("parts of a key", self.parts.len(), 1)?;
        for part in &mut self.parts {
            part.each_column("sum of key products", sum, |to, from| {
                to.iter_mut().zip(from).for_each(|(to, from)| *to += f64::from(*from));
            })?;
            part.count += tokens;
        }
        self.count += tokens;
        Ok(())
    }

    /// Adds the moment of other documents.
    ///
    /// # Errors
    /// [`MathError::Dimension`] where the key sizes differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), MathError> {
        check_size("second moment to merge", other.size(), self.size())?;
        check_size("parts of the second moment to merge", other.parts.len(), self.parts.len())?;
        for (own, other) in self.parts.iter().zip(&other.parts) {
            check_size("part of the second moment to merge", other.size(), own.size())?;
        }
        for (own, other) in self.parts.iter_mut().zip(&other.parts) {
            own.sum += &other.sum;
            own.count += other.count;
            match (&mut own.odd, &other.odd) {
                (Some(odd), Some(other)) => {
                    odd.count += other.count;
                    odd.diagonal.iter_mut().zip(&other.diagonal).for_each(|(to, from)| *to += from);
                }
                _ => own.odd = None,
            }
        }
        self.count += other.count;
        self.odd = self.odd.zip(other.odd).map(|(own, other)| own + other);
        Ok(())
    }

    /// Key size `f`, of all parts together.
    pub fn size(&self) -> usize {
        self.parts.iter().map(Part::size).sum()
    }

    /// Number of tokens.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Parts of a key.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Where each part lies in a key.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.parts.iter().scan(0, |at, part| {
            *at += part.size();
            Some(*at - part.size()..*at)
        })
    }

    /// Tokens that use each part.
    pub fn part_counts(&self) -> Vec<u64> {
        self.parts.iter().map(|part| part.count).collect()
    }

    /// The rows of a part's sum, one behind the other.
    pub fn part_rows(&self, part: usize) -> impl Iterator<Item = f64> + '_ {
        let part = &self.parts[part];
        (0..part.size()).flat_map(move |i| part.row(i))
    }

    /// A part by itself, over all tokens: its `C` is the block of this one's. Of keys in one part, a copy without halves.
    pub fn part(&self, part: usize) -> Self {
        let own = &self.parts[part];
        Self { parts: vec![Part { sum: own.sum.clone(), count: self.count, odd: None }], count: self.count, odd: None }
    }

    /// The even units' half of a part by itself, or the odd ones', over all tokens of that half. None where the halves are not known, and, of keys in
    /// several parts, where fewer tokens of the half use the part than it has dimensions: sums that were rounded may have an inverse by luck.
    pub(crate) fn half_of(&self, part: usize, is_odd: bool) -> Option<Self> {
        let odd = self.odd_count().filter(|odd| *odd <= self.count)?;
        let mut half = self.parts[part].half(is_odd)?;
        if self.parts.len() > 1 && half.count < half.size() as u64 {
            return None;
        }
        half.count = if is_odd { odd } else { self.count - odd };
        Some(Self { count: half.count, parts: vec![half], odd: None })
    }

    /// The sum, row-major, symmetric.
    pub fn sum(&self) -> Vec<f64> {
        (0..self.size()).flat_map(|i| self.row(i)).collect()
    }

    /// `C = sum / count`, symmetric; zero for no tokens.
    pub fn mean(&self) -> Mat<f64> {
        let scale = 1.0 / self.count.max(1) as f64;
        let mut mean = Mat::zeros(self.size(), self.size());
        for (range, part) in self.ranges().zip(&self.parts) {
            let at = range.start;
            for j in 0..part.size() {
                for i in 0..part.size() {
                    mean[(at + i, at + j)] = scale * part.sum[(i.max(j), i.min(j))];
                }
            }
        }
        mean
    }

    /// [`SecondMoment::mean`], in the memory of the sum where there is one part.
    pub fn into_mean(mut self) -> Mat<f64> {
        let [part] = self.parts.as_mut_slice() else { return self.mean() };
        let scale = 1.0 / self.count.max(1) as f64;
        let mut mean = std::mem::replace(&mut part.sum, Mat::new());
        for j in 0..mean.ncols() {
            mean[(j, j)] *= scale;
        }
        for_each_below(mean.ncols(), |i, j| {
            mean[(i, j)] *= scale;
            mean[(j, i)] = mean[(i, j)];
        });
        mean
    }

    /// Trace of `C`: the mean squared norm of a key.
    pub fn trace(&self) -> f64 {
        let diagonal = self.parts.iter().flat_map(|part| (0..part.size()).map(|i| part.sum[(i, i)]));
        diagonal.sum::<f64>() / self.count.max(1) as f64
    }

    /// Whether `C` is the identity, to the last bit of the sum.
    pub fn is_identity(&self) -> bool {
        let one = self.count as f64;
        self.parts.iter().all(|part| {
            let f = part.size();
            (0..f).all(|j| part.sum[(j, j)] == one && (j + 1..f).all(|i| part.sum[(i, j)] == 0.0))
        })
    }

    /// Smallest and largest eigenvalue of `C`, or none where the iteration does not converge.
    pub fn extreme_eigenvalues(&self) -> Option<(f64, f64)> {
        let values = self.mean().self_adjoint_eigenvalues(Side::Lower).ok()?;
        Some((*values.first()?, *values.last()?))
    }
}

/// Every place below the diagonal of a matrix of `f` rows, tile by tile: a matrix is read in both directions, and one of them is across its
/// columns.
fn for_each_below(f: usize, mut each: impl FnMut(usize, usize)) {
    for columns in (0..f).step_by(TILE) {
        for rows in (columns..f).step_by(TILE) {
            for j in columns..f.min(columns + TILE) {
                for i in rows.max(j + 1)..f.min(rows + TILE) {
                    each(i, j);
                }
            }
        }
    }
}

/// Fails unless a finite matrix can be a sum of `k kᵀ`, up to the rounding of half precision.
fn check_moment(sum: &Mat<f64>) -> Result<(), MathError> {
    let f = sum.nrows();
    let wrong = |row, column, value, why| Err(MathError::NotAMoment { row, column, value, why });
    let roots: Vec<f64> = (0..f).map(|i| sum[(i, i)].sqrt()).collect();
    for j in 0..f {
        if sum[(j, j)] < 0.0 {
            return wrong(j, j, sum[(j, j)], "the diagonal holds sums of squares");
        }
        for i in j + 1..f {
            let bound = roots[i] * roots[j];
            if (sum[(i, j)] - sum[(j, i)]).abs() > ROUNDING * bound {
                return wrong(i, j, sum[(i, j)], "the entry across the diagonal is another");
            }
            if sum[(i, j)].abs() > (1.0 + ROUNDING) * bound {
                return wrong(i, j, sum[(i, j)], "the diagonal entries of its row and column are too small for it");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys of a unit, `[n, f]`.
    fn unit(number: usize, n: usize, f: usize) -> Vec<f32> {
        (0..n * f).map(|i| ((7 * number + 3 * i) % 11) as f32 / 4.0 - 1.0).collect()
    }

    /// In one piece, and in parts that are put together: the halves are the units' own sums.
    #[test]
    fn halves_are_the_sums_of_even_and_odd_units() {
        for f in [1, 3, TILE + 5] {
            let (mut whole, mut parts) = (SecondMoment::new(f), SecondMoment::new(f));
            let mut halves = [SecondMoment::new(f), SecondMoment::new(f)];
            assert_eq!(whole.difference(), None, "nothing is known of nothing");
            for number in 0..5 {
                let keys = unit(number, 4 + number, f);
                let mut part = SecondMoment::new(f);
                for moment in [&mut whole, &mut part] {
                    if number % 2 == 1 {
                        moment.begin_odd();
                    }
                    moment.add(&keys).unwrap();
                    if number % 2 == 1 {
                        moment.end_odd();
                    }
                }
                parts.merge(&part).unwrap();
                halves[number % 2].add(&keys).unwrap();
            }
            for moment in [&whole, &parts] {
                for (half, expect) in [moment.even().unwrap(), moment.odd().unwrap()].iter().zip(&halves) {
                    assert_eq!(half.count(), expect.count());
                    let far = half.sum().iter().zip(expect.sum()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(far < 1e-12 * whole.trace() * whole.count() as f64, "{far:e}");
                }
                let apart = halves[0].mean() - halves[1].mean();
                let expect = apart.norm_l2() / whole.mean().norm_l2();
                assert!((moment.difference().unwrap() - expect).abs() < 1e-9);
            }
            let read = SecondMoment::from_sum(&whole.sum(), f, whole.count()).unwrap();
            assert!(read.odd().is_none() && read.difference().is_none());
            let rows: Vec<f64> = whole.kept_rows(0).collect();
            let part = KeptPart { rows: &rows, count: whole.count(), odd: whole.kept_odd(0).unwrap() };
            let kept = SecondMoment::from_kept([part], (whole.count(), whole.odd_count().unwrap())).unwrap();
            assert_eq!((kept.sum(), kept.difference()), (whole.sum(), whole.difference()));
            let odd = whole.odd().unwrap();
            let read = read.with_odd(&odd.sum(), odd.count()).unwrap();
            assert_eq!(read.difference(), whole.difference());
            parts.merge(&SecondMoment::from_sum(&whole.sum(), f, whole.count()).unwrap()).unwrap();
            assert!(parts.even().is_none(), "of a sum whose halves are not known");
        }
    }
}
