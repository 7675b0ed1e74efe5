//! Second moments over as many documents as are enough.
//!
//! After each unit the sum of even units is compared with that of odd ones (`SecondMoment::difference`), and the first unit's end where no
//! layer's halves differ by more than the tolerance ends the sample. (Of a mixture of experts, those of the expert that differs most.) Each unit
//! has a sum of its own, which begins at zero, and the units' sums are added in their order. So whoever computed a unit, another process or this
//! one before it was interrupted, the totals after each unit are the same to the last bit, and so is the unit that ends the sample. Processes that
//! share the work add up what all of them have kept, to know when to stop; units that were computed beyond the last one are dropped.

use std::collections::BTreeMap;

use palinode_data::Corpus;
use palinode_edit::{Moments, no_tokens};
use palinode_engine::{Error, Key, Progress, StageContext};
use palinode_math::SecondMoment;
use serde_json::{Value, json};

use crate::artifacts::model::Loaded;
use crate::artifacts::moments::Head;
use crate::errors::StageFailure;
use crate::measure::documents::{Saved, dimensions, unit};
use crate::measure::part_sums::UNIT;

/// Tokens for each of a key's dimensions below which nothing is enough.
pub const LEAST: u64 = 10;

/// Units beyond the last one in which others are looked for that other processes have computed.
const BEYOND: usize = 1024;

/// A sample that ends by itself.
pub struct UntilSure<'a> {
    pub cx: &'a StageContext,
    pub corpus: &'a mut Corpus,
    pub model: &'a Loaded,
    pub layers: &'a [usize],
    /// Tokens that a document is cut to.
    pub cut: usize,
    pub batch: usize,
    pub bar: &'a Progress,
    /// How far halves may differ.
    pub tolerance: f64,
    /// Documents that there are at most.
    pub documents: usize,
    /// The key of a layer's sums of this name.
    pub key: &'a dyn Fn(usize, &Value) -> Key,
}

/// A layer's sum over the units before `units`.
struct Total {
    units: usize,
    moment: SecondMoment,
}

/// What was measured.
pub struct Sure {
    /// Documents of it.
    pub documents: usize,
    /// The sums by layer.
    pub sums: BTreeMap<usize, SecondMoment>,
    /// How far the halves are from each other, where there are two.
    pub apart: Option<f64>,
    /// Whether that is near enough.
    pub reached: bool,
}

