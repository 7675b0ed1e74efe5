//! The container: keys with values, and tensors with their places. Nothing in it is trusted: every count is compared with the bytes that
//! are left before anything is made room for, and lists stay where they are until someone looks at them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::ModelError;
use crate::checkpoint::bytes::Bytes;
use crate::checkpoint::gguf::blocks::GgufType;

/// What a file begins with.
const MAGIC: [u8; 4] = *b"GGUF";
/// Bytes of a text outside lists: chat templates are the longest.
const LONGEST: usize = 16 << 20;
/// Bytes of everything before the tensors' values.
const HEADER: usize = 512 << 20;
/// Of those, what is read first.
const FIRST: usize = 16 << 20;

/// An open file.
pub struct Gguf {
    /// Where it lies.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Bytes,
    /// Those before the tensors' values, and maybe more.
    begin: Vec<u8>,
    keys: BTreeMap<String, Value>,
    /// Magic, version, counts, keys and values.
    head: Range<usize>,
    /// Its tensors, in the file's order.
    pub tensors: Vec<Tensor>,
    /// What places of tensors are multiples of.
    pub alignment: usize,
}

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Whole(i128),
    Number(f64),
    Flag(bool),
    Text(String),
    List(List),
}

/// A list, which is read when it is needed.
#[derive(Clone, Debug, PartialEq)]
struct List {
    kind: u32,
    count: usize,
    bytes: Range<usize>,
}

/// A tensor.
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its sides, the outermost first, as torch has them.
    pub shape: Vec<usize>,
    /// Its type.
    pub kind: GgufType,
    /// Where it lies in the file.
    pub bytes: Range<usize>,
}

const TEXT: u32 = 8;
const LIST: u32 = 9;

impl Gguf {
    /// Whether a file says that it is one.
    pub fn is(path: &Path) -> bool {
        let mut begins = [0; 4];
        path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut begins)).is_ok() && begins == MAGIC
    }

    /// Opens a file and reads what stands before the values.
    ///
    /// # Errors
    /// [`ModelError::Io`]; [`ModelError::Gguf`] for one that is damaged, of another version, one part of several, or with a tensor of a type
    /// that is not read.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let bytes = Bytes::open(path)?;
        let most = bytes.len().min(HEADER);
        // Nothing says how long the beginning is, and the values behind it are most of the file.
        let mut length = most.min(FIRST);
        let file = loop {
            match Beginning::of(bytes.read(0..length)?, bytes.len()) {
                Ok(Beginning { bytes: begin, head, keys, tensors, alignment }) => {
                    break Self { path: path.into(), bytes, begin, keys, head, tensors, alignment };
                }
                Err(_) if length < most => length = length.saturating_mul(8).min(most),
                Err(message) => return Err(ModelError::Gguf { path: path.into(), message }),
            }
        };
        match file.whole("split.count")? {
            Some(parts) if parts > 1 => {
                let message = format!("it is one of {parts} parts: join them with llama.cpp's gguf-split first");
                Err(ModelError::Gguf { path: path.into(), message })
            }
            _ => Ok(file),
        }
    }

    /// An error that names the file.
    pub fn wrong(&self, message: impl Into<String>) -> ModelError {
        ModelError::config(&self.path, message)
    }

    /// A tensor by its name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// All values of a tensor, row-major.
    ///
    /// # Errors
    /// [`ModelError::Checkpoint`] where the file has become shorter; [`ModelError::Io`].
    pub fn values(&self, tensor: &Tensor) -> Result<Vec<f32>, ModelError> {
        let bytes = self.bytes.read(tensor.bytes.clone())?;
        let mut values = Vec::with_capacity(tensor.shape.iter().product());
        tensor.kind.extend_f32(&bytes, &mut values);
        Ok(values)
    }

    /// What stands before the tensors' descriptions, as it is stored.
    pub fn head(&self) -> &[u8] {
        &self.begin[self.head.clone()]
    }

    /// A text of the metadata.
    ///
    /// # Errors
    /// Where the key holds something else; so with the others.
    pub fn text(&self, key: &str) -> Result<Option<&str>, ModelError> {
        match self.keys.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(format!("{key} is not a text"))),
        }
    }

    /// A whole number that is not negative.
    pub fn whole(&self, key: &str) -> Result<Option<u64>, ModelError> {
        match self.keys.get(key) {
            None => Ok(None),
            Some(Value::Whole(n)) if u64::try_from(*n).is_ok() => Ok(u64::try_from(*n).ok()),
            Some(_) => Err(self.wrong(format!("{key} is not a whole number of 0 or more"))),
        }
    }

    /// A number.
    pub fn number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        match self.keys.get(key) {
            None => Ok(None),
            Some(Value::Number(n)) => Ok(Some(*n)),
            Some(Value::Whole(n)) => Ok(Some(*n as f64)),
            Some(_) => Err(self.wrong(format!("{key} is not a number"))),
        }
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        match self.keys.get(key) {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(format!("{key} is not true or false"))),
        }
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, ModelError> {
        let Some((list, mut at)) = self.list(key)? else { return Ok(None) };
        if list.kind != TEXT {
            return Err(self.wrong(format!("{key} is not a list of texts")));
        }
        let texts = (0..list.count).map(|_| at.str(LONGEST)).collect::<Result<_, _>>();
        texts.map(Some).map_err(|message| self.wrong(format!("{key}: {message}")))
    }

    /// A list of numbers.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, ModelError> {
        let Some((list, mut at)) = self.list(key)? else { return Ok(None) };
        let mut numbers = Vec::with_capacity(list.count);
        for _ in 0..list.count {
            match at.value(list.kind).map_err(|message| self.wrong(format!("{key}: {message}")))? {
                Value::Whole(n) => numbers.push(n as f64),
                Value::Number(n) => numbers.push(n),
                _ => return Err(self.wrong(format!("{key} is not a list of numbers"))),
            }
        }
        Ok(Some(numbers))
    }

    fn list(&self, key: &str) -> Result<Option<(&List, Cursor<'_>)>, ModelError> {
        match self.keys.get(key) {
            None => Ok(None),
            Some(Value::List(list)) => {
                Ok(Some((list, Cursor { bytes: &self.begin[..list.bytes.end], at: list.bytes.start })))
            }
            Some(_) => Err(self.wrong(format!("{key} is not a list"))),
        }
    }
}

