//! Sums over documents that can be interrupted, extended, and computed in parts, always with the same bits.
//!
//! Floating-point addition is not associative, so a sum over documents is only defined with the order of its additions:
//!
//! 1. Documents, in the order of the sample, are cut into units of [`UNIT`], and units into parts of [`PART`].
//! 2. A unit's documents are packed into batches by their lengths alone, and each batch gives `Σ k kᵀ` of its keys. (A GPU adds
//!    the batches of a unit in f32 first; that is the only place where the kind of device shows.)
//! 3. A part's sum begins at zero. The batches of its units are added to it in f64, in order.
//! 4. The total is the first part's sum, to which the other parts' sums are added in order.
//!
//! Nothing of this depends on the machine. A process that has the documents of a part can compute its sum without the parts before
//! it, in any order and anywhere, and whoever adds the sums in order has the total of one process. Samples of no more than
//! [`PART`] units, 4,096 documents, have one part, and the sum that they have always had.
//!
//! Of a mixture of experts, a layer's sum is one for each expert, and all of them go together.
//!
//! Sums are large, 8 f² bytes, so neither units nor parts are kept one by one. A layer has two sums in the store at most: that of the
//! parts that are complete, and that of the part it is in, as of its last saved unit. The first is not held in memory while
//! the second grows: it is read, added to and written again at the end of a part.
//!
//! Parts that were computed apart are joined layer by layer: a layer's total is read, the sums of all parts that come next are read and added to it
//! one after the other, and the total is written once. So one total and one part's sum are in memory at a time, whatever the number of layers and
//! parts; while either is read or written, up to two copies of its bytes are there besides. A part's own sum stays in the store until the total that
//! contains it is on the disk. A kill between leaves layers that have come unequally far, and each goes on from where it is.

use std::collections::BTreeMap;
use std::ops::Range;

use palinode_edit::{Moments, no_tokens};
use palinode_engine::{Error, Key, StageContext, UnitPlan};
use palinode_math::SecondMoment;
use palinode_model::Decoder;

use crate::artifacts::moments::Head;
use crate::errors::StageFailure;

/// Documents in a unit.
pub const UNIT: usize = 64;

/// Units in a part.
pub const PART: usize = 64;

/// How so many documents are cut.
pub fn units(documents: usize) -> UnitPlan {
    UnitPlan::new("documents", documents, UNIT).in_parts_of(PART)
}

/// Whether a part ends after so many units.
pub fn ends_part(units: usize) -> bool {
    units.is_multiple_of(PART)
}

/// The documents of a part, of so many.
pub fn documents(part: usize, all: usize) -> Range<usize> {
    let start = part.saturating_mul(PART * UNIT).min(all);
    start..start.saturating_add(PART * UNIT).min(all)
}

/// Under which keys a layer's sums are kept.
#[derive(Clone, Copy)]
pub struct Keys {
    /// That of the part which is not complete.
    pub open: Key,
    /// That of the parts before it.
    pub complete: Key,
}

/// A part that was computed by itself, in another process: which one, and under which key each layer's sum of it is kept.
pub struct Apart {
    /// Its number.
    pub part: usize,
    /// The keys by layer.
    pub keys: BTreeMap<usize, Key>,
}

impl Apart {
    /// Leaves out the layers whose sum of the part is kept, of so many documents: by itself, or in the sum of so many complete units.
    pub fn leave_out_kept(&mut self, cx: &StageContext, documents: usize, complete: &BTreeMap<usize, usize>) {
        let from = self.part * PART;
        let units = from + documents.div_ceil(UNIT);
        self.keys.retain(|layer, key| {
            complete[layer] < units && Head::get(cx, key).is_none_or(|head| (head.from, head.units) != (from, units))
        });
    }

    /// Whether something of it is kept.
    pub fn is_begun(&self, cx: &StageContext) -> bool {
        self.keys.values().all(|key| cx.has_unit(key))
    }
}

/// The complete parts of a layer: units and tokens of their sum, which lies in the store.
#[derive(Clone, Copy, Default)]
struct Complete {
    units: usize,
    tokens: u64,
}

