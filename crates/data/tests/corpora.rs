//! Corpora: what is read from every format, that samples grow, and what is said about bad files.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use palinode_data::{Corpus, CorpusFile, DataError, Format, Reading, Sampling, Split, corpus_files};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn open(path: &Path, reading: &Reading, seed: u64, most: Option<usize>) -> Result<Corpus, DataError> {
    Corpus::open(corpus_files(path, None)?, reading.clone(), Sampling { seed, most }, &mut |_| true)
}

fn sample(path: &Path, reading: &Reading, seed: u64, most: Option<usize>) -> Vec<String> {
    let mut corpus = open(path, reading, seed, most).unwrap();
    (0..corpus.len()).map(|i| corpus.read(i).unwrap()).collect()
}

fn all(path: &Path, reading: &Reading) -> Vec<String> {
    let mut texts = sample(path, reading, 1, None);
    texts.sort();
    texts
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// What is said of a file that cannot be read.
    fn message(&self, name: &str, bytes: &[u8], reading: &Reading) -> String {
        self.said(&self.file(name, bytes), reading)
    }

    fn said(&self, path: &Path, reading: &Reading) -> String {
        let Err(error) = open(path, reading, 1, None).map(|_| ()) else { panic!("{} was read", path.display()) };
        let hint = error.hint.as_ref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        let text = format!("{error}{hint}").replace(self.0.path().to_str().unwrap(), "DIR");
        text.replace(env!("CARGO_MANIFEST_DIR"), "CRATE")
    }
}

fn field(name: &str) -> Reading {
    Reading { field: name.into(), ..Reading::default() }
}

const BLANK: Reading = Reading { split: Split::BlankLine, field: String::new() };

#[test]
fn text_splits_at_lines_or_blank_lines() {
    let folder = Folder::new();
    let path = folder.file("corpus.txt", "one\r\ntwo\n\n\nthrée\nfour".as_bytes());
    assert_eq!(all(&path, &Reading::default()), ["four", "one", "thrée", "two"]);
    assert_eq!(all(&path, &BLANK), ["one\r\ntwo", "thrée\nfour"]);
}

#[test]
fn packed_files_hold_what_plain_ones_do() {
    let folder = Folder::new();
    let text: String = (0..300).map(|i| format!("document {i}\n{}", if i % 5 == 0 { "\n" } else { "" })).collect();
    let json: String = (0..300).map(|i| format!("{{\"id\": {i}, \"body\": \"dócument\\n{i}\"}}\n")).collect();
    for (name, content, reading) in
        [("a.txt", &text, Reading::default()), ("b.txt", &text, BLANK), ("c.jsonl", &json, field("body"))]
    {
        let plain = folder.file(name, content.as_bytes());
        let expected = sample(&plain, &reading, 7, Some(100));
        assert_eq!(expected.len(), if reading == BLANK { 61 } else { 100 });
        for (ending, bytes) in [("gz", gzip(content.as_bytes())), ("zst", zstd(content.as_bytes()))] {
            let packed = folder.file(&format!("{name}.{ending}"), &bytes);
            assert_eq!(sample(&packed, &reading, 7, Some(100)), expected, "{name}.{ending}");
        }
        // Two members or frames one after another are one stream.
        let (first, second) = content.as_bytes().split_at(1000);
        let packed = folder.file(&format!("two-{name}.gz"), &[gzip(first), gzip(second)].concat());
        assert_eq!(sample(&packed, &reading, 7, Some(100)), expected);
    }
}

#[test]
fn a_larger_sample_begins_with_the_smaller_one() {
    let folder = Folder::new();
    let text: String = (0..500).map(|i| format!("document {i}\n")).collect();
    let path = folder.file("corpus.txt", text.as_bytes());
    let whole = sample(&path, &Reading::default(), 1, None);
    assert_eq!(whole.len(), 500);
    for most in [1, 64, 499, 500, 900] {
        assert_eq!(sample(&path, &Reading::default(), 1, Some(most)), whole[..most.min(500)]);
    }
    assert_ne!(sample(&path, &Reading::default(), 2, None), whole);
    // The order is a part of every key that counts on it: it must not change unnoticed.
    assert_eq!(whole[..4], ["document 217", "document 287", "document 268", "document 23"]);
}

#[test]
fn tables_of_every_kind_hold_the_same() {
    let expected = all(&fixture("none-v1.parquet"), &Reading::default());
    assert_eq!(expected.len(), 177);
    assert!(expected[0].starts_with("document 0: thrée rivers, 0 bridges\nand"));
    for name in ["snappy-v1-dictionary", "gzip-v1", "zstd-v2-dictionary", "snappy-v2"] {
        assert_eq!(all(&fixture(&format!("{name}.parquet")), &Reading::default()), expected, "{name}");
    }
    assert_eq!(all(&fixture("snappy-v1-dictionary.parquet"), &field("kind")).len(), 200);
    let mut corpus = open(&fixture("gzip-v1.parquet"), &Reading::default(), 3, Some(20)).unwrap();
    assert_eq!((corpus.len(), corpus.found()), (20, 177));
    let order: Vec<String> = (0..20).map(|i| corpus.read(i).unwrap()).collect();
    assert_eq!(order, sample(&fixture("none-v1.parquet"), &Reading::default(), 3, Some(20)));
}

