//! The number types of GGUF tensors, and their values in f32.
//!
//! A quantized tensor is a row of blocks. A block has one or two scales in f16 and its values as small whole numbers; blocks of the K types
//! hold 256 values in groups of 16 or 32, whose scales are small whole numbers too. Products and sums are taken in f32 in the order in
//! which the format's own program takes them, so that values are the same to the last bit.

use half::{bf16, f16};

/// A type that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "the format's own names")]
pub enum GgufType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
}

/// Values in a block of the K types.
const LARGE: usize = 256;
/// Values in a block of the others.
const SMALL: usize = 32;

/// Names of the types that are not read, by number.
const OTHERS: [(u32, &str); 22] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
];

impl GgufType {
    /// Every one.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// The type with this number; the name of one that is not read.
    pub fn of(number: u32) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.number() == number).ok_or_else(|| {
            let known = OTHERS.iter().find(|(other, _)| *other == number);
            known.map_or_else(|| format!("the unknown type {number}"), |(_, name)| (*name).to_owned())
        })
    }

    /// Its number in a file.
    pub fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2_K => 10,
            Self::Q3_K => 11,
            Self::Q4_K => 12,
            Self::Q5_K => 13,
            Self::Q6_K => 14,
            Self::BF16 => 30,
        }
    }

    /// Values in a block, and the block's bytes.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::BF16 => (1, 2),
            Self::Q4_0 => (SMALL, 2 + 16),
            Self::Q4_1 => (SMALL, 4 + 16),
            Self::Q5_0 => (SMALL, 2 + 4 + 16),
            Self::Q5_1 => (SMALL, 4 + 4 + 16),
            Self::Q8_0 => (SMALL, 2 + 32),
            Self::Q2_K => (LARGE, 16 + 64 + 4),
            Self::Q3_K => (LARGE, 32 + 64 + 12 + 2),
            Self::Q4_K => (LARGE, 4 + 12 + 128),
            Self::Q5_K => (LARGE, 4 + 12 + 32 + 128),
            Self::Q6_K => (LARGE, 128 + 64 + 16 + 2),
        }
    }

    /// Bytes of so many values, which are whole blocks.
    pub fn bytes(self, values: usize) -> usize {
        let (each, size) = self.block();
        values / each * size
    }

    /// Appends the values of whole blocks. Bytes beyond the last whole block are not looked at.
    pub fn extend_f32(self, data: &[u8], values: &mut Vec<f32>) {
        let (_, size) = self.block();
        for block in data.chunks_exact(size) {
            match self {
                Self::F32 => values.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
                Self::F16 => values.push(half_at(block, 0)),
                Self::BF16 => values.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
                Self::Q4_0 => nibbles(values, &block[2..], half_at(block, 0), |q, _| f32::from(q) - 8.0, 0.0),
                Self::Q4_1 => nibbles(values, &block[4..], half_at(block, 0), |q, _| f32::from(q), half_at(block, 2)),
                Self::Q5_0 => {
                    let high = bits(block, 2);
                    nibbles(values, &block[6..], half_at(block, 0), |q, i| f32::from(fifth(high, q, i)) - 16.0, 0.0);
                }
                Self::Q5_1 => {
                    let (high, least) = (bits(block, 4), half_at(block, 2));
                    nibbles(values, &block[8..], half_at(block, 0), |q, i| f32::from(fifth(high, q, i)), least);
                }
                Self::Q8_0 => {
                    let scale = half_at(block, 0);
                    values.extend(block[2..].iter().map(|&q| f32::from(q.cast_signed()) * scale));
                }
                Self::Q2_K => q2_k(block, values),
                Self::Q3_K => q3_k(block, values),
                Self::Q4_K => q45_k(block, &block[16..144], None, values),
                Self::Q5_K => q45_k(block, &block[48..176], Some(&block[16..48]), values),
                Self::Q6_K => q6_k(block, values),
            }
        }
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Value `i`'s four low bits with its fifth.
fn fifth(high: u32, low: u8, i: usize) -> u8 {
    low | (((high >> i) & 1) as u8) << 4
}

/// A block of 32 values: low halves of 16 bytes are the first 16 of them, high halves the others. `value(q, i)` · scale + least.
fn nibbles(values: &mut Vec<f32>, packed: &[u8], scale: f32, value: impl Fn(u8, usize) -> f32, least: f32) {
    for shift in [0, 4] {
        for (i, &byte) in packed[..SMALL / 2].iter().enumerate() {
            values.push(scale * value((byte >> shift) & 15, i + 4 * shift) + least);
        }
    }
}

/// Scales of 16 groups, values of two bits, and the two scales of the scales.
fn q2_k(block: &[u8], values: &mut Vec<f32>) {
    let (scales, packed) = (&block[..16], &block[16..80]);
    let (of_scales, of_least) = (half_at(block, 80), half_at(block, 82));
    for i in 0..LARGE {
        let scale = scales[i / 16];
        let q = (packed[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4))) & 3;
        values.push(of_scales * f32::from(scale & 15) * f32::from(q) - of_least * f32::from(scale >> 4));
    }
}

/// High bits (where one is not set, 4 is subtracted), values of two bits, sixteen scales of six bits.
fn q3_k(block: &[u8], values: &mut Vec<f32>) {
    let (high, packed, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let all = half_at(block, 108);
    let scale = |group: usize| {
        let low = (scales[group % 8] >> (4 * (group / 8))) & 15;
        let top = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
        all * (f32::from(low | top << 4) - 32.0)
    };
    for i in 0..LARGE {
        let q = (packed[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4))) & 3;
        let offset = if high[i % 32] >> (i / 32) & 1 == 0 { 4.0 } else { 0.0 };
        values.push(scale(i / 16) * (f32::from(q) - offset));
    }
}

/// Eight groups with scales and least values of six bits each; `high` are the fifth bits of Q5_K.
fn q45_k(block: &[u8], packed: &[u8], high: Option<&[u8]>, values: &mut Vec<f32>) {
    let (of_scales, of_least, parts) = (half_at(block, 0), half_at(block, 2), &block[4..16]);
    for group in 0..8 {
        let j = group % 4;
        let (scale, least) = if group < 4 {
            (parts[j] & 0x3f, parts[4 + j] & 0x3f)
        } else {
            (parts[8 + j] & 0xf | (parts[j] >> 2) & 0x30, parts[8 + j] >> 4 | (parts[4 + j] >> 2) & 0x30)
        };
        let (scale, least) = (of_scales * f32::from(scale), of_least * f32::from(least));
        for i in 0..32 {
            let low = (packed[group / 2 * 32 + i] >> (4 * (group % 2))) & 15;
            let top = high.map_or(0, |high| (high[i] >> group & 1) << 4);
            values.push(scale * f32::from(low | top) - least);
        }
    }
}

/// Four low bits, two high bits, sixteen scales of eight bits.
fn q6_k(block: &[u8], values: &mut Vec<f32>) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let all = half_at(block, 208);
    for i in 0..LARGE {
        let l = (low[i / 128 * 64 + i % 64] >> (4 * (i / 64 % 2))) & 15;
        let h = (high[i / 128 * 32 + i % 32] >> (2 * (i / 32 % 4))) & 3;
        let scale = all * f32::from(scales[i / 16].cast_signed());
        values.push(scale * (f32::from(l | h << 4) - 32.0));
    }
}
