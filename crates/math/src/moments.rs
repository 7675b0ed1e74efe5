//! The uncentred second moment of a layer's keys.

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
/// # Halves
/// How far `C` would be another on other text of the same kind shows in two halves of the text. So a sum that grows from nothing also keeps that of
/// its odd units, above its diagonal, where a symmetric matrix has room: what is added between [`SecondMoment::begin_odd`] and
/// [`SecondMoment::end_odd`].
#[derive(Clone, Debug)]
pub struct SecondMoment {
    /// The sum is its lower triangle. What is above the diagonal is the odd units' sum where `odd` is known, and else means nothing.
    sum: Mat<f64>,
    count: u64,
    odd: Option<Odd>,
}

/// What there is of the odd units' sum beside what lies above the diagonal.
#[derive(Clone, Debug, PartialEq)]
struct Odd {
    diagonal: Vec<f64>,
    /// Tokens of them; while an odd unit is added, less all that were there before.
    count: i64,
}

/// Rows and columns that are taken at a time where a matrix is read across.
const TILE: usize = 64;

impl SecondMoment {
    /// Of no tokens yet, for keys of size `f`.
    pub fn new(f: usize) -> Self {
        Self { sum: Mat::zeros(f, f), count: 0, odd: Some(Odd { diagonal: vec![0.0; f], count: 0 }) }
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
        let f = self.size();
        let Some(odd) = &mut self.odd else { return };
        odd.count += times as i64 * self.count as i64;
        for (i, to) in odd.diagonal.iter_mut().enumerate() {
            *to += times * self.sum[(i, i)];
        }
        let sum = &mut self.sum;
        for_each_below(f, |i, j| sum[(j, i)] += times * sum[(i, j)]);
    }

    /// Adds the sum of odd units, and their tokens, that were summed elsewhere, row-major `[f, f]`, symmetric: to what is known of them alone.
    ///
    /// # Errors
    /// [`MathError::Dimension`], [`MathError::NotFinite`].
    pub fn with_odd(mut self, sum: &[f64], count: u64) -> Result<Self, MathError> {
        let f = self.size();
        if sum.len() != f * f {
            return Err(MathError::Dimension { what: "sum of odd units", found: sum.len(), expected: f * f });
        }
        if !sum.iter().all(|value| value.is_finite()) {
            return Err(MathError::NotFinite { what: "sum of odd units" });
        }
        let diagonal = (0..f).map(|i| sum[i * f + i]).collect();
        for j in 0..f {
            // Of a symmetric matrix a row is a column.
            self.sum.col_as_slice_mut(j)[..j].copy_from_slice(&sum[j * f..j * f + j]);
        }
        self.odd = Some(Odd { diagonal, count: count as i64 });
        Ok(self)
    }

