//! Reads moment files that seeded mutations have spoiled, and counts what comes of it: read, refused, or a panic.
//!
//! ```sh
//! cargo run --release -p palinode-edit --example fuzz-npz -- --minutes 10 --seed 1
//! ```
//!
//! Half of them are spoiled inside their entries, and archived again so that checksums hold; the others as they lie. Ends with
//! an error when one panicked, or when memory grew past a bound. A case is told by its number: the same seed gives the same
//! cases, and `--only N` runs one of them.

use std::error::Error;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use palinode_edit::{EditError, MomentFile};
use rand::{Rng as _, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// Bytes of memory that no spoiled file of a KB may lead to.
const MOST: u64 = 256 << 20;
/// What programs stumble over in a header.
const WORDS: [&[u8]; 20] = [
    b"'<f8'",
    b"'<f4'",
    b"'|O'",
    b"'<i8'",
    b"'|S99999999'",
    b"'<U4'",
    b"[('f', '<f8')]",
    b"True",
    b"()",
    b"(4, 4)",
    b"(4,)",
    b"(4294967296, 4294967296)",
    b"(99999999999999999999, 4)",
    b"-1",
    b"[[[[[[[[",
    b"((((((((",
    b"{",
    b"\\x",
    b"\xff",
    b"\0",
];

struct Options {
    minutes: f64,
    seed: u64,
    only: Option<u64>,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options { minutes: 1.0, seed: 1, only: None };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--minutes" => options.minutes = value.parse()?,
            "--seed" => options.seed = value.parse()?,
            "--only" => options.only = Some(value.parse()?),
            _ => return Err(format!("unknown option {name}: expected --minutes, --seed or --only").into()),
        }
    }
    Ok(options)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let mut good: Vec<PathBuf> = Vec::new();
    for folder in ["tests/numpy", "tests/corpus"] {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))? {
            good.push(entry?.path());
        }
    }
    good.sort();
    let work = tempfile::tempdir()?;
    let path = work.path().join("moment.npz");
    let end = Instant::now() + Duration::from_secs_f64(60.0 * options.minutes);
    let (mut read, mut refused, mut panicked) = (0u64, 0u64, Vec::new());
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    for case in options.only.unwrap_or(0).. {
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        random.set_stream(case);
        let source = &good[random.random_range(0..good.len())];
        if random.random() {
            inside(source, &path, &mut random)?;
        } else {
            let mut bytes = fs::read(source)?;
            spoil(&mut bytes, &mut random);
            fs::write(&path, bytes)?;
        }
        match catch_unwind(AssertUnwindSafe(|| open(&path))) {
            Ok(Ok(())) => read += 1,
            Ok(Err(_)) => refused += 1,
            Err(_) => {
                eprintln!("case {case}, from {}", source.display());
                panicked.push(case);
            }
        }
        let peak = peak();
        if peak > MOST {
            return Err(format!("case {case}, from {}, took {peak} bytes of memory", source.display()).into());
        }
        if Instant::now() > end || options.only.is_some() {
            println!(
                "{} cases: {read} read, {refused} refused, {} panicked; peak memory {} MiB",
                read + refused + panicked.len() as u64,
                panicked.len(),
                peak >> 20
            );
            break;
        }
    }
    if panicked.is_empty() { Ok(()) } else { Err(format!("panics in cases {panicked:?}").into()) }
}

/// What a stage does with a file: it knows the size of the model's keys.
pub fn open(path: &Path) -> Result<(), EditError> {
    let moment = MomentFile::open(path)?.read(4)?;
    assert!(moment.count() > 0 && moment.trace().is_finite(), "what was read is no moment");
    Ok(())
}

/// An archive with one of its entries spoiled.
fn inside(source: &Path, target: &Path, random: &mut ChaCha8Rng) -> Result<(), Box<dyn Error>> {
    let mut from = ZipArchive::new(File::open(source)?)?;
    let mut to = ZipWriter::new(File::create(target)?);
    let packed = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let spoiled = random.random_range(0..from.len());
    for index in 0..from.len() {
        let mut entry = from.by_index(index)?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        if index == spoiled {
            spoil(&mut bytes, random);
        }
        to.start_file(entry.name()?.into_owned(), packed)?;
        to.write_all(&bytes)?;
    }
    to.finish()?;
    Ok(())
}

/// Changes bytes in some places.
fn spoil(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    for _ in 0..random.random_range(1..5) {
        if bytes.is_empty() {
            bytes.push(random.random());
        }
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..16)).min(bytes.len());
        match random.random_range(0..7) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => bytes.truncate(at),
            3 => {
                let word = WORDS[random.random_range(0..WORDS.len())];
                let end = if random.random() { at } else { (at + word.len()).min(bytes.len()) };
                bytes.splice(at..end, word.iter().copied());
            }
            4 => random.fill_bytes(&mut bytes[at..end]),
            5 => bytes[at..end].fill(0xff),
            _ => {
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
}

/// The most memory that this process has had, in bytes; 0 where the system does not say.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