/// What stands before the values.
struct Beginning {
    bytes: Vec<u8>,
    head: Range<usize>,
    keys: BTreeMap<String, Value>,
    tensors: Vec<Tensor>,
    alignment: usize,
}

impl Beginning {
    /// Of the first bytes of a file of `len`.
    fn of(mut bytes: Vec<u8>, len: usize) -> Result<Self, String> {
        let (head, keys) = Cursor { bytes: &bytes, at: 0 }.keys()?;
        let alignment = match keys.get("general.alignment") {
            None => 32,
            Some(Value::Whole(n)) if (1..=1 << 20).contains(n) && (*n as usize).is_power_of_two() => *n as usize,
            Some(_) => return Err("general.alignment is not a power of two up to 1048576".into()),
        };
        let mut at = Cursor { bytes: &bytes, at: head.bytes.end };
        let mut found = Vec::new();
        for _ in 0..head.tensors {
            let name = at.text(1 << 10)?;
            let sides = at.u32()? as usize;
            if !(1..=4).contains(&sides) {
                return Err(format!("tensor {name} has {sides} sides, expected 1 to 4"));
            }
            let mut shape = (0..sides).map(|_| at.size()).collect::<Result<Vec<_>, _>>()?;
            let kind = GgufType::of(at.u32()?).map_err(|other| {
                let known = GgufType::ALL.map(|kind| format!("{kind:?}")).join(", ");
                format!("tensor {name} is stored as {other}, which is not read (read are {known})")
            })?;
            let offset = at.size()?;
            let (values, size) = kind.block();
            let row = shape[0];
            if row == 0 || !row.is_multiple_of(values) {
                return Err(format!("tensor {name} has rows of {row}, which {kind:?} cannot hold"));
            }
            let all = shape.iter().try_fold(1usize, |all, &side| all.checked_mul(side));
            let bytes = all.and_then(|all| (all / values).checked_mul(size));
            let bytes = bytes.ok_or_else(|| format!("tensor {name} is larger than any memory"))?;
            shape.reverse();
            found.push((Tensor { name, shape, kind, bytes: 0..bytes }, offset));
        }
        let begin = at.at.next_multiple_of(alignment);
        let mut names = BTreeSet::new();
        let mut tensors = Vec::with_capacity(found.len());
        for (tensor, offset) in found {
            if !names.insert(tensor.name.clone()) {
                return Err(format!("it has tensor {} twice", tensor.name));
            }
            let from = begin.checked_add(offset).filter(|_| offset.is_multiple_of(alignment));
            let place = from.and_then(|from| Some(from..from.checked_add(tensor.bytes.end)?));
            match place {
                Some(bytes) if bytes.end <= len => tensors.push(Tensor { bytes, ..tensor }),
                _ => return Err(format!("tensor {} lies beyond the end of the file, or between places", tensor.name)),
            }
        }
        let end = at.at;
        bytes.truncate(end);
        Ok(Self { bytes, head: head.bytes, keys, tensors, alignment })
    }
}

