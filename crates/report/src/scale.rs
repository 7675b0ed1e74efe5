//! From values to places along an axis, with ticks that people would have chosen.

use crate::number::{short, ten};

/// A scale: straight or logarithmic.
#[derive(Clone, Debug)]
pub struct Scale {
    low: f64,
    high: f64,
    log: bool,
    /// Where ticks stand, and what they say.
    pub ticks: Vec<(f64, String)>,
}

/// A span of more than this factor is drawn logarithmically, where all values are above 0.
const LOG_FROM: f64 = 15.0;
/// No more ticks than this.
const MOST_TICKS: usize = 8;

impl Scale {
    /// For measurements: a little wider than they are, ticks on round numbers. Shares, in percent, do not leave 0 to 100.
    pub fn values(values: impl Iterator<Item = f64> + Clone, percent: bool) -> Self {
        let (low, high) = extent(values);
        // What is below 0 by rounding alone, beside what is far above it, is 0.
        let low = if low < 0.0 && -low < 1e-4 * high { 0.0 } else { low };
        if !percent && low > 0.0 && high / low > 1000.0 {
            return Self::decades(low, high);
        }
        let factor = if percent { 100.0 } else { 1.0 };
        let (low, high) = (low * factor, high * factor);
        // One value alone gets some room around it.
        let room = if high > low { 0.0 } else { high.abs().max(1e-9) * 0.1 };
        let lowest = low;
        let (low, high) = (low - room, high + room);
        let width = high - low;
        let step = step(width, 5.0);
        let mut from = ((low - 0.02 * width) / step).floor() * step;
        let mut to = ((high + 0.02 * width) / step).ceil() * step;
        if percent {
            (from, to) = (from.max(0.0), to.min(100.0));
        } else if lowest >= 0.0 {
            from = from.max(0.0);
        }
        if to <= from {
            to = from + step;
        }
        let count = ((to - from) / step).round() as usize;
        let decimals = usize::try_from(-(step.log10() + 1e-9).floor() as i64).unwrap_or(0).min(9);
        let odd = (step / 10f64.powf(step.log10().floor()) - 2.5).abs() < 1e-6;
        let decimals = if odd { decimals + 1 } else { decimals };
        let tick = |i: usize| {
            let value = from + step * i as f64;
            let text = if value.abs() >= 1e5 || step < 1e-4 {
                short(value)
            } else {
                format!("{value:.decimals$}").replace('-', "−")
            };
            (value / factor, text)
        };
        Self { low: from / factor, high: to / factor, log: false, ticks: (0..=count).map(tick).collect() }
    }

    /// For the levels of an axis: ticks on the levels themselves where they are few.
    pub fn levels(levels: &[f64]) -> Self {
        let (low, high) = extent(levels.iter().copied());
        let mut own: Vec<f64> = levels.to_vec();
        own.sort_by(f64::total_cmp);
        own.dedup();
        // Steps of a sequence are even, however far they reach; sweeps of factors have one gap that dwarfs the others.
        let gap = own.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        let log = low > 0.0 && high / low >= LOG_FROM && gap > 0.35 * (high - low);
        let text = |value: f64| if log { power(value).unwrap_or_else(|| short(value)) } else { short(value) };
        let mut scale = if own.len() <= MOST_TICKS {
            Self { low, high, log, ticks: own.iter().map(|&value| (value, text(value))).collect() }
        } else if log {
            Self::decades(low, high)
        } else {
            Self::values(levels.iter().copied(), false)
        };
        if !scale.log && high > low {
            // Points stand a little inside the frame.
            scale.low = scale.low.min(low - 0.04 * (high - low));
            scale.high = scale.high.max(high + 0.04 * (high - low));
        } else if scale.log {
            scale.low = scale.low.min(low / (high / low).powf(0.04));
            scale.high = scale.high.max(high * (high / low).powf(0.04));
        } else {
            (scale.low, scale.high) = (low - 0.5, high + 0.5);
        }
        scale
    }

    fn decades(low: f64, high: f64) -> Self {
        let (from, to) = (low.log10().floor() as i32, high.log10().ceil() as i32);
        let every = ((to - from) as usize).div_ceil(MOST_TICKS).max(1);
        let tick = |exponent: i32| {
            let value = 10f64.powi(exponent);
            (value, power(value).unwrap_or_else(|| short(value)))
        };
        let ticks = (from..=to).step_by(every).map(tick).collect();
        Self { low: 10f64.powi(from), high: 10f64.powi(to), log: true, ticks }
    }

    /// The place of a value: 0 at the low end, 1 at the high one; what lies outside is put at the end.
    pub fn at(&self, value: f64) -> f64 {
        let bend = |value: f64| if self.log { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let (low, high) = (bend(self.low), bend(self.high));
        let place = (bend(value) - low) / (high - low);
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Whether it is logarithmic.
    pub fn is_log(&self) -> bool {
        self.log
    }
}

/// A large or small power of ten, as such.
fn power(value: f64) -> Option<String> {
    let power = value.log10().round() as i32;
    (power.abs() >= 3 && (value / 10f64.powi(power) - 1.0).abs() < 1e-9).then(|| ten(power))
}

/// The least and the greatest; 0 and 1 of nothing.
fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values = values.filter(|value| value.is_finite());
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), value| (l.min(value), h.max(value)));
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

/// A round step that cuts a width into about so many parts.
fn step(width: f64, parts: f64) -> f64 {
    let rough = (width / parts).max(1e-300);
    let power = 10f64.powf(rough.log10().floor());
    let nice = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|nice| nice * power >= rough * 0.999);
    nice.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scale: &Scale, expect: &str) {
        let ticks: Vec<&str> = scale.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(ticks.join(" "), expect);
    }

    #[test]
    fn ticks_are_round() {
        check(&Scale::values([0.31, 0.98].into_iter(), true), "20 40 60 80 100");
        check(&Scale::values([0.0, 1.0].into_iter(), true), "0 20 40 60 80 100");
        check(&Scale::values([0.5, 0.5].into_iter(), true), "44 46 48 50 52 54 56");
        check(&Scale::values([-0.2, 0.31].into_iter(), false), "−0.4 −0.2 0.0 0.2 0.4");
        check(&Scale::values([1.0, 1e5].into_iter(), false), "1 10 100 10³ 10⁴ 10⁵");
        check(&Scale::values(std::iter::empty(), false), "0.0 0.2 0.4 0.6 0.8 1.0 1.2");
        check(&Scale::levels(&[1.0, 4.0, 16.0, 64.0]), "1 4 16 64");
        check(&Scale::levels(&(1..=40).map(f64::from).collect::<Vec<_>>()), "0 10 20 30 40 50");
        check(&Scale::levels(&[f64::NAN]), "–");
    }

    #[test]
    fn places_stay_inside() {
        let scale = Scale::levels(&[1.0, 10.0, 100.0]);
        assert!(scale.is_log());
        assert!((scale.at(10.0) - 0.5).abs() < 1e-9);
        assert!(scale.at(-1.0) == 0.0 && scale.at(f64::INFINITY) <= 1.0);
    }
}
