//! Pages of a Parquet column, unpacked within a limit.
//!
//! A page tells the size that it unpacks to, and the decoder believes it. Here a page that would be larger than a limit is an
//! error before the memory is taken.

use std::fs::File;
use std::io::Read;

use parquet::basic::Compression;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::serialized_reader::SerializedPageReader;

/// Writers aim at 1 MiB a page; one value alone may be as large as a document: 256 MiB.
const LARGEST: usize = 256 << 20;

/// Reads pages that are stored with a codec.
pub struct Pages {
    stored: SerializedPageReader<File>,
    codec: Compression,
}

impl Pages {
    /// `stored` must give pages as they lie in the file.
    pub fn new(stored: SerializedPageReader<File>, codec: Compression) -> Self {
        Self { stored, codec }
    }

    fn unpack(&self, packed: &[u8]) -> Result<Vec<u8>> {
        if packed.is_empty() {
            return Ok(Vec::new());
        }
        match self.codec {
            Compression::UNCOMPRESSED => within(packed),
            Compression::SNAPPY => {
                if snap::raw::decompress_len(packed).map_err(external)? > LARGEST {
                    return Err(too_large());
                }
                snap::raw::Decoder::new().decompress_vec(packed).map_err(external)
            }
            Compression::GZIP(_) => within(flate2::read::MultiGzDecoder::new(packed)),
            Compression::ZSTD(_) => within(zstd::stream::read::Decoder::with_buffer(packed)?),
            other => {
                Err(ParquetError::NYI(format!("it is packed with {other}, expected snappy, zstd, gzip or nothing")))
            }
        }
    }
}

fn within(reader: impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LARGEST { Err(too_large()) } else { Ok(bytes) }
}

fn too_large() -> ParquetError {
    ParquetError::General(format!("a page larger than {} MiB", LARGEST >> 20))
}

fn external(error: snap::Error) -> ParquetError {
    ParquetError::General(error.to_string())
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let Some(mut page) = self.stored.get_next_page()? else { return Ok(None) };
        if self.codec == Compression::UNCOMPRESSED {
            return Ok(Some(page));
        }
        match &mut page {
            Page::DataPage { buf, .. } | Page::DictionaryPage { buf, .. } => *buf = self.unpack(buf)?.into(),
            Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, is_compressed, .. } => {
                // Levels are stored as they are, before what is packed.
                let levels = *def_levels_byte_len as usize + *rep_levels_byte_len as usize;
                let Some((levels, packed)) = buf.split_at_checked(levels) else {
                    return Err(ParquetError::General("a page shorter than its levels".into()));
                };
                if *is_compressed {
                    let values = self.unpack(packed)?;
                    *buf = [levels, &values].concat().into();
                    *is_compressed = false;
                }
            }
        }
        Ok(Some(page))
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.stored.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.stored.skip_next_page()
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
