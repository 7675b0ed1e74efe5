//! A sample of a corpus: documents in an order that a seed gives, from files of any size.
//!
//! One pass gives every document the next number of a seeded generator and keeps the places of those with the smallest: the
//! sample in the order of these numbers. So the first n documents are the same whatever the sample's size, which is what lets
//! a larger sample go on from a smaller one, and memory is that of n places, 24 bytes each.

use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::documents::{Documents, again};
use crate::files::CorpusFile;
use crate::reading::Reading;
use crate::stream::Packing;
use crate::{DataError, Place};

/// Places kept at most: 800 MB. More documents than that are sampled, not taken all.
const MOST: usize = 1 << 25;
/// Texts kept at once of files that can only be read from the beginning: 128 MiB.
const WINDOW: usize = 128 << 20;
/// Documents between two calls of the watcher.
const WATCH: u64 = 1024;

/// Which documents, and in what order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Seed of the order.
    pub seed: u64,
    /// How many at most; all where it is `None`.
    pub most: Option<usize>,
}

/// A document's place; ordered by its number first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Chosen {
    number: u64,
    at: u64,
    file: u32,
    size: u32,
}

/// A sample of documents; their text is read when it is asked for.
pub struct Corpus {
    files: Vec<CorpusFile>,
    packings: Vec<Packing>,
    reading: Reading,
    chosen: Vec<Chosen>,
    found: u64,
    /// The plain file read last.
    open: Option<(u32, File)>,
    /// Texts of the next documents of packed files, by their place in the order.
    window: BTreeMap<usize, String>,
}

impl Corpus {
    /// Reads all files once and chooses the sample. `watch` hears now and then how many documents were found, and says
    /// whether to go on.
    ///
    /// # Errors
    /// [`DataError`] with file and line or row where a file cannot be read, is damaged, not UTF-8, lacks the field, or has a
    /// document of more than 64 MiB; where there is no document; where more than 2²⁵ would be taken; where `watch` said stop.
    pub fn open(
        files: Vec<CorpusFile>,
        reading: Reading,
        sampling: Sampling,
        watch: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Self, DataError> {
        let mut numbers = ChaCha8Rng::seed_from_u64(sampling.seed);
        let most = sampling.most.unwrap_or(usize::MAX);
        let mut chosen = BinaryHeap::new();
        let mut packings = Vec::with_capacity(files.len());
        let mut found = 0u64;
        for (file, source) in (0u32..).zip(&files) {
            let (mut documents, packing) = Documents::open(source, &reading)?;
            packings.push(packing);
            while let Some(document) = documents.next()? {
                found += 1;
                if found.is_multiple_of(WATCH) && !watch(found) {
                    return Err(DataError::new(&source.path, Place::File, "interrupted"));
                }
                let number = numbers.next_u64();
                if chosen.len() >= most {
                    if chosen.peek().is_none_or(|last: &Chosen| last.number <= number) {
                        continue;
                    }
                    chosen.pop();
                }
                if chosen.len() == MOST {
                    return Err(DataError::new(&source.path, Place::File, format!("more than {MOST} documents"))
                        .hint("say how many are taken with `samples`"));
                }
                chosen.push(Chosen { number, at: document.at, file, size: document.size });
            }
        }
        if found == 0 {
            let path = files.first().map(|file| file.path.clone()).unwrap_or_default();
            return Err(DataError::new(&path, Place::File, "the corpus holds no text"));
        }
        let chosen = chosen.into_sorted_vec();
        Ok(Self { files, packings, reading, chosen, found, open: None, window: BTreeMap::new() })
    }

    /// Number of documents in the sample.
    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    /// Whether the sample is empty.
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// Number of documents in the files.
    pub fn found(&self) -> u64 {
        self.found
    }

    /// Text of the sample's document `index`. Ask in rising order: packed files are read from their beginning for every
    /// 128 MiB of text.
    ///
    /// # Errors
    /// [`DataError`] where the files changed since they were opened.
    pub fn read(&mut self, index: usize) -> Result<String, DataError> {
        let place = self.chosen[index];
        if self.packings[place.file as usize] == Packing::Plain {
            return self.seek(place);
        }
        if !self.window.contains_key(&index) {
            self.fill(index)?;
        }
        self.window.remove(&index).ok_or_else(|| self.changed(place.file))
    }

    fn seek(&mut self, place: Chosen) -> Result<String, DataError> {
        let CorpusFile { path, format } = &self.files[place.file as usize];
        let io = |e: std::io::Error| DataError::io(path, &e);
        let file = match &mut self.open {
            Some((number, file)) if *number == place.file => file,
            open => &mut open.insert((place.file, File::open(path).map_err(io)?)).1,
        };
        let mut bytes = vec![0; place.size as usize];
        file.seek(SeekFrom::Start(place.at)).and_then(|_| file.read_exact(&mut bytes)).map_err(io)?;
        let record = String::from_utf8(bytes).map_err(|_| self.changed(place.file))?;
        again(path, *format, &record, &self.reading.field)
    }

    /// Reads the texts of the next documents of packed files.
    fn fill(&mut self, from: usize) -> Result<(), DataError> {
        self.window.clear();
        let mut wanted: BTreeMap<u32, BTreeMap<u64, usize>> = BTreeMap::new();
        let mut bytes = 0;
        for (index, place) in self.chosen.iter().enumerate().skip(from) {
            bytes += place.size as usize;
            if index > from && bytes > WINDOW {
                break;
            }
            if self.packings[place.file as usize] != Packing::Plain {
                wanted.entry(place.file).or_default().insert(place.at, index);
            }
        }
        for (file, mut places) in wanted {
            let (mut documents, _) = Documents::open(&self.files[file as usize], &self.reading)?;
            while !places.is_empty() {
                let Some(document) = documents.next()? else { return Err(self.changed(file)) };
                if let Some(index) = places.remove(&document.at) {
                    if document.size != self.chosen[index].size {
                        return Err(self.changed(file));
                    }
                    self.window.insert(index, document.text);
                }
            }
        }
        Ok(())
    }

    fn changed(&self, file: u32) -> DataError {
        DataError::new(&self.files[file as usize].path, Place::File, "the file changed while it was read")
    }
}
