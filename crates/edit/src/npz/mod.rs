//! Second moments in the files that ROME and MEMIT publish and read: numpy's npz, a zip archive of arrays.
//!
//! `mom2.mom2` is the **sum** of `k kᵀ`, `[f, f]`, to be divided by `mom2.count`, the number of tokens. Reading it as a mean
//! makes preservation weigh a million times too much, and nothing else shows that.

mod npy;

use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::{Path, PathBuf};

use npyz::NpyHeader;
use palinode_math::{MathError, SecondMoment};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::EditError;

const SUM: &str = "mom2.mom2";
const COUNT: &str = "mom2.count";
const CONSTRUCTOR: &str = "mom2.constructor";
const SAMPLES: &str = "sample_size";
/// Which model's and which layer's keys they are of, in files that we write. Other programs read the entries that they know.
const MODEL: &str = "palinode.model";
const LAYER: &str = "palinode.layer";
/// The trace of C in decimal digits, by which a sum that was changed since is known.
const CHECK: &str = "palinode.check";
/// A digest in letters, and room.
const LONGEST_NAME: u64 = 256;
/// What the reference implementations write there.
const CONSTRUCTED_BY: &str = "util.runningstats.SecondMoment()";
/// The reference keeps whole numbers; beyond this a float does not.
const MOST_TOKENS: f64 = 9_007_199_254_740_992.0;

/// The number type of a sum in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Precision {
    /// 32 bits, as the published files are.
    #[default]
    #[serde(rename = "float32")]
    Single,
    /// 64 bits, as they were measured.
    #[serde(rename = "float64")]
    Double,
}

impl Precision {
    /// The word in a file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "float32",
            Self::Double => "float64",
        }
    }
}

/// What a second moment was measured on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The model, by its digest.
    pub model: String,
    /// The layer.
    pub layer: usize,
}

/// A moment file, opened: what it says before its sum is read.
#[derive(Debug)]
pub struct MomentFile {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
    size: usize,
    count: u64,
    samples: Option<u64>,
    origin: Option<Origin>,
    trace: Option<f64>,
    dtype: String,
}

impl MomentFile {
    /// Opens one and reads everything but the sum.
    ///
    /// # Errors
    /// [`EditError::MomentFile`], naming file and entry, for one that is no npz archive, is cut off, lacks an entry, or whose
    /// entries are of another type or shape.
    pub fn open(path: &Path) -> Result<Self, EditError> {
        let wrong = |message: String| EditError::MomentFile { path: path.to_owned(), message };
        let file =
            File::open(path).map_err(|source| palinode_model::ModelError::Io { path: path.to_owned(), source })?;
        let mut archive = ZipArchive::new(BufReader::with_capacity(1 << 20, file)).map_err(|error| match error {
            ZipError::InvalidArchive(_) => wrong("it is not an npz archive, or it is cut off".into()),
            other => wrong(other.to_string()),
        })?;
        let header = entry(&mut archive, SUM, |_, header| Ok(header.clone())).map_err(&wrong)?;
        let dtype = npy::type_name(&header);
        let size = match header.shape() {
            [rows, columns] if rows == columns => usize::try_from(*rows).ok(),
            _ => None,
        };
        let Some(size) = size.filter(|size| *size > 0 && dtype.contains('f')) else {
            let shape: Vec<String> = header.shape().iter().map(u64::to_string).collect();
            let shape = shape.join(", ");
            return Err(wrong(format!("{SUM} is [{shape}] of {dtype}, not a square matrix of floats")));
        };
        let count = whole(&mut archive, COUNT).map_err(&wrong)?;
        if count == 0 {
            return Err(wrong(format!("{COUNT} is 0: nothing was measured")));
        }
        let samples = whole(&mut archive, SAMPLES).ok();
        let origin = if archive.index_for_name(&file_name(MODEL)).is_some() {
            let model = name(&mut archive, MODEL).map_err(&wrong)?;
            let layer = whole(&mut archive, LAYER).map_err(&wrong)? as usize;
            Some(Origin { model, layer })
        } else {
            None
        };
        let trace = if archive.index_for_name(&file_name(CHECK)).is_some() {
            let text = name(&mut archive, CHECK).map_err(&wrong)?;
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
            Some(number.ok_or_else(|| wrong(format!("{CHECK} is {text:?}, not a number")))?)
        } else {
            None
        };
        Ok(Self { path: path.to_owned(), archive, size, count, samples, origin, trace, dtype })
    }

    /// Key size `f`.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Tokens counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Documents read, where the file says it.
    pub fn samples(&self) -> Option<u64> {
        self.samples
    }

    /// What it was measured on, where the file says it.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// The trace of `C` when it was written, where the file says it.
    pub fn trace(&self) -> Option<f64> {
        self.trace
    }

    /// numpy's name of the type that the sum is stored in.
    pub fn dtype(&self) -> &str {
        &self.dtype
    }

    /// Reads the sum of keys of size `f`, row by row.
    ///
    /// # Errors
    /// [`EditError::MomentFile`] for another size, and for an array that is cut off, damaged, longer than its shape, or no
    /// second moment.
    pub fn read(mut self, f: usize) -> Result<SecondMoment, EditError> {
        let wrong = |message: String| EditError::MomentFile { path: self.path.clone(), message };
        if self.size != f {
            return Err(wrong(format!("{SUM} is of keys of size {}, but the model's are of size {f}", self.size)));
        }
        let count = self.count;
        entry(&mut self.archive, SUM, |reader, header| {
            let mut numbers = npy::numbers(header, reader)?;
            let moment = SecondMoment::from_rows(f, count, |_, row| {
                for value in row {
                    let number = numbers.next().ok_or_else(|| Trouble("it is cut off".into()))?;
                    *value = number.map_err(|error| Trouble(npy::broken(&error)))?;
                }
                Ok(())
            });
            let moment = moment.map_err(|Trouble(what)| what)?;
            drop(numbers);
            npy::end(reader)?;
            Ok(moment)
        })
        .map_err(wrong)
    }
}

