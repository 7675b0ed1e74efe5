//! A file as a stream of bytes, decompressed where it is compressed. What it is compressed with is told from its first
//! bytes: names may lie.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::{DataError, Place};

/// Zstandard windows above 128 MiB (2^27) are refused: a frame may ask for up to 2 TiB.
const WINDOW_LOG: u32 = 27;
const BUFFER: usize = 256 << 10;

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
    /// Apache Parquet, which packs for itself.
    Parquet,
}

/// Tells how a file is packed, and leaves it at its beginning.
pub fn packing(file: &mut File) -> std::io::Result<Packing> {
    let mut head = [0; 4];
    let mut filled = 0;
    while filled < head.len() {
        match file.read(&mut head[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(match head {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Packing::Zstd,
        [b'P', b'A', b'R', b'1'] => Packing::Parquet,
        _ => Packing::Plain,
    })
}

/// The bytes of a file, unpacked as they are read.
pub fn unpacked(file: File, packing: Packing) -> std::io::Result<Box<dyn BufRead + Send>> {
    let file = BufReader::with_capacity(BUFFER, file);
    Ok(match packing {
        Packing::Plain | Packing::Parquet => Box::new(file),
        Packing::Gzip => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file))),
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(file)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        }
    })
}

/// An error while reading, with what it means for a packed file.
pub fn failed(path: &Path, packing: Packing, place: Place, error: &std::io::Error) -> DataError {
    let name = match packing {
        Packing::Plain | Packing::Parquet => return DataError::io(path, error),
        Packing::Gzip => "gzip",
        Packing::Zstd => "zstd",
    };
    if error.raw_os_error().is_some() {
        return DataError::io(path, error);
    }
    let text = error.to_string();
    let made = if error.kind() == std::io::ErrorKind::UnexpectedEof {
        DataError::new(path, place, format!("the {name} file ends in the middle"))
    } else {
        DataError::new(path, place, format!("damaged {name} file: {text}"))
    };
    if text.contains("too much memory") {
        made.hint("it was packed with a window above 128 MiB (zstd --long): unpack it first")
    } else {
        made.hint("download or copy the file again")
    }
}

/// Opens a file and tells how it is packed.
pub fn open(path: &Path) -> Result<(File, Packing), DataError> {
    let io = |e: std::io::Error| DataError::io(path, &e);
    let mut file = File::open(path).map_err(io)?;
    let packing = packing(&mut file).map_err(io)?;
    Ok((file, packing))
}

/// The whole text of a file, unpacked, if it has no more than `most` bytes.
pub fn read_text(path: &Path, most: u64) -> Result<String, DataError> {
    let (file, packing) = open(path)?;
    if packing == Packing::Parquet {
        return Err(DataError::new(path, Place::File, "a Parquet file, expected JSON"));
    }
    let mut bytes = Vec::new();
    let reader = unpacked(file, packing).map_err(|e| DataError::io(path, &e))?;
    reader.take(most + 1).read_to_end(&mut bytes).map_err(|e| failed(path, packing, Place::File, &e))?;
    if bytes.len() as u64 > most {
        return Err(DataError::new(path, Place::File, format!("more than {} MiB of text", most >> 20))
            .hint("a file of requests is read whole: split it"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let good = String::from_utf8_lossy(&e.as_bytes()[..e.utf8_error().valid_up_to()]);
        DataError::not_utf8(path, Place::Line(1 + good.matches('\n').count()))
    })
}
