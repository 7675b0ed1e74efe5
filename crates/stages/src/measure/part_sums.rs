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
    /// Whether all sums of the part are kept, of so many documents.
    pub fn is_kept(&self, cx: &StageContext, documents: usize) -> bool {
        let from = self.part * PART;
        let units = from + documents.div_ceil(UNIT);
        let whole = |key| Head::get(cx, key).is_some_and(|head| (head.from, head.units) == (from, units));
        self.keys.values().all(whole)
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

/// The sums of several layers.
pub struct PartSums<'a> {
    cx: &'a StageContext,
    decoder: &'a Decoder,
    keys: BTreeMap<usize, Keys>,
    complete: BTreeMap<usize, Complete>,
    /// Layers whose kept sums are further than the documents that are read now; they join where they left off.
    waiting: BTreeMap<usize, Head>,
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
            let useful = |head: &Head, before: u64| head.units <= units && head.moment.count() + before < enough;
            let whole = Head::get(cx, &key.complete).filter(|head| head.from == 0 && useful(head, 0));
            let mut known =
                whole.map_or(Complete::default(), |head| Complete { units: head.units, tokens: head.moment.count() });
            let mut open =
                Head::get(cx, &key.open).filter(|head| head.from == known.units && useful(head, known.tokens));
            // Sums were not cut into parts once. One of that time counts as complete, wherever it ends.
            if let Some(head) = open.take_if(|head| known.units == 0 && head.units > PART) {
                head.put(cx, &key.complete)?;
                known = Complete { units: head.units, tokens: head.moment.count() };
            }
            let moment = || no_tokens(decoder.config(), layer);
            let nothing = || Head { from: known.units, units: known.units, moment: moment() };
            complete.insert(layer, known);
            waiting.insert(layer, open.unwrap_or_else(nothing));
        }
        Ok(Self { cx, decoder, keys, complete, waiting, open: Moments::new(), alone: false })
    }

    /// One part by itself, of no more than `units` whole units: what is kept of its sums, each under a key of its own.
    pub fn alone(cx: &'a StageContext, decoder: &'a Decoder, apart: &Apart, units: usize) -> Self {
        let from = apart.part * PART;
        let head = |layer: usize, key: &Key| {
            let kept = Head::get(cx, key).filter(|head| head.from == from && head.units <= units);
            kept.unwrap_or_else(|| Head { from, units: from, moment: no_tokens(decoder.config(), layer) })
        };
        Self {
            cx,
            decoder,
            keys: apart.keys.iter().map(|(&layer, &key)| (layer, Keys { open: key, complete: key })).collect(),
            complete: apart.keys.keys().map(|&layer| (layer, Complete { units: from, tokens: 0 })).collect(),
            waiting: apart.keys.iter().map(|(&layer, key)| (layer, head(layer, key))).collect(),
            open: Moments::new(),
            alone: true,
        }
    }

    /// Joins a part that was computed by itself, if all layers lack it from its beginning on and all of it is kept. `documents` is how many
    /// it has. Gives its tokens.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn join_part(&mut self, apart: &Apart, documents: usize, most: u64) -> Result<Option<u64>, Error> {
        let from = apart.part * PART;
        let units = from + documents.div_ceil(UNIT);
        let begins = |layer: &usize| self.complete[layer].units == from;
        if !apart.keys.keys().all(begins) || !apart.keys.values().all(|key| self.cx.has_unit(key)) {
            return Ok(None);
        }
        // What has just begun waits again: where a kept sum turns out to be damaged, this part is measured here after all.
        for (layer, moment) in self.open.take().map_err(StageFailure::stage)? {
            self.waiting.entry(layer).or_insert(Head { from, units: from, moment });
        }
        let mut tokens = None;
        for (&layer, key) in &apart.keys {
            let whole = Head::get(self.cx, key).filter(|head| (head.from, head.units) == (from, units));
            let Some(head) = whole.filter(|head| head.moment.count() <= most) else { return Ok(None) };
            tokens = Some(head.moment.count());
            if ends_part(units) && documents.is_multiple_of(UNIT) {
                let total = self.with_complete(layer, head.moment)?;
                Head::put_sum(self.cx, &self.keys[&layer].complete, 0..units, &total)?;
                self.complete.insert(layer, Complete { units, tokens: total.count() });
                let moment = no_tokens(self.decoder.config(), layer);
                self.waiting.insert(layer, Head { from: units, units, moment });
                self.cx.drop_unit(key);
            } else {
                if documents.is_multiple_of(UNIT) {
                    head.put(self.cx, &self.keys[&layer].open)?;
                }
                self.waiting.insert(layer, head);
            }
        }
        Ok(tokens)
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
            self.waiting.iter().map(|(layer, head)| (head.units, self.complete[layer].tokens + head.moment.count()));
        places.min().unwrap_or_default()
    }

    /// Takes in the layers that go on from this unit.
    ///
    /// # Errors
    /// What [`Moments::insert`] answers.
    pub fn join(&mut self, unit: usize) -> Result<(), Error> {
        for (layer, head) in self.waiting.extract_if(.., |_, head| head.units == unit) {
            self.open.insert(self.decoder, layer, head.moment).map_err(StageFailure::stage)?;
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
            let total = self.with_complete(layer, moment)?;
            Head::put_sum(self.cx, &self.keys[&layer].complete, 0..units, &total)?;
            self.complete.insert(layer, Complete { units, tokens: total.count() });
            let moment = no_tokens(self.decoder.config(), layer);
            self.open.insert(self.decoder, layer, moment).map_err(StageFailure::stage)?;
        }
        Ok(())
    }

    /// The sum of a layer's complete parts, and then of the part that is open.
    fn with_complete(&self, layer: usize, open: SecondMoment) -> Result<SecondMoment, Error> {
        let known = self.complete[&layer];
        if known.units == 0 {
            return Ok(open);
        }
        let kept = Head::get(self.cx, &self.keys[&layer].complete).filter(|head| head.units == known.units);
        let mut total = kept.map(|head| head.moment).ok_or_else(|| {
            let message = format!("the sum kept of layer {layer} cannot be read any more");
            Error::store(message).hint("run again: what is lost is measured again")
        })?;
        // Nothing is added where a part has just ended.
        if open.count() > 0 {
            total.merge(&open).map_err(StageFailure::stage)?;
        }
        Ok(total)
    }

    /// The totals by layer, one at a time: each is given to `each` and let go of.
    ///
    /// # Errors
    /// What the device failed at; when the store cannot be read; what `each` answers.
    pub fn finish(mut self, mut each: impl FnMut(usize, &SecondMoment) -> Result<(), Error>) -> Result<(), Error> {
        let mut sums = self.open.take().map_err(StageFailure::stage)?;
        sums.extend(std::mem::take(&mut self.waiting).into_iter().map(|(layer, head)| (layer, head.moment)));
        for (layer, open) in sums {
            each(layer, &self.with_complete(layer, open)?)?;
        }
        Ok(())
    }
}