/// Reads an entry that is one whole number.
fn whole(archive: &mut ZipArchive<BufReader<File>>, name: &str) -> Result<u64, String> {
    entry(archive, name, |reader, header| {
        if header.shape().iter().any(|&size| size != 1) {
            return Err("it is an array, not a single number".into());
        }
        let number = npy::numbers(header, reader)?.next().ok_or("it is empty")?;
        let number = number.map_err(|error| npy::broken(&error))?;
        npy::end(reader)?;
        if (0.0..=MOST_TOKENS).contains(&number) && number.fract() == 0.0 {
            Ok(number as u64)
        } else {
            Err(format!("it is {number}, not a whole number of 0 or more"))
        }
    })
}

/// Reads an entry that is a text, stored as its bytes.
fn name(archive: &mut ZipArchive<BufReader<File>>, name: &str) -> Result<String, String> {
    entry(archive, name, |reader, header| {
        if !matches!(header.shape(), [length] if *length <= LONGEST_NAME) {
            return Err("it is no list of bytes, or too long a one".into());
        }
        let mut bytes = Vec::new();
        for number in npy::numbers(header, reader)? {
            bytes.push(number.map_err(|error| npy::broken(&error))? as u8);
        }
        npy::end(reader)?;
        String::from_utf8(bytes).map_err(|_| "it is no text".into())
    })
}

/// Why a sum did not read, in words.
struct Trouble(String);

impl From<MathError> for Trouble {
    fn from(error: MathError) -> Self {
        Self(error.to_string())
    }
}

/// Writes a second moment as the reference implementations do. `samples` is the number of documents: they refuse a file of
/// another number than they were asked for. `origin` is what it was measured on, where that is known.
///
/// # Errors
/// [`palinode_model::ModelError::Io`].
pub fn write_moment(
    moment: &SecondMoment,
    samples: Option<u64>,
    origin: Option<&Origin>,
    precision: Precision,
    target: &Path,
) -> Result<(), EditError> {
    let failed = |source: std::io::Error| palinode_model::ModelError::Io { path: target.to_owned(), source };
    let f = moment.size();
    let write = || -> Result<(), ZipError> {
        let mut archive = ZipWriter::new(BufWriter::with_capacity(1 << 20, File::create(target)?));
        let plain = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        archive.start_file(file_name(CONSTRUCTOR), plain)?;
        npy::write_text(&mut archive, CONSTRUCTED_BY)?;
        let mut whole = vec![(COUNT, moment.count())];
        whole.extend(samples.map(|samples| (SAMPLES, samples)));
        whole.extend(origin.map(|origin| (LAYER, origin.layer as u64)));
        for (name, value) in whole {
            archive.start_file(file_name(name), plain)?;
            npy::write_number(&mut archive, value as i64)?;
        }
        let texts = origin.map(|origin| [(MODEL, origin.model.clone()), (CHECK, format!("{:e}", moment.trace()))]);
        for (name, text) in texts.into_iter().flatten() {
            archive.start_file(file_name(name), plain)?;
            let mut bytes = npy::begin(&mut archive, &[text.len() as u64])?;
            bytes.extend(text.bytes())?;
            bytes.finish()?;
        }
        // Beyond 4 GiB an entry has to be said to be large.
        archive.start_file(file_name(SUM), plain.large_file(f * f >= 1 << 29))?;
        let shape = [f as u64, f as u64];
        match precision {
            Precision::Single => {
                let mut sum = npy::begin(&mut archive, &shape)?;
                (0..f).try_for_each(|i| sum.extend(moment.row(i).map(|v| v as f32)))?;
                sum.finish()?;
            }
            Precision::Double => {
                let mut sum = npy::begin(&mut archive, &shape)?;
                (0..f).try_for_each(|i| sum.extend(moment.row(i)))?;
                sum.finish()?;
            }
        }
        archive.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        Ok(())
    };
    write().map_err(|error| match error {
        ZipError::Io(error) => failed(error),
        other => failed(std::io::Error::other(other)),
    })?;
    Ok(())
}

fn file_name(entry: &str) -> String {
    format!("{entry}.npy")
}

/// Reads an entry: its header, then what `read` reads of its numbers. Where `read` has read them all, nothing may follow, and
/// the archive's checksum is compared.
fn entry<T>(
    archive: &mut ZipArchive<BufReader<File>>,
    name: &str,
    read: impl FnOnce(&mut dyn Read, &NpyHeader) -> Result<T, String>,
) -> Result<T, String> {
    match archive.by_name(&file_name(name)) {
        Ok(entry) => {
            let mut entry = BufReader::new(entry);
            let within = |what: String| format!("{name}: {what}");
            let header = npy::header(&mut entry).map_err(within)?;
            return read(&mut entry, &header).map_err(within);
        }
        Err(ZipError::FileNotFound) => {}
        Err(error) => return Err(format!("{name}: {error}")),
    }
    let names: Vec<String> = archive.file_names().flatten().take(8).map(std::borrow::Cow::into_owned).collect();
    let has = if names.is_empty() { "none at all".into() } else { names.join(", ") };
    Err(format!("it has no entry {name}, but {has}"))
}
