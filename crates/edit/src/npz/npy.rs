//! One array of numpy's npy format: its header, and numbers in their bytes.
//!
//! Arrays of plain numbers only. An array of objects is a pickle, and reading one runs what it says.

use std::io::Read;

use half::f16;

/// numpy's own bound on a header that is not trusted.
const MOST_HEADER: usize = 10_000;
const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A float of 2, 4 or 8 bytes.
    Float,
    /// A signed whole number of 1, 2, 4 or 8 bytes.
    Int,
    /// The same, unsigned.
    Uint,
}

/// What stands before an array's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// How its numbers are stored.
    pub kind: Kind,
    /// Bytes of a number.
    pub bytes: usize,
    /// Whether the first byte is the highest.
    pub big_endian: bool,
    /// Sizes of the axes; none for a single number.
    pub shape: Vec<u64>,
}

impl Header {
    /// Reads one, and no byte beyond it.
    ///
    /// # Errors
    /// In words, for what is no header, is cut off, or tells of something else than plain numbers.
    pub fn read(reader: &mut dyn Read) -> Result<Self, String> {
        let mut start = [0; 8];
        fill(reader, &mut start)?;
        if &start[..6] != MAGIC {
            return Err("it is not an npy array".into());
        }
        let length = match start[6] {
            1 => {
                let mut bytes = [0; 2];
                fill(reader, &mut bytes)?;
                usize::from(u16::from_le_bytes(bytes))
            }
            2 | 3 => {
                let mut bytes = [0; 4];
                fill(reader, &mut bytes)?;
                u32::from_le_bytes(bytes) as usize
            }
            version => return Err(format!("it is of version {version} of the npy format; 1 to 3 are read")),
        };
        if length > MOST_HEADER {
            return Err(format!("its header has {length} bytes; {MOST_HEADER} are read"));
        }
        let mut text = vec![0; length];
        fill(reader, &mut text)?;
        let text = String::from_utf8(text).map_err(|_| "its header is not text")?;
        Parser { rest: &text }.header()
    }

    /// A header's bytes, padded as numpy pads it, for little-endian floats.
    pub fn write(descr: &str, shape: &[usize]) -> Vec<u8> {
        let sizes: String = match shape {
            [one] => format!("{one},"),
            many => many.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
        };
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
        // Magic, version, length and header together are a multiple of 64 bytes long, and end with a new line.
        let before = MAGIC.len() + 4;
        let padded = (before + text.len() + 1).next_multiple_of(64);
        text.extend(std::iter::repeat_n(' ', padded - before - text.len() - 1));
        text.push('\n');
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    /// How many numbers it has.
    pub fn count(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |count, &size| count.checked_mul(size))
    }

    /// numpy's name of the type.
    pub fn dtype(&self) -> String {
        let kind = match self.kind {
            Kind::Float => "float",
            Kind::Int => "int",
            Kind::Uint => "uint",
        };
        format!("{kind}{}", 8 * self.bytes)
    }

    /// Reads the next numbers.
    ///
    /// # Errors
    /// In words, where the array is cut off or damaged.
    pub fn numbers(&self, reader: &mut dyn Read, buffer: &mut Vec<u8>, numbers: &mut [f64]) -> Result<(), String> {
        buffer.resize(numbers.len() * self.bytes, 0);
        fill(reader, buffer)?;
        if self.big_endian {
            buffer.chunks_exact_mut(self.bytes).for_each(<[u8]>::reverse);
        }
        for (number, bytes) in numbers.iter_mut().zip(buffer.chunks_exact(self.bytes)) {
            *number = self.number(bytes);
        }
        Ok(())
    }

    /// One number from its bytes, the lowest first.
    fn number(&self, bytes: &[u8]) -> f64 {
        let mut eight = [0; 8];
        eight[..self.bytes].copy_from_slice(bytes);
        let [a, b, c, d, ..] = eight;
        match (self.kind, self.bytes) {
            (Kind::Float, 2) => f16::from_le_bytes([a, b]).to_f64(),
            (Kind::Float, 4) => f32::from_le_bytes([a, b, c, d]).into(),
            (Kind::Float, _) => f64::from_le_bytes(eight),
            (Kind::Uint, _) => u64::from_le_bytes(eight) as f64,
            (Kind::Int, size) => {
                let unused = 64 - 8 * size as u32;
                (i64::from_le_bytes(eight) << unused >> unused) as f64
            }
        }
    }
}