impl UntilSure<'_> {
    /// Measures until it is enough, or there are no more documents.
    ///
    /// # Errors
    /// What running the model, reading the corpus or the store failed at; when the user stops.
    pub fn measure(mut self) -> Result<Sure, Error> {
        let mut totals = self.kept();
        let mut saved = Saved::now();
        let mut found_there = 0;
        let mut next = totals.values().map(|total| total.units).min().unwrap_or(0);
        self.bar.keep((next * UNIT).min(self.documents) as u64);
        let mut apart_by = apart(&totals);
        let reached = loop {
            if self.is_enough(&totals, apart_by) {
                break true;
            }
            if next * UNIT >= self.documents {
                break false;
            }
            let lacking: Vec<usize> =
                totals.iter().filter(|(_, total)| total.units == next).map(|(layer, _)| *layer).collect();
            let (sums, found) = match self.unit_apart(next, &lacking) {
                Some(sums) => (sums, true),
                None => (self.unit(next, &lacking)?, false),
            };
            found_there += usize::from(found);
            self.count(next, found);
            add(&mut totals, next, sums)?;
            next += 1;
            apart_by = apart(&totals);
            let tokens = totals.values().map(|total| total.moment.count()).max().unwrap_or(0);
            let halves = apart_by.map(|by| format!(", halves differ by {by:.3}")).unwrap_or_default();
            self.bar.note(format!("{tokens} tokens{halves}"));
            let interrupted = self.cx.check_interrupt();
            if interrupted.is_err() || saved.long_ago() {
                saved = Saved::after(|| self.keep(&totals))?;
            }
            interrupted?;
        };
        if found_there > 0 {
            self.keep(&totals)?;
            for number in 0..next + BEYOND {
                self.layers.iter().for_each(|&layer| self.cx.drop_unit(&self.unit_key(layer, number)));
            }
        }
        let sums = totals.into_iter().map(|(layer, total)| (layer, total.moment)).collect();
        Ok(Sure { documents: (next * UNIT).min(self.documents), sums, apart: apart_by, reached })
    }

    /// Computes the units of a share, until all units that are kept by now are enough.
    ///
    /// # Errors
    /// As [`UntilSure::measure`].
    pub fn share(mut self) -> Result<(), Error> {
        let layers = self.layers.to_vec();
        let mut totals = self.kept();
        let mut added = totals.values().map(|total| total.units).min().unwrap_or(0);
        for number in 0..self.units() {
            self.cx.check_interrupt()?;
            if !self.cx.is_mine() || number < added {
                continue;
            }
            if layers.iter().all(|&layer| self.cx.has_unit(&self.unit_key(layer, number))) {
                self.count(number, true);
            } else {
                for (layer, moment) in self.unit(number, &layers)? {
                    Head::put_sum(self.cx, &self.unit_key(layer, number), number..number + 1, &moment)?;
                }
                self.count(number, false);
            }
            loop {
                if self.is_enough(&totals, apart(&totals)) {
                    return Ok(());
                }
                let lacking: Vec<usize> =
                    totals.iter().filter(|(_, total)| total.units == added).map(|(layer, _)| *layer).collect();
                let Some(sums) = self.unit_apart(added, &lacking) else { break };
                add(&mut totals, added, sums)?;
                added += 1;
            }
        }
        Ok(())
    }

    /// Whether halves that are so far apart are near enough, and have tokens enough to say so.
    fn is_enough(&self, totals: &BTreeMap<usize, Total>, apart: Option<f64>) -> bool {
        let least = |layer: usize| LEAST * dimensions(self.model.decoder.config(), layer) as u64;
        apart.is_some_and(|by| by <= self.tolerance)
            && totals.iter().all(|(&layer, total)| total.moment.count() >= least(layer))
    }

    /// The sums that were kept when this was interrupted.
    fn kept(&self) -> BTreeMap<usize, Total> {
        let config = self.model.decoder.config();
        let total = |&layer: &usize| {
            let get = |units: usize| {
                let fits = |head: &Head| {
                    let of_it = (head.units * UNIT > self.documents) == (units * UNIT > self.documents);
                    head.from == 0 && head.units <= self.units() && of_it && head.moment.has_halves()
                };
                Head::get(self.cx, &self.total_key(layer, units)).filter(fits)
            };
            let head = get(self.units()).or_else(|| get(0));
            let total = head.map_or_else(
                || Total { units: 0, moment: no_tokens(config, layer) },
                |head| Total { units: head.units, moment: head.moment },
            );
            (layer, total)
        };
        self.layers.iter().map(total).collect()
    }

    fn keep(&self, totals: &BTreeMap<usize, Total>) -> Result<(), Error> {
        for (&layer, Total { units, moment }) in totals {
            Head::put_sum(self.cx, &self.total_key(layer, *units), 0..*units, moment)?;
        }
        Ok(())
    }

    /// A unit's sums, measured here.
    fn unit(&mut self, number: usize, layers: &[usize]) -> Result<BTreeMap<usize, SecondMoment>, Error> {
        let decoder = &self.model.decoder;
        let (documents, _) = unit(self.corpus, self.model, self.cut, number * UNIT, self.documents, u64::MAX)?;
        let mut sums = Moments::new();
        for &layer in layers {
            let moment = no_tokens(decoder.config(), layer);
            sums.insert(decoder, layer, moment).map_err(StageFailure::stage)?;
        }
        sums.add_unit(decoder, &documents, self.batch, !number.is_multiple_of(2)).map_err(StageFailure::stage)?;
        sums.take().map_err(StageFailure::stage)
    }

    /// A unit's sums that another process has kept, if all of them are whole.
    fn unit_apart(&self, number: usize, layers: &[usize]) -> Option<BTreeMap<usize, SecondMoment>> {
        let sum = |&layer: &usize| {
            let key = self.unit_key(layer, number);
            let head = if self.cx.has_unit(&key) { Head::get(self.cx, &key) } else { None };
            let whole = |head: &Head| (head.from, head.units) == (number, number + 1) && head.moment.has_halves();
            Some((layer, head.filter(whole)?.moment))
        };
        layers.iter().map(sum).collect()
    }

    fn count(&self, number: usize, kept: bool) {
        let documents = ((number + 1) * UNIT).min(self.documents) - number * UNIT;
        if kept { self.bar.keep(documents as u64) } else { self.bar.inc(documents as u64) }
    }

    /// All units that there can be.
    fn units(&self) -> usize {
        self.documents.div_ceil(UNIT)
    }

    /// That of the totals over so many units. Together with other layers, or by another tolerance, the sample may end elsewhere: so those are
    /// named, or a total could be found that is past the end. A sum that has a part of a unit is that of no larger sample.
    fn total_key(&self, layer: usize, units: usize) -> Key {
        let mut layers = self.layers.to_vec();
        layers.sort_unstable();
        let mut name = json!({ "until": self.tolerance, "layers": layers });
        if units * UNIT > self.documents {
            name["documents"] = json!(self.documents);
        }
        (self.key)(layer, &name)
    }

    /// That of the corpus's last unit names its documents: of a longer one it is no unit.
    fn unit_key(&self, layer: usize, number: usize) -> Key {
        let documents = self.documents.saturating_sub(number * UNIT).min(UNIT);
        (self.key)(
            layer,
            &if documents == UNIT { json!({ "unit": number }) } else { json!({ "unit": [number, documents] }) },
        )
    }
}

/// How far the halves are from each other in the layer where that is most; `None` where layers have not come equally far, or have no halves.
fn apart(totals: &BTreeMap<usize, Total>) -> Option<f64> {
    let units = totals.values().next()?.units;
    let each = totals.values().map(|total| total.moment.difference().filter(|_| total.units == units));
    each.reduce(|most, one| Some(most?.max(one?))).flatten()
}

/// Adds a unit's sums to the totals of the layers that lacked it.
fn add(totals: &mut BTreeMap<usize, Total>, number: usize, sums: BTreeMap<usize, SecondMoment>) -> Result<(), Error> {
    for (layer, sum) in sums {
        if let Some(total) = totals.get_mut(&layer) {
            total.moment.merge(&sum).map_err(StageFailure::stage)?;
            total.units = number + 1;
        }
    }
    Ok(())
}