    /// Row `i` as it is kept: the sum up to the diagonal, and behind that the odd units' sum, where it is known.
    pub fn kept_row(&self, i: usize) -> impl Iterator<Item = f64> + '_ {
        (0..self.size()).map(move |j| self.sum[(i, j)])
    }

    /// The odd units' sum on the diagonal, and their tokens, where they are known.
    pub fn kept_odd(&self) -> Option<(&[f64], u64)> {
        let odd = self.odd.as_ref()?;
        Some((&odd.diagonal, u64::try_from(odd.count).ok()?))
    }

    /// From rows as [`SecondMoment::kept_row`] gives them, row-major `f × f`, with the count; and the odd units' diagonal and count.
    ///
    /// # Errors
    /// [`MathError::Dimension`], [`MathError::NotFinite`].
    pub fn from_kept(rows: &[f64], count: u64, odd: (&[f64], u64)) -> Result<Self, MathError> {
        let f = odd.0.len();
        let what = "second moment with its halves";
        if rows.len() != f * f {
            return Err(MathError::Dimension { what, found: rows.len(), expected: f * f });
        }
        if !rows.iter().chain(odd.0).all(|value| value.is_finite()) {
            return Err(MathError::NotFinite { what });
        }
        let sum = Mat::from_fn(f, f, |i, j| rows[i * f + j]);
        Ok(Self { sum, count, odd: Some(Odd { diagonal: odd.0.to_vec(), count: odd.1 as i64 }) })
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

    /// How far the halves are from each other: `‖C₁ − C₂‖ / ‖C‖` in the Frobenius norm, of the even units' `C₁` and the odd ones' `C₂`. With
    /// halves that are independent, `C` is off by half of it. None where the halves are not known, or one of them is empty.
    pub fn difference(&self) -> Option<f64> {
        let odd = self.odd.as_ref()?;
        let (two, all) = (odd.count as f64, self.count as f64);
        let one = all - two;
        if two <= 0.0 || one <= 0.0 {
            return None;
        }
        let f = self.size();
        let mut sums = [0.0; 2];
        let mut add = |whole: f64, odd: f64, times: f64| {
            let apart = (whole - odd) / one - odd / two;
            sums[0] += times * apart * apart;
            sums[1] += times * (whole / all) * (whole / all);
        };
        for (i, &there) in odd.diagonal.iter().enumerate() {
            add(self.sum[(i, i)], there, 1.0);
        }
        for_each_below(f, |i, j| add(self.sum[(i, j)], self.sum[(j, i)], 2.0));
        (sums[1] > 0.0).then(|| (sums[0] / sums[1]).sqrt())
    }

    /// From a stored sum (row-major `f × f`, symmetric) and count.
    ///
    /// # Errors
    /// [`MathError::Dimension`], [`MathError::NotFinite`].
    pub fn from_sum(sum: &[f64], f: usize, count: u64) -> Result<Self, MathError> {
        let mut whole = Self { sum: Mat::zeros(f, f), count, odd: None };
        whole.each_column("second moment", sum, |to, from| to.copy_from_slice(from))?;
        Ok(whole)
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
        Ok(Self { sum, count, odd: None })
    }

    /// Row `i` of the sum, `f` values.
    pub fn row(&self, i: usize) -> impl Iterator<Item = f64> + '_ {
        (0..self.size()).map(move |j| self.sum[(i.max(j), i.min(j))])
    }

    /// Adds a block of keys, row-major `[tokens, f]`.
    ///
    /// # Errors
    /// [`MathError::Dimension`], [`MathError::NotFinite`].
    pub fn add(&mut self, keys: &[f32]) -> Result<(), MathError> {
        let f = self.size();
        let tokens = keys.len().checked_div(f).unwrap_or(0);
        // Column-major f × tokens is the same memory as row-major tokens × f.
        let block = from_row_major("key block", keys, tokens, f)?;
        matmul(
            self.sum.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Add,
            block.transpose(),
            BlockStructure::Rectangular,
            block.as_ref(),
            BlockStructure::Rectangular,
            1.0,
            faer::get_global_parallelism(),
        );
        self.count += tokens as u64;
        Ok(())
    }

    /// Adds `Σ k kᵀ` of `tokens` keys by a product of someone else's: `add` is given the sum's columns, of `f` numbers each, and adds to their numbers
    /// from the diagonal down, and to no others.
    pub fn add_by(&mut self, tokens: u64, add: impl FnOnce(&mut [&mut [f64]])) {
        let mut columns: Vec<&mut [f64]> =
            self.sum.col_iter_mut().filter_map(|column| Some(column.try_as_col_major_mut()?.as_slice_mut())).collect();
        add(&mut columns);
        self.count += tokens;
    }

    /// Adds `Σ k kᵀ` of `tokens` keys that was summed elsewhere, row-major `[f, f]`, symmetric.
    ///
    /// # Errors
    /// [`MathError::Dimension`], [`MathError::NotFinite`].
    pub fn add_sum(&mut self, sum: &[f32], tokens: u64) -> Result<(), MathError> {
        self.each_column("sum of key products", sum, |to, from| {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += f64::from(*from));
        })?;
        self.count += tokens;
        Ok(())
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

    /// Adds the moment of other documents.
    ///
    /// # Errors
    /// [`MathError::Dimension`] where the key sizes differ.
    pub fn merge(&mut self, other: &Self) -> Result<(), MathError> {
        check_size("second moment to merge", other.size(), self.size())?;
        self.sum += &other.sum;
        self.count += other.count;
        match (&mut self.odd, &other.odd) {
            (Some(odd), Some(other)) => {
                odd.count += other.count;
                odd.diagonal.iter_mut().zip(&other.diagonal).for_each(|(to, from)| *to += from);
            }
            _ => self.odd = None,
        }
        Ok(())
    }

    /// Key size `f`.
    pub fn size(&self) -> usize {
        self.sum.nrows()
    }

    /// Number of tokens.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The sum, row-major, symmetric.
    pub fn sum(&self) -> Vec<f64> {
        let f = self.size();
        let mut values = vec![0.0; f * f];
        for j in 0..f {
            for i in j..f {
                values[i * f + j] = self.sum[(i, j)];
                values[j * f + i] = self.sum[(i, j)];
            }
        }
        values
    }

    /// `C = sum / count`, symmetric; zero for no tokens.
    pub fn mean(&self) -> Mat<f64> {
        let scale = 1.0 / self.count.max(1) as f64;
        Mat::from_fn(self.size(), self.size(), |i, j| scale * self.sum[(i.max(j), i.min(j))])
    }

    /// Trace of `C`: the mean squared norm of a key.
    pub fn trace(&self) -> f64 {
        (0..self.size()).map(|i| self.sum[(i, i)]).sum::<f64>() / self.count.max(1) as f64
    }

    /// Whether `C` is the identity, to the last bit of the sum.
    pub fn is_identity(&self) -> bool {
        let f = self.size();
        let one = self.count as f64;
        (0..f).all(|j| self.sum[(j, j)] == one && (j + 1..f).all(|i| self.sum[(i, j)] == 0.0))
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
            let rows: Vec<f64> = (0..f).flat_map(|i| whole.kept_row(i)).collect();
            let kept = SecondMoment::from_kept(&rows, whole.count(), whole.kept_odd().unwrap()).unwrap();
            assert_eq!((kept.sum(), kept.difference()), (whole.sum(), whole.difference()));
            let odd = whole.odd().unwrap();
            let read = read.with_odd(&odd.sum(), odd.count()).unwrap();
            assert_eq!(read.difference(), whole.difference());
            parts.merge(&SecondMoment::from_sum(&whole.sum(), f, whole.count()).unwrap()).unwrap();
            assert!(parts.even().is_none(), "of a sum whose halves are not known");
        }
    }
}
