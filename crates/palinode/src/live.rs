//! A run as it goes, from its event log: what is counted and how fast, and the curves that its stages told.

use palinode_engine::{Event, Runs};
use serde::Serialize;

/// Points of a curve or a history that are given; of more, some are left out evenly.
const POINTS: usize = 1000;

/// What a run told so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Live {
    /// What was and is counted, those begun first before the others; of each instance and name the last count.
    pub counts: Vec<Counted>,
    /// Curves, in the order of their first points.
    pub curves: Vec<Curve>,
    /// What it warned of.
    pub warnings: Vec<String>,
    /// When it was last heard of, in milliseconds since 1970.
    pub heard_ms: Option<u64>,
}

/// Units of work counted in a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Counted {
    /// The stage instance.
    pub instance: String,
    /// What is counted.
    pub what: String,
    /// How many are done.
    pub done: u64,
    /// How many of them were found from earlier work.
    pub kept: u64,
    /// How many there are, where known.
    pub total: Option<u64>,
    /// A short remark.
    pub note: String,
    /// When counting began, in milliseconds since 1970.
    pub started_ms: u64,
    /// When it was last told.
    pub at_ms: u64,
    /// Whether counting ended.
    pub ended: bool,
    /// Units a second since it began, without those from earlier work; `None` where nothing is known of it yet.
    pub rate: Option<f64>,
    /// Units a second between times that were told: milliseconds since 1970, rate.
    pub rates: Vec<[f64; 2]>,
}

/// A number that a stage told while it worked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Curve {
    /// The stage instance.
    pub instance: String,
    /// What was measured.
    pub what: String,
    /// What its steps are.
    pub step: String,
    /// Step and value, in the order they were told: where steps begin again, so does the curve.
    pub points: Vec<[f64; 2]>,
}

impl Live {
    /// What the run of this name told so far.
    pub fn of(runs: &Runs, run: &str) -> Self {
        let mut live = Self::default();
        for (at_ms, event) in runs.events(run) {
            live.hear(at_ms, event);
        }
        for count in &mut live.counts {
            let seconds = count.at_ms.saturating_sub(count.started_ms) as f64 / 1000.0;
            count.rate = rate(count.done - count.kept.min(count.done), seconds);
            thin(&mut count.rates);
        }
        live.curves.iter_mut().for_each(|curve| thin(&mut curve.points));
        live
    }

    fn hear(&mut self, at_ms: u64, event: Event) {
        self.heard_ms = Some(at_ms);
        if let Some(warning) = event.warning_line() {
            self.warnings.push(warning);
        }
        match event {
            Event::ProgressStarted { instance, what, total } => {
                self.counts.retain(|count| (&count.instance, &count.what) != (&instance, &what));
                self.counts.push(Counted {
                    instance,
                    what,
                    done: 0,
                    kept: 0,
                    total,
                    note: String::new(),
                    started_ms: at_ms,
                    at_ms,
                    ended: false,
                    rate: None,
                    rates: Vec::new(),
                });
            }
            Event::Progress { instance, what, done, kept, note, .. } => {
                let Some(count) = self.count(&instance, &what) else { return };
                let seconds = at_ms.saturating_sub(count.at_ms) as f64 / 1000.0;
                let fresh = (done - kept.min(done)).saturating_sub(count.done - count.kept.min(count.done));
                if let Some(rate) = rate(fresh, seconds) {
                    count.rates.push([at_ms as f64, rate]);
                }
                (count.done, count.kept, count.note, count.at_ms) = (done, kept, note, at_ms);
            }
            Event::ProgressEnded { instance, what, done, .. } => {
                let Some(count) = self.count(&instance, &what) else { return };
                (count.done, count.at_ms, count.ended) = (done, at_ms, true);
            }
            // A process that died says of no count that it ended.
            Event::StageFinished { instance, .. } => {
                let ended = self.counts.iter_mut().filter(|count| count.instance == instance);
                ended.for_each(|count| count.ended = true);
            }
            Event::Measured { instance, what, step, at, value } => {
                let known = self.curves.iter_mut().find(|curve| curve.instance == instance && curve.what == what);
                let point = [at as f64, value];
                match known {
                    Some(curve) => curve.points.push(point),
                    None => self.curves.push(Curve { instance, what, step, points: vec![point] }),
                }
            }
            _ => {}
        }
    }

    fn count(&mut self, instance: &str, what: &str) -> Option<&mut Counted> {
        self.counts.iter_mut().find(|count| count.instance == instance && count.what == what)
    }
}

fn rate(done: u64, seconds: f64) -> Option<f64> {
    (done > 0 && seconds > 0.0).then(|| done as f64 / seconds)
}

/// Leaves points out evenly; the last one stays.
fn thin(points: &mut Vec<[f64; 2]>) {
    let every = points.len().div_ceil(POINTS);
    if every > 1 {
        let last = points.len() - 1;
        let mut at = 0..;
        points.retain(|_| at.next().is_some_and(|at| at % every == 0 || at == last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_what_was_worked_on() {
        let mut live = Live::default();
        let (instance, what) = ("a".to_owned(), "records".to_owned());
        live.hear(1000, Event::ProgressStarted { instance: instance.clone(), what: what.clone(), total: Some(20) });
        let step = |done, kept| Event::Progress {
            instance: instance.clone(),
            what: what.clone(),
            done,
            kept,
            total: Some(20),
            note: String::new(),
        };
        live.hear(3000, step(10, 10));
        live.hear(5000, step(14, 10));
        assert_eq!(live.counts[0].rates, [[5000.0, 2.0]]);
        live.hear(5000, Event::ProgressEnded { instance, what, done: 14, seconds: 4.0 });
        assert!(live.counts[0].ended && live.heard_ms == Some(5000));
    }

    #[test]
    fn long_curves_keep_their_ends() {
        let mut points: Vec<[f64; 2]> = (0..2500).map(|at| [f64::from(at), 0.0]).collect();
        thin(&mut points);
        assert!(points.len() <= POINTS && points[0][0] == 0.0 && points[points.len() - 1][0] == 2499.0);
    }
}
