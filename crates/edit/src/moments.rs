//! Second moments of several layers in one pass.
//!
//! A second moment is a sum over millions of tokens, and is factored afterwards: what is lost in the sum comes back multiplied by the
//! condition number. Products of a batch's keys are therefore taken in f32 (or to f32's accuracy, see [`gram`]) and *summed* in f64. And a
//! sum of floating-point numbers depends on its order: a run that was killed and goes on, or that has more cores, would otherwise end with
//! other bits under the same key. So each layer's sum takes its keys in the order of the documents, however many threads computed them;
//! threads share the work by layer, never by splitting a layer's sum.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device, Tensor, TensorData};
use palinode_math::{MathError, PartKeys, SecondMoment};
use palinode_model::{
    Activations, BlockOutput, Decoder, DecoderConfig, Keys, ModelError, Places, Rows, Visit, add_key_products, cat,
    free_memory, is_cpu, read, worker_pool,
};

use crate::EditError;

/// Accumulates the second moment of the keys of every asked layer.
///
/// On a GPU that has room for them the sums grow there, in f64, and come to the host when they are asked for.
#[derive(Debug, Default)]
pub struct Moments {
    /// As they were when they were on the host last.
    layers: BTreeMap<usize, SecondMoment>,
    there: BTreeMap<usize, Total>,
}

/// A sum on a GPU.
#[derive(Debug)]
struct Total {
    /// `Σ k kᵀ`, `[f, f]` in f64.
    sum: Tensor<2>,
    count: u64,
    /// The same of the odd units, where it is known.
    odd: Option<(Tensor<2>, u64)>,
    /// Whether the host has it as it is.
    known: bool,
}

impl Moments {
    /// Of no layers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a layer in, with what is known of it so far ([`no_tokens`] where nothing is). Documents added from now
    /// on count for it.
    ///
    /// # Errors
    /// [`palinode_model::ModelError::Layer`]; [`EditError::Mismatch`] for a moment of another key size, or of other parts.
    pub fn insert(&mut self, decoder: &Decoder, layer: usize, moment: SecondMoment) -> Result<(), EditError> {
        decoder.config().check_layer(layer)?;
        let f = decoder.config().key_size(layer);
        if moment.size() != f || !moment.ranges().eq(decoder.config().key_parts(layer)) {
            let parts = match moment.parts() {
                1 => String::new(),
                parts => format!(" in {parts} parts"),
            };
            let message = format!("a second moment of size {}{parts}, but keys of size {f}", moment.size());
            return Err(EditError::Mismatch(message));
        }
        let device = decoder.device();
        if !sums_here(decoder) && free_memory(&device).is_some_and(|free| free > room(f, self.layers.len() + 1)) {
            self.there.insert(layer, Total::new(&moment, &device));
        }
        self.layers.insert(layer, moment);
        Ok(())
    }

    /// The moments so far, by layer. What a GPU has of them is fetched.
    ///
    /// # Errors
    /// [`palinode_model::ModelError::Readback`] and [`palinode_model::ModelError::OutOfMemory`], where a GPU failed;
    /// [`EditError::Math`] where an activation was not finite.
    pub fn layers(&mut self) -> Result<&BTreeMap<usize, SecondMoment>, EditError> {
        for (&layer, total) in self.there.iter_mut().filter(|(_, total)| !total.known) {
            self.layers.insert(layer, total.moment(layer)?);
            total.known = true;
        }
        Ok(&self.layers)
    }

    /// The moments, as [`Moments::layers`] gives them; none is left here.
    ///
    /// # Errors
    /// As [`Moments::layers`].
    pub fn take(&mut self) -> Result<BTreeMap<usize, SecondMoment>, EditError> {
        self.layers()?;
        self.there.clear();
        Ok(std::mem::take(&mut self.layers))
    }

