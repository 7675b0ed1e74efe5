//! Ways through the blocks, for one batch or many.
//!
//! Many batches go through the blocks in the order that costs least. Where blocks are resident, each batch goes all the way before the next
//! one of its thread begins, and no more than a few have activations in memory. Where blocks are streamed, reading one takes longer than a
//! batch takes to compute with it: the layers are the outer loop and the batches the inner one, each block is read once for all batches
//! of a pass, and what waits in memory for the next layer are the batches' hidden states. Callers say what they want of a batch
//! ([`Visit`]) and do not know which of the two it is. Both give the same bits, since a batch computes the same things in the same order.

use burn::tensor::Tensor;

use crate::batch::rows::{Activations, Rows};
use crate::decoder::block::{Block, BlockOutput};
use crate::{Decoder, ModelError, worker_pool};

/// Bytes of hidden states that wait for the next streamed block, at most: more batches than that take another pass over the blocks.
const WAITING: usize = 512 << 20;

/// What is wanted of one batch on its way through the blocks.
pub trait Visit: Send {
    /// What is found in the end.
    type Found: Send;

    /// The batch's rows. It is asked for once, when the batch sets out.
    fn begin(&mut self, decoder: &Decoder) -> Rows;

    /// Looks at what a layer's block computed; the layers come in their order.
    ///
    /// # Errors
    /// What the device failed at.
    fn see(&mut self, layer: usize, output: &BlockOutput) -> Result<(), ModelError>;

    /// What was found, given the hidden state after the last block of the way.
    ///
    /// # Errors
    /// What the device failed at.
    fn finish(self, decoder: &Decoder, hidden: &Activations) -> Result<Self::Found, ModelError>;
}

/// A batch on its way.
struct Way<V> {
    visit: V,
    rows: Rows,
    hidden: Tensor<2>,
}

impl Decoder {
    /// Runs a batch through the blocks up to and including `last`, showing each block's output to `see`; returns the hidden state after
    /// `last`.
    ///
    /// # Errors
    /// What reading a streamed block failed at; what `see` answers.
    pub fn walk(
        &self,
        rows: &Rows,
        last: usize,
        mut see: impl FnMut(usize, &BlockOutput) -> Result<(), ModelError>,
    ) -> Result<Activations, ModelError> {
        let mut hidden = self.embed(rows);
        for layer in 0..=last {
            let output = self.block(layer, rows, hidden)?;
            see(layer, &output)?;
            hidden = self.injected(layer, rows, output)?;
        }
        Ok(hidden)
    }

    /// The hidden state after a layer, with what its rows add there.
    fn injected(&self, layer: usize, rows: &Rows, output: BlockOutput) -> Result<Activations, ModelError> {
        let Some(injected) = rows.injected.as_ref().filter(|injected| injected.layer == layer) else {
            return Ok(output.hidden);
        };
        let places = &injected.places;
        let values = injected.values.clone();
        let values = if injected.at_projection {
            let mlp = output.mlp.at(places);
            self.added(layer, mlp.clone() + values)? - self.added(layer, mlp)?
        } else {
            values
        };
        Ok(output.hidden.plus(places, values))
    }

    /// The hidden state after the last block.
    ///
    /// # Errors
    /// What reading a streamed block failed at.
    pub fn hidden(&self, rows: &Rows) -> Result<Activations, ModelError> {
        self.walk(rows, self.config().layers - 1, |_, _| Ok(()))
    }

    /// Runs many batches through the blocks up to and including `last`, at most `most` at the same time; what each found, in their order.
    ///
    /// # Errors
    /// Of the first batch that failed.
    pub fn visit_all<V: Visit>(&self, visits: Vec<V>, last: usize, most: usize) -> Result<Vec<V::Found>, ModelError> {
        if !self.streams() {
            return self.in_parallel(visits, most, |mut visit| {
                let rows = visit.begin(self);
                let hidden = self.walk(&rows, last, |layer, output| visit.see(layer, output))?;
                visit.finish(self, &hidden)
            });
        }
        let mut found = Vec::with_capacity(visits.len());
        self.passes(visits, |mut ways| {
            for layer in 0..=last {
                let block = self.lend(layer)?;
                self.in_parallel(ways.iter_mut().collect(), most, |way| way.step(self, layer, &block))?;
            }
            let finish = |way: Way<V>| way.visit.finish(self, &Activations(way.hidden));
            found.extend(self.in_parallel(ways, most, finish)?);
            Ok(())
        })?;
        self.rest();
        Ok(found)
    }

