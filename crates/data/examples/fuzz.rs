//! Seeded mutations of good files, read by every reader: none may panic, or take more memory than it says.
//!
//! ```sh
//! cargo run --release -p palinode-data --example fuzz -- --minutes 10 --seed 1
//! ```
//!
//! The good files are those of the tests; files of `tests/corpus`, which `tests/corpus.rs` replays, are mutated too. A file that makes a reader
//! panic is kept in the current folder as `fuzz-SEED-ROUND`, and the program ends with 1.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use palinode_data::{
    Corpus, CorpusFile, Dataset, EditRequest, Format, Reading, Sampling, Selection, Split, ZsreQuestion, ZsreTarget,
    add_snippets, read_examples, read_requests, word_weights,
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const REQUESTS: [&str; 4] = [
    r#"[{"case_id":1,"requested_rewrite":{"prompt":"{} is in","subject":"Oslo","target_new":{"str":"Chile"},"target_true":{"str":"x"}},"paraphrase_prompts":["a"],"neighborhood_prompts":["b"]}]"#,
    r#"[{"subject":"Oslo","src":"Where is Oslo?","alt":"Chile","answers":["Norway"],"rephrase":"r","loc":"l","loc_ans":"a"}]"#,
    r#"[{"subject":"Oslo","prompt":"Oslo is in","target_new":"Chile","ground_truth":["a"],"portability":{"R":[{"prompt":"p","ground_truth":[["a"]]}]},"locality":{"S":null}}]"#,
    "{\"subject\":\"Oslo\",\"prompt\":\"{} is in\",\"target_new\":\"Chile\",\"strength\":0.5}\n{\"subject\":\"a\",\"prompt\":\"a b\",\"target_new\":\"c\"}\n",
];

const SNIPPETS: &str = r#"[{"relation_id":"P1","target_id":"Q1","samples":[{"text":"long","name":"n"}]},{"relation_id":"P2","target_id":"Q1","samples":[]}]"#;
const VOCABULARY: &str = r#"{"rome":0,"city":1}"#;

const DATASETS: [Dataset; 5] = [
    Dataset::CounterFact,
    Dataset::Zsre(ZsreTarget::Answer, ZsreQuestion::AsWritten),
    Dataset::Zsre(ZsreTarget::Alt, ZsreQuestion::AsWritten),
    Dataset::KnowEdit,
    Dataset::Jsonl,
];

/// Bytes that mean something to a reader.
const WORDS: [&[u8]; 16] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\u",
    b"\\ud800",
    b"null",
    b"1e999",
    b"{}",
    b"\n",
    b"\xff",
    b"\0",
    b"PAR1",
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
];

fn main() {
    let mut minutes = 1.0;
    let mut seed = 1;
    let mut args = std::env::args().skip(1);
    while let (Some(name), Some(value)) = (args.next(), args.next()) {
        match name.as_str() {
            "--minutes" => minutes = value.parse().expect("--minutes takes a number"),
            "--seed" => seed = value.parse().expect("--seed takes a whole number"),
            other => panic!("unknown argument {other}: there are --minutes and --seed"),
        }
    }
    let end = Instant::now() + Duration::from_secs_f64(60.0 * minutes);
    let seeds = good();
    let folder = tempfile::tempdir().expect("a folder for files");
    let path = folder.path().join("file");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut round, mut read) = (0u64, 0u64);
    while Instant::now() < end {
        let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
        for _ in 0..random.random_range(1..8) {
            mutate(&mut bytes, &mut random);
        }
        std::fs::write(&path, &bytes).expect("the file is written");
        if let Ok(good) = catch_unwind(AssertUnwindSafe(|| readers(&path))) {
            read += good;
        } else {
            let name = format!("fuzz-{seed}-{round}");
            std::fs::write(&name, &bytes).expect("the file is kept");
            eprintln!("a reader panicked over {name}");
            std::process::exit(1);
        }
        round += 1;
    }
    println!("{round} files, {read} readings without a mistake, peak memory {} MiB", peak());
}