/// Fails where anything follows the array. At its end an archive compares its checksum.
///
/// # Errors
/// In words.
pub fn end(reader: &mut dyn Read) -> Result<(), String> {
    match reader.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err("it goes on after its last number".into()),
        Err(error) => Err(format!("it is damaged: {error}")),
    }
}

/// Fills a buffer, and says in our words why it could not.
fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> Result<(), String> {
    reader.read_exact(buffer).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "it is cut off".to_owned(),
        _ => format!("it is damaged: {error}"),
    })
}

/// Reads the Python literal of a header: a mapping with three keys.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn header(mut self) -> Result<Header, String> {
        let (mut descr, mut shape, mut order) = (None, None, false);
        self.expect('{')?;
        while !self.take('}') {
            let key = self.quoted()?;
            self.expect(':')?;
            match key {
                "descr" => descr = Some(self.descr()?),
                "fortran_order" => order = self.truth()?,
                "shape" => shape = Some(self.tuple()?),
                _ => return Err("its header has a key that the format does not know".into()),
            }
            if !self.take(',') {
                self.expect('}')?;
                break;
            }
        }
        let (Some((kind, bytes, big_endian)), Some(mut shape)) = (descr, shape) else {
            return Err("its header does not tell type and shape".into());
        };
        // Columns first is the same bytes as rows first of the transposed array.
        if order {
            shape.reverse();
        }
        Ok(Header { kind, bytes, big_endian, shape })
    }

    fn descr(&mut self) -> Result<(Kind, usize, bool), String> {
        if self.rest.trim_start().starts_with('[') {
            return Err("it holds records; plain numbers are read".into());
        }
        let text = self.quoted()?;
        let other = || format!("its numbers are of type {:?}; float16, float32, float64 and whole numbers are read", text);
        let mut chars = text.chars();
        let big_endian = match chars.next() {
            Some('>') => true,
            Some('<' | '|' | '=') => false,
            _ => return Err(other()),
        };
        match chars.as_str() {
            "f2" => Ok((Kind::Float, 2, big_endian)),
            "f4" => Ok((Kind::Float, 4, big_endian)),
            "f8" => Ok((Kind::Float, 8, big_endian)),
            "i1" => Ok((Kind::Int, 1, big_endian)),
            "i2" => Ok((Kind::Int, 2, big_endian)),
            "i4" => Ok((Kind::Int, 4, big_endian)),
            "i8" => Ok((Kind::Int, 8, big_endian)),
            "u1" => Ok((Kind::Uint, 1, big_endian)),
            "u2" => Ok((Kind::Uint, 2, big_endian)),
            "u4" => Ok((Kind::Uint, 4, big_endian)),
            "u8" => Ok((Kind::Uint, 8, big_endian)),
            kind if kind.starts_with('O') => {
                Err("it holds Python objects, whose reading could run anything; numbers are read".into())
            }
            _ => Err(other()),
        }
    }

    fn truth(&mut self) -> Result<bool, String> {
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.trim_start().strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(unreadable())
    }

    fn tuple(&mut self) -> Result<Vec<u64>, String> {
        let mut sizes = Vec::new();
        self.expect('(')?;
        while !self.take(')') {
            let rest = self.rest.trim_start();
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            sizes.push(rest[..end].parse().map_err(|_| unreadable())?);
            // Python 2 wrote long numbers with an L.
            self.rest = rest[end..].strip_prefix('L').unwrap_or(&rest[end..]);
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(sizes)
    }

    fn quoted(&mut self) -> Result<&'a str, String> {
        let rest = self.rest.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or_else(unreadable)?;
        let (text, rest) = rest[1..].split_once(quote).ok_or_else(unreadable)?;
        self.rest = rest;
        Ok(text)
    }

    fn take(&mut self, what: char) -> bool {
        match self.rest.trim_start().strip_prefix(what) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, what: char) -> Result<(), String> {
        if self.take(what) { Ok(()) } else { Err(unreadable()) }
    }
}

fn unreadable() -> String {
    "its header does not read".into()
}