    /// Adds documents, given as token rows, each cut to the model's context; returns the tokens counted. Padding is not
    /// counted. `tokens` bounds a batch's rectangle.
    ///
    /// # Errors
    /// [`palinode_model::ModelError::Readback`]; [`EditError::Math`] where an activation is not finite.
    pub fn add(&mut self, decoder: &Decoder, documents: &[Vec<u32>], tokens: usize) -> Result<u64, EditError> {
        self.add_unit(decoder, documents, tokens, false)
    }

    /// As [`Moments::add`], for a unit of documents: an odd one is summed by itself as well ([`SecondMoment::odd`]).
    ///
    /// # Errors
    /// As [`Moments::add`].
    pub fn add_unit(
        &mut self,
        decoder: &Decoder,
        documents: &[Vec<u32>],
        tokens: usize,
        odd: bool,
    ) -> Result<u64, EditError> {
        let context = decoder.config().context;
        let rows: Vec<&[u32]> =
            documents.iter().map(|d| &d[..d.len().min(context)]).filter(|d| !d.is_empty()).collect();
        let lengths: Vec<usize> = rows.iter().map(|r| r.len()).collect();
        if self.layers.is_empty() {
            return Ok(0);
        }
        let count: u64 = lengths.iter().map(|&l| l as u64).sum();
        let groups = |tokens| -> Vec<Vec<&[u32]>> {
            let groups = decoder.batches(&lengths, tokens);
            groups.iter().map(|group| group.iter().map(|&i| rows[i]).collect()).collect()
        };
        // What a GPU has of the odd units is added there.
        let here = |moments: &mut Self, turn: fn(&mut SecondMoment)| {
            for (layer, moment) in &mut moments.layers {
                if odd && !moments.there.contains_key(layer) {
                    turn(moment);
                }
            }
        };
        here(self, SecondMoment::begin_odd);
        if sums_here(decoder) {
            self.add_here(decoder, groups(tokens))?;
        } else {
            let sums = decoder.within(tokens, |tokens| sums(decoder, groups(tokens), self.layers.keys()))?;
            self.add_sums(sums, count, odd)?;
        }
        here(self, SecondMoment::end_odd);
        Ok(count)
    }

    /// Adds the keys of some groups of rows on the CPU, a few groups at a time: each takes the memory of its keys in every layer.
    fn add_here(&mut self, decoder: &Decoder, groups: Vec<Vec<&[u32]>>) -> Result<(), EditError> {
        let (device, config) = (decoder.device(), decoder.config());
        let make = |layer: usize, keys: &Keys, places: &Places| keys.by_part(places, &config.key_parts(layer));
        let (visits, last) = visits(groups, self.layers.keys(), make);
        decoder.visit_in_order(visits, last, worker_pool::MOST, |seen| {
            // Each layer's sum takes its keys in the order of the groups: it is the same to the last bit, however many threads there are.
            let mut keys: BTreeMap<usize, Vec<PartKeys>> = BTreeMap::new();
            for visit in seen {
                let tokens = visit.tokens();
                for (layer, of) in visit.seen.drain(..) {
                    keys.entry(layer).or_default().push(PartKeys::new(tokens, of));
                }
            }
            let sums = self.layers.iter_mut().filter_map(|(layer, moment)| Some((*layer, moment, keys.remove(layer)?)));
            let shares = worker_pool::share(&device, sums.collect(), worker_pool::MOST);
            let add = |(layer, moment, keys): (usize, &mut SecondMoment, Vec<PartKeys>)| {
                let each = keys.iter().try_for_each(|of| add_keys(moment, of));
                each.map_err(|source| EditError::Math { layer, source })
            };
            worker_pool::map(shares, |share| share.into_iter().try_for_each(add)).into_iter().collect()
        })
    }

    /// Adds sums that a GPU made of `count` keys, in the layers' order: there, or here where it has no room for their total.
    fn add_sums(&mut self, sums: Vec<Tensor<2>>, count: u64, odd: bool) -> Result<(), EditError> {
        for (sum, (&layer, moment)) in sums.into_iter().zip(&mut self.layers) {
            if let Some(total) = self.there.remove(&layer) {
                self.there.insert(layer, total.plus(sum, count, odd));
            } else {
                let sum = read::<f32, _, _>(sum)?;
                moment.add_sum(&sum, count).map_err(|source| EditError::Math { layer, source })?;
            }
        }
        Ok(())
    }
}