/// A layer whose sums are further than the documents that are read now; it joins where they left off.
struct Waiting {
    units: usize,
    /// The sum of its open part, where that has begun.
    open: Option<SecondMoment>,
}

impl Waiting {
    fn tokens(&self) -> u64 {
        self.open.as_ref().map_or(0, SecondMoment::count)
    }
}

/// Whether a sum is of no more than `units` whole units and fewer than `enough` tokens.
fn is_useful(head: &Head, before: u64, units: usize, enough: u64) -> bool {
    head.units <= units && head.moment.count().saturating_add(before) < enough
}

/// Of each layer, the units of the sum of complete parts that is kept, as [`PartSums::find`] finds it.
pub fn complete_units(
    cx: &StageContext,
    keys: &BTreeMap<usize, Keys>,
    units: usize,
    enough: u64,
) -> BTreeMap<usize, usize> {
    let known = |keys: &Keys| kept_total(cx, keys, units, enough).map_or(0, |head| head.units);
    keys.iter().map(|(&layer, keys)| (layer, known(keys))).collect()
}

fn kept_total(cx: &StageContext, keys: &Keys, units: usize, enough: u64) -> Option<Head> {
    Head::get(cx, &keys.complete).filter(|head| head.from == 0 && is_useful(head, 0, units, enough))
}

/// The sums of several layers.
pub struct PartSums<'a> {
    cx: &'a StageContext,
    decoder: &'a Decoder,
    keys: BTreeMap<usize, Keys>,
    complete: BTreeMap<usize, Complete>,
    waiting: BTreeMap<usize, Waiting>,
    /// The open parts of the layers that grow.
    pub open: Moments,
    /// Whether this is one part by itself, whose sum is joined with the others' elsewhere.
    alone: bool,
}