/// What stands before the tensors' descriptions.
struct Head {
    tensors: usize,
    bytes: Range<usize>,
}

/// Reads on from a place, and never beyond the end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| "it ends in the middle of its description".to_owned())?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    /// A count or a place.
    fn size(&mut self) -> Result<usize, String> {
        let size = u64::from_le_bytes(self.array()?);
        usize::try_from(size).map_err(|_| format!("it counts {size}"))
    }

    /// How many of something that takes at least `each` bytes follow.
    fn count(&mut self, each: usize) -> Result<usize, String> {
        let count = self.size()?;
        let left = self.bytes.len() - self.at;
        if count > left / each {
            return Err(format!("it counts {count} of something in {left} bytes"));
        }
        Ok(count)
    }

    fn str(&mut self, most: usize) -> Result<&'a str, String> {
        let length = self.size()?;
        if length > most {
            return Err(format!("a text of {length} bytes, expected at most {most}"));
        }
        std::str::from_utf8(self.take(length)?).map_err(|_| "a text is not UTF-8".to_owned())
    }

    fn text(&mut self, most: usize) -> Result<String, String> {
        self.str(most).map(str::to_owned)
    }

    fn keys(mut self) -> Result<(Head, BTreeMap<String, Value>), String> {
        if self.array()? != MAGIC {
            return Err("it does not begin with GGUF".into());
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("it is of version {version}, expected 2 or 3 (little-endian)"));
        }
        let begin = 0;
        // A name, a number of sides, a side, a type, a place.
        let tensors = self.count(8 + 4 + 8 + 4 + 8)?;
        let count = self.count(8 + 4 + 1)?;
        let mut keys = BTreeMap::new();
        for _ in 0..count {
            let key = self.text(1 << 16)?;
            let kind = self.u32()?;
            let value = self.value(kind).map_err(|message| format!("{}: {message}", shown(&key)))?;
            if keys.insert(key.clone(), value).is_some() {
                return Err(format!("it has {} twice", shown(&key)));
            }
        }
        Ok((Head { tensors, bytes: begin..self.at }, keys))
    }

    fn value(&mut self, kind: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Whole(u8::from_le_bytes(self.array()?).into()),
            1 => Value::Whole(i8::from_le_bytes(self.array()?).into()),
            2 => Value::Whole(u16::from_le_bytes(self.array()?).into()),
            3 => Value::Whole(i16::from_le_bytes(self.array()?).into()),
            4 => Value::Whole(u32::from_le_bytes(self.array()?).into()),
            5 => Value::Whole(i32::from_le_bytes(self.array()?).into()),
            // What was written as 0.00001 in single precision is meant as that.
            6 => Value::Number(shortest(f32::from_le_bytes(self.array()?))),
            7 => Value::Flag(self.array::<1>()? != [0]),
            TEXT => Value::Text(self.text(LONGEST)?),
            LIST => Value::List(self.list()?),
            10 => Value::Whole(u64::from_le_bytes(self.array()?).into()),
            11 => Value::Whole(i64::from_le_bytes(self.array()?).into()),
            12 => Value::Number(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("a value of the unknown kind {other}")),
        })
    }

    /// Goes over a list.
    fn list(&mut self) -> Result<List, String> {
        let kind = self.u32()?;
        let each = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            TEXT | 10..=12 => 8,
            LIST => return Err("a list of lists".into()),
            other => return Err(format!("a list of the unknown kind {other}")),
        };
        let count = self.count(each)?;
        let begin = self.at;
        if kind == TEXT {
            for _ in 0..count {
                let length = self.size()?;
                self.take(length)?;
            }
        } else {
            self.take(count * each)?;
        }
        Ok(List { kind, count, bytes: begin..self.at })
    }
}

/// The shortest decimal number that is this one in single precision.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn shown(key: &str) -> String {
    key.chars().take(80).collect()
}