/// Keys of some layers at every token of some documents, row-major `[tokens, f]` of each layer. Documents are cut to the model's context;
/// `tokens` bounds a batch's rectangle.
///
/// # Errors
/// [`palinode_model::ModelError::Layer`]; [`palinode_model::ModelError::Readback`].
pub fn text_keys(
    decoder: &Decoder,
    documents: &[Vec<u32>],
    layers: &[usize],
    tokens: usize,
) -> Result<BTreeMap<usize, Vec<f32>>, EditError> {
    let rows: Vec<&[u32]> = cut(decoder, documents).filter(|row| !row.is_empty()).collect();
    let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
    decoder.within(tokens, |tokens| {
        let groups = decoder.batches(&lengths, tokens).into_iter();
        keys_of(decoder, groups.map(|group| group.iter().map(|&i| rows[i]).collect()).collect(), layers)
    })
}

/// Keys of some layers at every token, `[tokens, f]` by layer for each document. Documents are cut to the model's context. Each is a batch of
/// its own, and all of them share a pass over the blocks.
///
/// # Errors
/// [`palinode_model::ModelError::Layer`]; [`palinode_model::ModelError::Readback`].
pub fn keys_by_document(
    decoder: &Decoder,
    documents: &[Vec<u32>],
    layers: &[usize],
) -> Result<Vec<BTreeMap<usize, PartKeys>>, EditError> {
    layers.iter().try_for_each(|&layer| decoder.config().check_layer(layer))?;
    let config = decoder.config();
    let rows: Vec<&[u32]> = cut(decoder, documents).collect();
    let alone = rows.iter().filter(|row| !row.is_empty()).map(|&row| vec![row]);
    let make = |layer: usize, keys: &Keys, places: &Places| keys.by_part(places, &config.key_parts(layer));
    let (visits, last) = visits(alone.collect(), layers.iter(), make);
    let mut found = vec![BTreeMap::new(); visits.len()];
    // Of streamed blocks a document is shown after every block.
    decoder.visit_in_order(visits, last, worker_pool::MOST, |seen| {
        for visit in seen {
            let tokens = visit.tokens();
            found[visit.number].extend(visit.seen.drain(..).map(|(layer, of)| (layer, PartKeys::new(tokens, of))));
        }
        Ok::<(), EditError>(())
    })?;
    let mut found = found.into_iter();
    let each = rows.iter().map(|row| if row.is_empty() { BTreeMap::new() } else { found.next().unwrap_or_default() });
    Ok(each.collect())
}

/// Documents, cut to the model's context.
fn cut<'a>(decoder: &Decoder, documents: &'a [Vec<u32>]) -> impl Iterator<Item = &'a [u32]> {
    let context = decoder.config().context;
    documents.iter().map(move |document| &document[..document.len().min(context)])
}

/// Keys of some layers at every token of some groups of rows, in their order.
fn keys_of(
    decoder: &Decoder,
    groups: Vec<Vec<&[u32]>>,
    layers: &[usize],
) -> Result<BTreeMap<usize, Vec<f32>>, EditError> {
    layers.iter().try_for_each(|&layer| decoder.config().check_layer(layer))?;
    let make = |_, keys: &Keys, places: &Places| read::<f32, 2, _>(keys.at(places)?);
    let (visits, last) = visits(groups, layers.iter(), make);
    let mut keys: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
    decoder.visit_in_order(visits, last, worker_pool::MOST, |seen| {
        for (layer, of) in seen.into_iter().flat_map(|visit| visit.seen.drain(..)) {
            keys.entry(layer).or_default().extend(of);
        }
        Ok::<(), EditError>(())
    })?;
    Ok(keys)
}