#[test]
fn folders_and_patterns_are_their_files() {
    let folder = Folder::new();
    folder.file("data/b.txt", b"bee\n");
    folder.file("data/deep/a.jsonl", b"{\"text\": \"ay\"}\n");
    folder.file("data/c.txt.gz", &gzip(b"sea\n"));
    folder.file("data/README.md", b"no text");
    folder.file("data/.hidden.txt", b"no text");
    let names = |path: &Path| -> Vec<String> {
        let files = corpus_files(path, None).unwrap();
        files.iter().map(|f| f.path.strip_prefix(folder.0.path()).unwrap().display().to_string()).collect()
    };
    let root = folder.0.path().join("data");
    assert_eq!(names(&root), ["data/b.txt", "data/c.txt.gz", "data/deep/a.jsonl"]);
    assert_eq!(names(&root.join("*.txt*")), ["data/b.txt", "data/c.txt.gz"]);
    assert_eq!(names(&root.join("**/*.jsonl")), ["data/deep/a.jsonl"]);
    assert_eq!(all(&root, &Reading::default()), ["ay", "bee", "sea"]);
    // A name that is there is no pattern.
    let odd = folder.file("odd[1].txt", b"odd\n");
    assert_eq!(all(&odd, &Reading::default()), ["odd"]);
    assert_eq!(Format::of(Path::new("x/Part-0.JSON.zst")), Some(Format::Jsonl));
}

#[test]
fn mistakes_in_corpora() {
    let folder = Folder::new();
    let text = Reading::default();
    let many = "a document\n".repeat(5000);
    let (gz, zst) = (gzip(many.as_bytes()), zstd(many.as_bytes()));
    let table = std::fs::read(fixture("gzip-v1.parquet")).unwrap();
    let mut holed = table.clone();
    holed[300..420].fill(0x55);
    std::fs::create_dir(folder.0.path().join("empty")).unwrap();
    let said = [
        folder.message("bytes.txt", b"fine\nbad \xff", &text),
        folder.message("blank.txt", b"\n \n", &text),
        folder.message("half.txt.gz", &gz[..gz.len() / 2], &text),
        folder.message("half.txt.zst", &zst[..zst.len() / 2], &text),
        folder.message("bad.txt.gz", &[&gz[..20], &[0x55; 40], &gz[60..]].concat(), &text),
        folder.message("a.jsonl", b"{\"text\": \"a\"}\n\n{\"id\": 3, \"body\": \"b\"}\n", &text),
        folder.message("b.jsonl", b"{\"text\": 7}\n", &text),
        folder.message("c.jsonl", b"{\"text\": \"a\"\n", &text),
        folder.message("d.jsonl", b"plain text\n", &text),
        folder.message("e.jsonl", b"{\"text\": \"a\"} {}\n", &text),
        folder.message("text.parquet", b"hello", &text),
        folder.message("half.parquet", &table[..table.len() / 2], &text),
        folder.message("holed.parquet", &holed, &text),
        folder.said(&fixture("lz4-v1-dictionary.parquet"), &text),
        folder.said(&fixture("none-v1.parquet"), &field("content")),
        folder.said(&fixture("none-v1.parquet"), &field("id")),
        folder.said(&folder.0.path().join("none.txt"), &text),
        folder.said(&folder.0.path().join("none/*.txt"), &text),
        folder.said(&folder.0.path().join("a[.txt"), &text),
        folder.said(&folder.0.path().join("empty"), &text),
    ];
    insta::assert_snapshot!(said.join("\n--\n"));
}

#[test]
fn what_unpacks_without_end_is_refused() {
    let folder = Folder::new();
    // 80 MiB of one letter pack into 80 KiB.
    let line = vec![b'a'; 80 << 20];
    for (name, bytes) in [("a.txt", line.clone()), ("b.txt.gz", gzip(&line)), ("c.jsonl.zst", zstd(&line))] {
        let said = folder.message(name, &bytes, &Reading::default());
        assert!(said.contains("line 1: the line is longer than 64 MiB"), "{said}");
    }
    let lines = vec![b"a".repeat(100); 800_000].join(&b'\n');
    let said = folder.message("d.txt.gz", &gzip(&lines), &BLANK);
    assert!(said.contains("the document is longer than 64 MiB without a blank line"), "{said}");
}

#[test]
fn a_file_that_changes_is_noticed() {
    let folder = Folder::new();
    for (name, before, after) in
        [("a.txt", b"one two three\n".to_vec(), b"one".to_vec()), ("b.txt.gz", gzip(b"one\ntwo\n"), gzip(b"one two\n"))]
    {
        let path = folder.file(name, &before);
        let mut corpus = open(&path, &Reading::default(), 1, None).unwrap();
        std::fs::write(&path, after).unwrap();
        assert!(corpus.read(0).is_err());
    }
    let file = CorpusFile { path: folder.file("c.txt", "x\n".repeat(5000).as_bytes()), format: Format::Text };
    let sampling = Sampling { seed: 1, most: None };
    let stopped = Corpus::open(vec![file], Reading::default(), sampling, &mut |_| false);
    assert!(stopped.is_err());
}
