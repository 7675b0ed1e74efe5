//! Opens model folders that seeded mutations have spoiled, and counts what comes of it: loaded, refused, or a panic.
//!
//! ```sh
//! cargo run --release -p palinode-model --example fuzz-checkpoint -- --minutes 10 --seed 1
//! ```
//!
//! Ends with an error when one panicked, or when memory grew past a bound. A case is told by its number: the same seed
//! gives the same cases, and `--only N` runs one of them.

use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use palinode_model::{Checkpoint, Decoder, DecoderConfig, ModelError, Text, inspect};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Bytes of memory that no spoiled folder of a few hundred KB may lead to.
const MOST: u64 = 1 << 30;
/// Values that programs stumble over.
const NUMBERS: [i64; 12] = [0, 1, -1, 2, 3, 7, 255, 65_537, 1 << 28, (1 << 28) + 1, i64::MAX, i64::MIN];
const TEXTS: [&str; 8] =
    ["", "linear", "llama3", "gelu", "../model.safetensors", "mistral", "gpt_neox", "model-00002-of-00004.safetensors"];

/// The name of a model that is one file.
pub const GGUF: &str = "model.gguf";

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
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(fixtures)?.map(|e| Ok(e?.path())).collect::<Result<_, std::io::Error>>()?;
    folders.retain(|folder| folder.join("config.json").is_file());
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "gguf") {
            folders.push(path);
        }
    }
    folders.sort();
    let work = tempfile::tempdir()?;
    let end = Instant::now() + Duration::from_secs_f64(60.0 * options.minutes);
    let (mut loaded, mut refused, mut panicked) = (0u64, 0u64, Vec::new());
    std::panic::set_hook(Box::new(|info| eprintln!("{info}")));
    for case in options.only.unwrap_or(0).. {
        let mut random = ChaCha8Rng::seed_from_u64(options.seed);
        random.set_stream(case);
        let folder = work.path().join("model");
        let source = &folders[random.random_range(0..folders.len())];
        copy(source, &folder)?;
        for _ in 0..random.random_range(1..4) {
            spoil(&folder, &mut random)?;
        }
        match catch_unwind(AssertUnwindSafe(|| open(&folder))) {
            Ok(Ok(())) => loaded += 1,
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
                "{} cases: {loaded} loaded, {refused} refused, {} panicked; peak memory {} MiB",
                loaded + refused + panicked.len() as u64,
                panicked.len(),
                peak >> 20
            );
            break;
        }
    }
    if panicked.is_empty() { Ok(()) } else { Err(format!("panics in cases {panicked:?}").into()) }
}

/// Everything that a run does with a folder before it computes, and a pass through the model.
pub fn open(folder: &Path) -> Result<(), ModelError> {
    let whole = folder.join(GGUF);
    let (seen, config, files, text) = if whole.exists() {
        (inspect(&whole), DecoderConfig::read(&whole), vec![whole.clone()], Text::open(&whole))
    } else {
        let files = Checkpoint::files(folder)?.iter().map(|name| folder.join(name)).collect();
        let text = Text::open(&folder.join("tokenizer.json"))
            .and_then(|text| text.with_settings(&folder.join("tokenizer_config.json")));
        (inspect(folder), DecoderConfig::read(&folder.join("config.json")), files, text)
    };
    let config = config?;
    let decoder = Decoder::load(&Checkpoint::open(&files)?, &config, &Device::flex())?;
    let text = text?;
    seen?;
    let mut ids = text.within(config.vocab).encode("The tall tower stands in the old city by the river in Rome")?;
    ids.truncate(config.context);
    if !ids.is_empty() {
        let rows = decoder.rows(&[ids]);
        decoder.logits(decoder.hidden(&rows)?.at(&rows.all())).into_data();
    }
    Ok(())
}

/// Copies a model's folder, or a model that is one file into a folder.
pub fn copy(source: &Path, folder: &Path) -> Result<(), std::io::Error> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir(folder)?;
    if source.is_file() {
        fs::copy(source, folder.join(GGUF))?;
        return Ok(());
    }
    for entry in fs::read_dir(source)? {
        let path = entry?.path();
        if let Some(name) = path.file_name().filter(|name| *name != "logits.safetensors" && *name != "tokens.json") {
            fs::copy(&path, folder.join(name))?;
        }
    }
    Ok(())
}