/// The second moment of a layer's keys, of no token yet.
pub fn no_tokens(config: &DecoderConfig, layer: usize) -> SecondMoment {
    let sizes: Vec<usize> = config.key_parts(layer).iter().map(ExactSizeIterator::len).collect();
    SecondMoment::in_parts(&sizes)
}

/// Whether sums grow on the host: on a CPU, and of models with experts, whose keys are mostly 0.
fn sums_here(decoder: &Decoder) -> bool {
    is_cpu(&decoder.device()) || decoder.config().experts.is_some()
}

/// Adds the keys of some tokens: products in f32, sums in f64.
fn add_keys(moment: &mut SecondMoment, keys: &PartKeys) -> Result<(), MathError> {
    // By their exponents: a loop that may end at each number is no vector's.
    let finite = |keys: &[f32]| keys.iter().fold(true, |all, key| all & key.is_finite());
    if !(0..moment.parts()).all(|part| keys.values(part).chunks(4096).all(finite)) {
        return Err(MathError::NotFinite { what: "key block" });
    }
    moment.add_by(keys.tokens() as u64, |part, columns| {
        if !keys.users(part).is_empty() {
            add_key_products(columns, keys.values(part));
        }
        keys.users(part).len() as u64
    });
    Ok(())
}

impl Total {
    fn new(moment: &SecondMoment, device: &Device) -> Self {
        let f = moment.size();
        let sum = TensorData::new(moment.sum(), [f, f]);
        let there = |sum| device.memory_persistent_allocations(sum, |sum| Tensor::from_data(sum, (device, DType::F64)));
        let odd = moment.odd().map(|odd| (there(TensorData::new(odd.sum(), [f, f])), odd.count()));
        Self { sum: there(sum), count: moment.count(), odd, known: true }
    }

    /// With so many keys more; to the last bit what the host would make of it. The total is held here alone, and so is added to
    /// where it is.
    fn plus(self, sum: Tensor<2>, count: u64, is_odd: bool) -> Self {
        let sum = sum.cast(DType::F64);
        let odd =
            self.odd.map(|(odd, tokens)| if is_odd { (odd + sum.clone(), tokens + count) } else { (odd, tokens) });
        Self { sum: self.sum + sum, count: self.count + count, odd, known: false }
    }

    fn moment(&self, layer: usize) -> Result<SecondMoment, EditError> {
        let f = self.sum.dims()[0];
        let failed = |source| EditError::Math { layer, source };
        let sum = read::<f64, _, _>(self.sum.clone())?;
        let whole = SecondMoment::from_sum(&sum, f, self.count).map_err(failed)?;
        let Some((odd, tokens)) = &self.odd else { return Ok(whole) };
        whole.with_odd(&read::<f64, _, _>(odd.clone())?, *tokens).map_err(failed)
    }
}

/// Bytes that must be free on a GPU for another total of keys of size `f`: for it and that of its odd units, for one that is being added to, for what a
/// block of documents has in f32, a sum for each of the `layers` and the products that make one, and for a forward pass.
fn room(f: usize, layers: usize) -> u64 {
    let square = (f * f) as u64;
    (3 * 8 + 4 * (layers as u64 + 4)) * square + (1 << 30)
}