impl<'a> PartSums<'a> {
    /// What is kept under `keys` of sums over no more than `units` whole units and fewer than `enough` tokens; nothing where it is of
    /// more.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn find(
        cx: &'a StageContext,
        decoder: &'a Decoder,
        keys: BTreeMap<usize, Keys>,
        units: usize,
        enough: u64,
    ) -> Result<Self, Error> {
        let (mut complete, mut waiting) = (BTreeMap::new(), BTreeMap::new());
        for (&layer, key) in &keys {
            let whole = kept_total(cx, key, units, enough);
            let mut known =
                whole.map_or(Complete::default(), |head| Complete { units: head.units, tokens: head.moment.count() });
            let goes_on = |head: &Head| head.from == known.units && is_useful(head, known.tokens, units, enough);
            let mut open = Head::get(cx, &key.open).filter(goes_on);
            // Sums were not cut into parts once. One of that time counts as complete, wherever it ends.
            if let Some(head) = open.take_if(|head| known.units == 0 && head.units > PART) {
                head.put(cx, &key.complete)?;
                known = Complete { units: head.units, tokens: head.moment.count() };
            }
            complete.insert(layer, known);
            let nothing = Waiting { units: known.units, open: None };
            waiting.insert(layer, open.map_or(nothing, |head| Waiting { units: head.units, open: Some(head.moment) }));
        }
        Ok(Self { cx, decoder, keys, complete, waiting, open: Moments::new(), alone: false })
    }

    /// One part by itself, of no more than `units` whole units: what is kept of its sums, each under a key of its own.
    pub fn alone(cx: &'a StageContext, decoder: &'a Decoder, apart: &Apart, units: usize) -> Self {
        let from = apart.part * PART;
        let begun = |key: &Key| {
            let kept = Head::get(cx, key).filter(|head| head.from == from && head.units <= units);
            let nothing = Waiting { units: from, open: None };
            kept.map_or(nothing, |head| Waiting { units: head.units, open: Some(head.moment) })
        };
        Self {
            cx,
            decoder,
            keys: apart.keys.iter().map(|(&layer, &key)| (layer, Keys { open: key, complete: key })).collect(),
            complete: apart.keys.keys().map(|&layer| (layer, Complete { units: from, tokens: 0 })).collect(),
            waiting: apart.keys.iter().map(|(&layer, key)| (layer, begun(key))).collect(),
            open: Moments::new(),
            alone: true,
        }
    }

    /// Joins complete parts that were computed by themselves, of so many that the sample has: of each layer those that come next, as far as
    /// they are kept and there are no more than `enough` tokens. `key` is that of a part's sum of a layer. Gives what [`PartSums::begin`]
    /// gives then, if that is further on than before.
    ///
    /// # Errors
    /// When the store cannot be read or written; when the user stops, and then what was not written yet is still in the store.
    pub fn join_complete(
        &mut self,
        parts: usize,
        key: &dyn Fn(usize, usize) -> Key,
        enough: u64,
    ) -> Result<Option<(usize, u64)>, Error> {
        let next = |units: usize| (units.is_multiple_of(PART) && units / PART < parts).then_some(units / PART);
        let kept = |(&layer, complete): (&usize, &Complete)| {
            let part = next(complete.units)?;
            self.cx.has_unit(&key(layer, part)).then_some((layer, part))
        };
        let kept: Vec<(usize, usize)> = self.complete.iter().filter_map(kept).collect();
        if kept.is_empty() {
            return Ok(None);
        }
        self.wait()?;
        let before = self.begin();
        for (layer, part) in kept {
            self.join_layer(layer, part..parts, &|part| key(layer, part), enough)?;
        }
        Ok(Some(self.begin()).filter(|now| now.0 > before.0))
    }

    /// Adds parts to a layer's total, and writes that once.
    fn join_layer(
        &mut self,
        layer: usize,
        parts: Range<usize>,
        key: &dyn Fn(usize) -> Key,
        enough: u64,
    ) -> Result<(), Error> {
        let (mut total, mut end, mut tokens) = (None::<SecondMoment>, parts.start, self.complete[&layer].tokens);
        for part in parts {
            self.cx.check_interrupt()?;
            if !self.cx.has_unit(&key(part)) {
                break;
            }
            let whole = |head: &Head| (head.from, head.units) == (part * PART, (part + 1) * PART);
            let fits = |head: &Head| whole(head) && head.moment.count() <= enough - tokens;
            let Some(Head { moment, .. }) = Head::get(self.cx, &key(part)).filter(fits) else { break };
            (end, tokens) = (part + 1, tokens + moment.count());
            total = Some(match total {
                None => self.with_complete(layer, Some(moment))?,
                Some(mut total) => {
                    total.merge(&moment).map_err(StageFailure::stage)?;
                    total
                }
            });
        }
        if let Some(total) = total {
            self.put_complete(layer, end * PART, &total)?;
            self.waiting.insert(layer, Waiting { units: end * PART, open: None });
            // The total has them now, and those before, which a kill may have left.
            (0..end).for_each(|part| self.cx.drop_unit(&key(part)));
        }
        Ok(())
    }

    /// Joins the last part, which is none that is complete, if it was computed by itself, all layers lack it from its beginning on and all of it
    /// is kept. `documents` is how many it has. Gives its tokens.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn join_last(&mut self, apart: &Apart, documents: usize, most: u64) -> Result<Option<u64>, Error> {
        let from = apart.part * PART;
        let units = from + documents.div_ceil(UNIT);
        let begins = |layer: &usize| self.complete[layer].units == from;
        if !apart.keys.keys().all(begins) || !apart.keys.values().all(|key| self.cx.has_unit(key)) {
            return Ok(None);
        }
        self.wait()?;
        let mut tokens = None;
        for (&layer, key) in &apart.keys {
            let whole = Head::get(self.cx, key).filter(|head| (head.from, head.units) == (from, units));
            let Some(head) = whole.filter(|head| head.moment.count() <= most) else { return Ok(None) };
            tokens = Some(head.moment.count());
            if documents.is_multiple_of(UNIT) {
                head.put(self.cx, &self.keys[&layer].open)?;
            }
            self.waiting.insert(layer, Waiting { units, open: Some(head.moment) });
        }
        Ok(tokens)
    }

    /// Has all layers wait: where a kept sum turns out to be damaged, its part is measured here after all, and goes on from what has begun.
    fn wait(&mut self) -> Result<(), Error> {
        for (layer, moment) in self.open.take().map_err(StageFailure::stage)? {
            let units = self.complete[&layer].units;
            let open = (moment.count() > 0).then_some(moment);
            self.waiting.entry(layer).or_insert(Waiting { units, open });
        }
        Ok(())
    }

    /// Keeps the sums of a part by itself that ends within a unit.
    ///
    /// # Errors
    /// What the device failed at; when the store cannot be written.
    pub fn keep_alone(&mut self, apart: &Apart, documents: usize) -> Result<(), Error> {
        let from = apart.part * PART;
        for (layer, moment) in self.open.layers().map_err(StageFailure::stage)? {
            Head::put_sum(self.cx, &apart.keys[layer], from..from + documents.div_ceil(UNIT), moment)?;
        }
        Ok(())
    }

    /// The first unit that a layer lacks, and the tokens of those before it.
    pub fn begin(&self) -> (usize, u64) {
        let places =
            self.waiting.iter().map(|(layer, waits)| (waits.units, self.complete[layer].tokens + waits.tokens()));
        places.min().unwrap_or_default()
    }

    /// Takes in the layers that go on from this unit.
    ///
    /// # Errors
    /// What [`Moments::insert`] answers.
    pub fn join(&mut self, unit: usize) -> Result<(), Error> {
        for (layer, waits) in self.waiting.extract_if(.., |_, waits| waits.units == unit) {
            let moment = waits.open.unwrap_or_else(|| no_tokens(self.decoder.config(), layer));
            self.open.insert(self.decoder, layer, moment).map_err(StageFailure::stage)?;
        }
        Ok(())
    }

    /// Keeps the sums as of the end of `units` units. At the end of a part that part is complete, and another is begun.
    ///
    /// # Errors
    /// What the device failed at; when the store cannot be read or written.
    pub fn keep(&mut self, units: usize) -> Result<(), Error> {
        if ends_part(units) && !self.alone {
            return self.end_part(units);
        }
        for (layer, moment) in self.open.layers().map_err(StageFailure::stage)? {
            Head::put_sum(self.cx, &self.keys[layer].open, self.complete[layer].units..units, moment)?;
        }
        Ok(())
    }

    fn end_part(&mut self, units: usize) -> Result<(), Error> {
        let sums = self.open.take().map_err(StageFailure::stage)?;
        for (layer, moment) in sums {
            let total = self.with_complete(layer, Some(moment))?;
            self.put_complete(layer, units, &total)?;
            let moment = no_tokens(self.decoder.config(), layer);
            self.open.insert(self.decoder, layer, moment).map_err(StageFailure::stage)?;
        }
        Ok(())
    }

    /// Writes a layer's sum of its complete parts, which have so many units.
    fn put_complete(&mut self, layer: usize, units: usize, total: &SecondMoment) -> Result<(), Error> {
        Head::put_sum(self.cx, &self.keys[&layer].complete, 0..units, total)?;
        self.complete.insert(layer, Complete { units, tokens: total.count() });
        Ok(())
    }

    /// The sum of a layer's complete parts, and then of the part that is open, if one is.
    fn with_complete(&self, layer: usize, open: Option<SecondMoment>) -> Result<SecondMoment, Error> {
        let known = self.complete[&layer];
        if known.units == 0 {
            return Ok(open.unwrap_or_else(|| no_tokens(self.decoder.config(), layer)));
        }
        let kept = Head::get(self.cx, &self.keys[&layer].complete).filter(|head| head.units == known.units);
        let mut total = kept.map(|head| head.moment).ok_or_else(|| {
            let message = format!("the sum kept of layer {layer} cannot be read any more");
            Error::store(message).hint("run again: what is lost is measured again")
        })?;
        // Nothing is added where a part has just ended.
        if let Some(open) = open.filter(|open| open.count() > 0) {
            total.merge(&open).map_err(StageFailure::stage)?;
        }
        Ok(total)
    }

    /// The totals by layer, one at a time: each is given to `each` and let go of.
    ///
    /// # Errors
    /// What the device failed at; when the store cannot be read; what `each` answers.
    pub fn finish(mut self, mut each: impl FnMut(usize, &SecondMoment) -> Result<(), Error>) -> Result<(), Error> {
        self.wait()?;
        for (layer, Waiting { open, .. }) in std::mem::take(&mut self.waiting) {
            each(layer, &self.with_complete(layer, open)?)?;
        }
        Ok(())
    }
}