    /// Runs many batches through the blocks up to and including `last`, at most `most` at the same time, and shows them to `collect`, in
    /// their order, whenever they have seen something: after some layers of some batches. What a layer's outputs are in is the batches'
    /// order, whatever the order of the work, so that sums over batches come out the same to the last bit.
    ///
    /// # Errors
    /// Of the first batch that failed; what `collect` answers.
    pub fn visit_in_order<V: Visit, E: From<ModelError>>(
        &self,
        mut visits: Vec<V>,
        last: usize,
        most: usize,
        mut collect: impl FnMut(Vec<&mut V>) -> Result<(), E>,
    ) -> Result<(), E> {
        let together = worker_pool::count(&self.device(), visits.len(), 1).min(most).max(1);
        if !self.streams() {
            for some in visits.chunks_mut(together) {
                self.in_parallel(some.iter_mut().collect(), most, |visit| {
                    let rows = visit.begin(self);
                    self.walk(&rows, last, |layer, output| visit.see(layer, output)).map(drop)
                })?;
                collect(some.iter_mut().collect())?;
            }
            return Ok(());
        }
        let walked: Result<(), E> = self.passes(visits, |mut ways| {
            for layer in 0..=last {
                let block = self.lend(layer)?;
                for some in ways.chunks_mut(together) {
                    self.in_parallel(some.iter_mut().collect(), most, |way| way.step(self, layer, &block))?;
                    collect(some.iter_mut().map(|way| &mut way.visit).collect())?;
                }
            }
            Ok(())
        });
        self.rest();
        walked
    }

    /// Does `work` for every item, at most `most` at the same time; the results in the items' order.
    pub(crate) fn in_parallel<T: Send, R: Send>(
        &self,
        items: Vec<T>,
        most: usize,
        work: impl Fn(T) -> Result<R, ModelError> + Sync,
    ) -> Result<Vec<R>, ModelError> {
        let count = items.len();
        let dealt = worker_pool::deal(&self.device(), items.into_iter().enumerate().collect(), most);
        let done = worker_pool::map(dealt, |some| {
            some.into_iter().map(|(at, item)| Ok((at, work(item)?))).collect::<Result<Vec<_>, ModelError>>()
        });
        let mut results: Vec<Option<R>> = (0..count).map(|_| None).collect();
        for (at, result) in done.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
            results[at] = Some(result);
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Parts batches into passes over the blocks, each of as many as may wait for a block at the same time.
    fn passes<V: Visit, E>(&self, visits: Vec<V>, mut pass: impl FnMut(Vec<Way<V>>) -> Result<(), E>) -> Result<(), E> {
        let most = WAITING / (self.config().hidden * size_of::<f32>()).max(1);
        let (mut ways, mut cells) = (Vec::new(), 0);
        for mut visit in visits {
            let rows = visit.begin(self);
            let more = rows.frame.shape.cells();
            if cells + more > most && !ways.is_empty() {
                pass(std::mem::take(&mut ways))?;
                cells = 0;
            }
            cells += more;
            let hidden = self.embed(&rows).0;
            ways.push(Way { visit, rows, hidden });
        }
        if ways.is_empty() { Ok(()) } else { pass(ways) }
    }
}

impl<V: Visit> Way<V> {
    /// Through one block.
    fn step(&mut self, decoder: &Decoder, layer: usize, block: &Block) -> Result<(), ModelError> {
        let output = decoder.run(block, layer, &self.rows.frame, self.hidden.clone(), None);
        self.visit.see(layer, &output)?;
        self.hidden = decoder.injected(layer, &self.rows, output)?.0;
        Ok(())
    }
}
