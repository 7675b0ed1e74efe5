//! The stable encoding under every key and content digest.
//!
//! Each value is written as a type tag, a length where it has one, and its bytes, so that no two different values share an
//! encoding and nothing depends on how a serialiser happens to print. Changing anything here changes every key: raise
//! [`SCHEMA`] when you do.
//!
//! Why not hash the JSON text? Two serialisers, or two versions of one, print the same number as `1e-3` and `0.001`, order the fields of
//! a mapping as they like, and escape text in more than one way: a key would change with a dependency, and weeks of covariances with it.
//! Why the lengths? Without them `["ab", "c"]` and `["a", "bc"]` feed the same bytes to the hasher. A whole number has one encoding
//! whether it was held as signed or unsigned; a float is its bits, and −0 is 0, since YAML's `-0.0` means nothing else. The integer 1 and
//! the float 1.0 stay different: which of the two a parameter is, its type decides before it comes here.

use serde_json::Value;

use crate::digest::Digest;

/// Version of the encoding; part of every digest made with it.
pub const SCHEMA: u32 = 1;

/// Feeds typed values into a BLAKE3 hasher.
pub struct Encoder(blake3::Hasher);

impl Encoder {
    /// Starts an encoding; `domain` keeps digests of different things apart.
    pub fn new(domain: &str) -> Self {
        let mut encoder = Self(blake3::Hasher::new());
        encoder.str(domain).uint(SCHEMA.into());
        encoder
    }

    /// An absent value.
    pub fn null(&mut self) -> &mut Self {
        self.tag(b'n')
    }

    /// A truth value.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.tag(if value { b't' } else { b'f' })
    }

    /// A whole number.
    pub fn int(&mut self, value: i64) -> &mut Self {
        self.whole(value.into())
    }

    /// A whole number; equal to [`Encoder::int`] of the same value.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.whole(value.into())
    }

    /// A floating-point number by its bits, with −0 as 0.
    pub fn float(&mut self, value: f64) -> &mut Self {
        let value = if value == 0.0 { 0.0 } else { value };
        self.tag(b'd').raw(&value.to_bits().to_le_bytes())
    }

    /// Text.
    pub fn str(&mut self, value: &str) -> &mut Self {
        self.tag(b's').len(value.len()).raw(value.as_bytes())
    }

    /// Raw bytes.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.tag(b'b').len(value.len()).raw(value)
    }

    /// The start of a list; its `len` items follow.
    pub fn list(&mut self, len: usize) -> &mut Self {
        self.tag(b'l').len(len)
    }

    /// The start of a mapping; `len` pairs of a text and a value follow, sorted by the text.
    pub fn map(&mut self, len: usize) -> &mut Self {
        self.tag(b'm').len(len)
    }

    /// Any JSON value; mappings are sorted here, whatever order they come in.
    pub fn value(&mut self, value: &Value) -> &mut Self {
        match value {
            Value::Null => self.null(),
            Value::Bool(value) => self.bool(*value),
            Value::Number(number) => {
                if let Some(value) = number.as_u64() {
                    self.uint(value)
                } else if let Some(value) = number.as_i64() {
                    self.int(value)
                } else {
                    self.float(number.as_f64().unwrap_or(f64::NAN))
                }
            }
            Value::String(value) => self.str(value),
            Value::Array(items) => {
                self.list(items.len());
                items.iter().fold(self, Self::value)
            }
            Value::Object(map) => {
                let mut pairs: Vec<_> = map.iter().collect();
                pairs.sort_unstable_by_key(|(name, _)| *name);
                self.map(pairs.len());
                pairs.into_iter().fold(self, |encoder, (name, value)| encoder.str(name).value(value))
            }
        }
    }

    /// The digest of all that was written.
    pub fn finish(&self) -> Digest {
        Digest::from_bytes(*self.0.finalize().as_bytes())
    }

    fn tag(&mut self, tag: u8) -> &mut Self {
        self.raw(&[tag])
    }

    fn len(&mut self, len: usize) -> &mut Self {
        self.raw(&(len as u64).to_le_bytes())
    }

    fn whole(&mut self, value: i128) -> &mut Self {
        self.tag(b'i').raw(&value.to_le_bytes())
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }
}