/// Good files to begin with.
fn good() -> Vec<Vec<u8>> {
    let mut files: Vec<Vec<u8>> = REQUESTS.iter().map(|text| text.as_bytes().to_vec()).collect();
    files.push(SNIPPETS.as_bytes().to_vec());
    files.push(VOCABULARY.as_bytes().to_vec());
    files.push(vector());
    files.push("one document\n\ntwo\r\n\nthrée\n".repeat(20).into_bytes());
    files.push("{\"text\": \"one\", \"n\": [1, {\"a\": null}]}\n{\"text\": null}\n".repeat(10).into_bytes());
    for text in files.clone() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&text).and_then(|()| gz.try_finish()).expect("memory is written to");
        files.push(gz.finish().expect("memory is written to"));
        files.push(zstd::encode_all(text.as_slice(), 1).expect("memory is written to"));
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for entry in std::fs::read_dir(fixtures).expect("the fixtures are there").flatten() {
        // Several times, since most that can go wrong goes wrong in tables.
        let bytes = std::fs::read(entry.path()).expect("a fixture is read");
        files.extend(std::iter::repeat_n(bytes, 4));
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for entry in std::fs::read_dir(corpus).expect("the corpus is there").flatten() {
        files.push(std::fs::read(entry.path()).expect("a file of the corpus is read"));
    }
    files
}

/// `numpy.save` of two numbers.
fn vector() -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }".to_vec();
    bytes.resize(127, b' ');
    bytes.push(b'\n');
    bytes.extend([1.5f64, 1.25].iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

fn mutate(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    if bytes.is_empty() {
        bytes.push(random.random());
    }
    // The footer of a table is where its sizes are: half of all changes go to the end.
    let from = if random.random() { bytes.len().saturating_sub(700) } else { 0 };
    let at = random.random_range(from..bytes.len());
    match random.random_range(0..8) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => bytes.truncate(at),
        3 => {
            let word = WORDS[random.random_range(0..WORDS.len())];
            bytes.splice(at..at, word.iter().copied());
        }
        4 => {
            let end = (at + random.random_range(1..64)).min(bytes.len());
            bytes.drain(at..end);
        }
        5 => {
            let end = (at + random.random_range(1..64)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        6 => {
            let end = (at + 8).min(bytes.len());
            random.fill_bytes(&mut bytes[at..end]);
        }
        _ => {
            // Sizes that are far too large.
            let end = (at + random.random_range(1..6)).min(bytes.len());
            bytes[at..end].fill(0xff);
        }
    }
}

/// Reads the file in every way; how many of them found nothing wrong.
pub fn readers(path: &Path) -> u64 {
    let mut good = 0;
    for dataset in DATASETS {
        good += u64::from(read_requests(path, &dataset, &Selection::default()).is_ok());
    }
    let mut wanted = [EditRequest { fact: Some(("P1".into(), "Q1".into())), ..EditRequest::default() }];
    good += u64::from(add_snippets(path, &mut wanted).is_ok());
    good += u64::from(read_examples(path, "{text} is", "subject").is_ok());
    // Beside the file, one that is good: either may be at fault.
    let other = path.with_extension("other");
    std::fs::write(&other, VOCABULARY).expect("the file is written");
    good += u64::from(word_weights(&other, path).is_ok());
    std::fs::write(&other, vector()).expect("the file is written");
    good += u64::from(word_weights(path, &other).is_ok());
    for (format, split) in [(Format::Text, Split::Line), (Format::Text, Split::BlankLine), (Format::Jsonl, Split::Line)]
    {
        let files = vec![CorpusFile { path: path.to_owned(), format }];
        let reading = Reading { split, field: "text".into() };
        let corpus = Corpus::open(files, reading, Sampling { seed: 1, most: Some(8) }, &mut |_| true);
        if let Ok(mut corpus) = corpus {
            for index in 0..corpus.len() {
                corpus.read(index).expect("what was found can be read");
            }
            good += 1;
        }
    }
    good
}

/// Peak memory as the system tells it, where it does.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) >> 10
}