/// Changes one file in one way.
fn spoil(folder: &Path, random: &mut ChaCha8Rng) -> Result<(), Box<dyn Error>> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<Result<_, std::io::Error>>()?;
    names.sort();
    // Of a model that is one file, nothing is left where that one was taken away.
    if names.is_empty() {
        return Ok(());
    }
    let path = &names[random.random_range(0..names.len())];
    let mut bytes = fs::read(path)?;
    if random.random_range(0..40) == 0 {
        return Ok(fs::remove_file(path)?);
    }
    let weights = path.extension().is_some_and(|e| e == "safetensors");
    let whole = path.ends_with(GGUF);
    match random.random_range(0..4) {
        // A number of the description.
        0 | 1 if whole => {
            let at = random.random_range(0..bytes.len().clamp(1, 16_384));
            let number = NUMBERS[random.random_range(0..NUMBERS.len())].to_le_bytes();
            let width = [1, 4, 8][random.random_range(0..3)];
            for (byte, with) in bytes.iter_mut().skip(at).zip(&number[..width]) {
                *byte = *with;
            }
        }
        // Into the words of a description, which plain noise hardly ever gets past the parser.
        0 | 1 if weights => bytes = header(&bytes, random).unwrap_or(bytes),
        0 | 1 => {
            if let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) {
                change(&mut value, random);
                bytes = value.to_string().into_bytes();
            }
        }
        2 => {
            let from = if weights || whole { bytes.len().min(4096) } else { bytes.len() };
            for _ in 0..random.random_range(1..9) {
                if from > 0 {
                    let at = random.random_range(0..from);
                    bytes[at] = random.random();
                }
            }
        }
        _ => {
            let at = random.random_range(0..=bytes.len());
            if random.random() {
                bytes.truncate(at);
            } else {
                let piece: Vec<u8> = bytes[..at.min(512)].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    Ok(fs::write(path, bytes)?)
}

/// A safetensors file with its header changed, and its length told truly or not.
fn header(bytes: &[u8], random: &mut ChaCha8Rng) -> Option<Vec<u8>> {
    let length = u64::from_le_bytes(*bytes.first_chunk()?) as usize;
    let end = length.checked_add(8)?;
    let mut value: Value = serde_json::from_slice(bytes.get(8..end)?).ok()?;
    change(&mut value, random);
    let text = value.to_string();
    let told = if random.random_range(0..8) == 0 { random.random() } else { text.len() as u64 };
    Some([&told.to_le_bytes(), text.as_bytes(), &bytes[end..]].concat())
}

/// Changes one place of a JSON value: a number, a text, a missing or doubled entry, another type.
fn change(value: &mut Value, random: &mut ChaCha8Rng) {
    let deeper = random.random_range(0..5) > 0;
    match value {
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let at = random.random_range(0..fields.len());
            if let Some((_, inner)) = fields.iter_mut().nth(at) {
                change(inner, random);
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = random.random_range(0..items.len());
            change(&mut items[at], random);
        }
        Value::Object(fields) if !fields.is_empty() => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let mut name = || names[random.random_range(0..names.len())].clone();
            let (from, to) = (name(), name());
            if let Some(moved) = fields.remove(&from).filter(|_| from != to) {
                fields.insert(to, moved);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let at = random.random_range(0..items.len());
            let item = items[at].clone();
            if random.random() { items.push(item) } else { items.truncate(at) }
        }
        Value::Number(_) | Value::Bool(_) if random.random_range(0..4) > 0 => {
            let number = NUMBERS[random.random_range(0..NUMBERS.len())];
            *value = if random.random_range(0..4) == 0 { json!(number as f64 * 0.37) } else { json!(number) };
        }
        Value::String(text) if random.random_range(0..4) > 0 => {
            TEXTS[random.random_range(0..TEXTS.len())].clone_into(text);
        }
        other => {
            let kinds = [json!(null), json!([]), json!({}), json!(true), json!("x"), json!(1e300), json!([1, 2, 3])];
            *other = kinds[random.random_range(0..kinds.len())].clone();
        }
    }
}

/// The most memory that this process has had, in bytes; 0 where the system does not say.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