/// Sums of the key products of some groups of rows, `[f, f]` a layer, for a device that is better not asked for every key.
///
/// # Errors
/// [`EditError::Math`] where a key is not finite; what the device failed at.
fn sums<'a>(
    decoder: &Decoder,
    groups: Vec<Vec<&[u32]>>,
    layers: impl Iterator<Item = &'a usize> + Clone,
) -> Result<Vec<Tensor<2>>, EditError> {
    let mut sums: BTreeMap<usize, Tensor<2>> = BTreeMap::new();
    let (visits, last) = visits(groups, layers.clone(), |_, keys: &Keys, places: &Places| keys.at(places));
    decoder.visit_in_order(visits, last, 1, |seen| {
        for (layer, keys) in seen.into_iter().flat_map(|visit| visit.seen.drain(..)) {
            let product = gram(keys);
            let sum = match sums.remove(&layer) {
                Some(sum) => sum + product,
                None => product,
            };
            sums.insert(layer, sum);
        }
        Ok::<(), EditError>(())
    })?;
    let sums: Vec<Tensor<2>> = sums.into_values().collect();
    // One number of each, which comes only if the whole was computed, and is finite only if all of it is.
    let checks = read::<f32, _, _>(cat(sums.iter().map(|sum| sum.clone().sum()).collect(), 0))?;
    match checks.iter().zip(layers).find(|(check, _)| !check.is_finite()) {
        Some((_, &layer)) => {
            Err(EditError::Math { layer, source: MathError::NotFinite { what: "sum of key products" } })
        }
        None => Ok(sums),
    }
}

/// `KᵀK`, `[f, f]`, of keys `[n, f]`, to the accuracy of f32 also on GPUs that take products of f32 in TF32, with 11 bits of
/// each factor: with `K = H + L`, `H` the 8 bits that bf16 keeps and `L` the rest, `KᵀK = HᵀH + HᵀL + (HᵀL)ᵀ`, where `LᵀL`, below
/// `2⁻¹⁸` of it, is left out.
fn gram(keys: Tensor<2>) -> Tensor<2> {
    let high = keys.clone().cast(DType::BF16).cast(DType::F32);
    let low = keys - high.clone();
    let turned = high.clone().transpose();
    let cross = turned.clone().matmul(low);
    turned.matmul(high) + cross.clone() + cross.transpose()
}

/// Keys of some layers at every token of some rows.
struct AllKeys<'a, T, F> {
    /// Its place among all visits.
    number: usize,
    rows: Vec<&'a [u32]>,
    layers: Vec<usize>,
    /// Every token of the rows.
    places: Option<Places>,
    /// What is made of a layer's keys at some places.
    make: F,
    /// What was made of each layer's.
    seen: Vec<(usize, T)>,
}

/// A visit for each group of rows, and the last of the layers.
fn visits<'a, 'b, T, F: Copy>(
    groups: Vec<Vec<&'a [u32]>>,
    layers: impl Iterator<Item = &'b usize>,
    make: F,
) -> (Vec<AllKeys<'a, T, F>>, usize) {
    let layers: Vec<usize> = layers.copied().collect();
    let last = layers.iter().copied().max().unwrap_or(0);
    let visit = |(number, rows)| AllKeys { number, rows, layers: layers.clone(), places: None, make, seen: Vec::new() };
    (groups.into_iter().enumerate().map(visit).collect(), last)
}

impl<T, F> AllKeys<'_, T, F> {
    fn tokens(&self) -> usize {
        self.rows.iter().map(|row| row.len()).sum()
    }
}

impl<T: Send, F: Fn(usize, &Keys, &Places) -> Result<T, ModelError> + Send> Visit for AllKeys<'_, T, F> {
    type Found = ();

    fn begin(&mut self, decoder: &Decoder) -> Rows {
        let rows = decoder.rows(&self.rows);
        self.places = Some(rows.all());
        rows
    }

    fn see(&mut self, layer: usize, output: &BlockOutput) -> Result<(), ModelError> {
        if let (true, Some(places)) = (self.layers.contains(&layer), &self.places) {
            self.seen.push((layer, (self.make)(layer, &output.key, places)?));
        }
        Ok(())
    }

    fn finish(self, _: &Decoder, _: &Activations) -> Result<(), ModelError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::tensor::Device;
    use palinode_model::{Checkpoint, DecoderConfig};

    use super::*;

    fn decoder() -> Decoder {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures/llama-tiny");
        let config = DecoderConfig::read(&folder.join("config.json")).unwrap();
        let checkpoint = Checkpoint::open(&[folder.join("model.safetensors")]).unwrap();
        Decoder::load(&checkpoint, &config, &Device::flex()).unwrap()
    }

    fn rows(count: usize) -> Vec<Vec<u32>> {
        (0..count).map(|i| (0..4 + 3 * i).map(|t| 3 + (7 * i + t) as u32 % 50).collect()).collect()
    }

    /// The moments of two layers: on the host, or as a GPU with room has them.
    fn empty(decoder: &Decoder, there: bool) -> Moments {
        let mut moments = Moments::new();
        for layer in [0, 1] {
            let moment = SecondMoment::new(decoder.config().feed_forward);
            if there {
                moments.there.insert(layer, Total::new(&moment, &decoder.device()));
            }
            moments.insert(decoder, layer, moment).unwrap();
        }
        moments
    }

    fn add(moments: &mut Moments, decoder: &Decoder, rows: &[Vec<u32>], odd: bool) {
        let groups: Vec<Vec<&[u32]>> = rows.chunks(2).map(|some| some.iter().map(Vec::as_slice).collect()).collect();
        let sums = sums(decoder, groups, moments.layers.keys()).unwrap();
        moments.add_sums(sums, rows.iter().map(|row| row.len() as u64).sum(), odd).unwrap();
    }

    /// One pass over all documents gives each its own keys, to the last bit.
    #[test]
    fn documents_share_a_pass() {
        let (decoder, mut documents) = (decoder(), rows(4));
        documents.insert(2, Vec::new());
        let each = keys_by_document(&decoder, &documents, &[0, 1]).unwrap();
        assert_eq!(each.len(), documents.len());
        for (document, keys) in documents.iter().zip(&each) {
            let alone = text_keys(&decoder, std::slice::from_ref(document), &[0, 1], 64).unwrap();
            for layer in [0, 1] {
                let alone = alone.get(&layer).map_or(&[][..], Vec::as_slice);
                let keys = keys.get(&layer).cloned().unwrap_or_default();
                assert_eq!((keys.tokens(), keys.values(0)), (document.len(), alone));
            }
        }
    }

    /// Sums made on a device are those that are made here, but for rounding in f32.
    #[test]
    fn sums_made_there_equal_sums_made_here() {
        let (decoder, rows) = (decoder(), rows(5));
        let (mut here, mut there) = (empty(&decoder, false), empty(&decoder, true));
        for (number, some) in rows.chunks(2).enumerate() {
            here.add_unit(&decoder, some, 16, number == 1).unwrap();
            add(&mut there, &decoder, some, number == 1);
        }
        let there = there.layers().unwrap();
        for (layer, one) in here.layers().unwrap() {
            let other = &there[layer];
            assert_eq!(one.count(), other.count());
            let far = one.sum().iter().zip(other.sum()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(far <= 1e-5 * one.trace() * one.count() as f64, "layer {layer}: {far:e}");
            let (one, other) = (one.difference().unwrap(), other.difference().unwrap());
            assert!((one - other).abs() <= 1e-4 * one, "layer {layer}: {one} {other}");
        }
    }

    /// Wherever totals are, and however often they are fetched and begun anew.
    #[test]
    fn totals_there_are_those_here_to_the_last_bit() {
        let (decoder, rows) = (decoder(), rows(6));
        let (mut here, mut there) = (empty(&decoder, false), empty(&decoder, true));
        for (number, some) in rows.chunks(2).enumerate() {
            add(&mut here, &decoder, some, false);
            add(&mut there, &decoder, some, false);
            if number == 1 {
                let saved = there.layers().unwrap().clone();
                there = Moments::new();
                for (layer, moment) in saved {
                    there.there.insert(layer, Total::new(&moment, &decoder.device()));
                    there.insert(&decoder, layer, moment).unwrap();
                }
            }
        }
        let there = there.layers().unwrap();
        for (layer, one) in here.layers().unwrap() {
            assert_eq!(one.count(), there[layer].count());
            assert_eq!(one.sum(), there[layer].sum(), "layer {layer}");
        }
    }
}
