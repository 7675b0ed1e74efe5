//! What is written for other programs, and what they write for us.

use std::fs::File;
use std::path::Path;

use palinode_data::{
    Column, Corpus, CorpusFile, Dataset, Format, Reading, Sampling, Selection, Split, add_snippets, read_examples,
    read_requests, word_weights, write_parquet,
};

fn put(folder: &Path, name: &str, content: &[u8]) -> std::path::PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn a_table_comes_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.parquet");
    let columns = [
        ("id", Column::Count(vec![Some(1), None, Some(3)])),
        ("text", Column::Text(vec![Some("née".into()), None, Some("b".into())])),
        ("p", Column::Number(vec![None, Some(0.5), Some(f64::MIN_POSITIVE)])),
        ("edited", Column::Flag(vec![Some(true), Some(false), None])),
    ];
    write_parquet(File::create(&path).unwrap(), &columns).unwrap();
    let file = CorpusFile { path, format: Format::Parquet };
    let reading = Reading { split: Split::Line, field: "text".into() };
    let mut corpus = Corpus::open(vec![file], reading, Sampling { seed: 1, most: None }, &mut |_| true).unwrap();
    let mut texts: Vec<String> = (0..corpus.len()).map(|i| corpus.read(i).unwrap()).collect();
    texts.sort();
    assert_eq!(texts, ["b", "née"]);
    let uneven = [("a", Column::Count(vec![Some(1)])), ("b", Column::Count(vec![]))];
    assert!(write_parquet(Vec::new(), &uneven).is_err());
}

const RECORD: &str = r#"{"requested_rewrite":{"prompt":"{} is in","relation_id":"P17","subject":"Oslo","target_new":{"str":"Chile","id":"Q298"}}}"#;

#[test]
fn snippets_become_references() {
    let folder = tempfile::tempdir().unwrap();
    let records = format!("[{RECORD},{}]", RECORD.replace("Q298", "Q1"));
    let records = put(folder.path(), "edits.json", records.as_bytes());
    let mut requests = read_requests(&records, &Dataset::CounterFact, &Selection::default()).unwrap();
    let snippets =
        br#"[{"relation_id":"P17","target_id":"Q298","samples":[{"text":"Chile is long.","name":"x"},{"text":"B"}]},
        {"relation_id":"P19","target_id":"Q298","samples":[{"text":"born"}]}]"#;
    let snippets = put(folder.path(), "snippets.json", snippets);
    assert_eq!(add_snippets(&snippets, &mut requests).unwrap(), 1);
    assert_eq!(requests[0].references, ["Chile is long.", "B"]);
    assert!(requests[1].references.is_empty());
    let wrong = put(folder.path(), "wrong.json", b"[{\"relation_id\":\"P17\"}]");
    let error = add_snippets(&wrong, &mut requests).unwrap_err().to_string();
    assert!(error.contains("target_id"), "{error}");
}

#[test]
fn examples_are_records_put_into_a_template() {
    let folder = tempfile::tempdir().unwrap();
    let path =
        put(folder.path(), "task.jsonl", b"{\"sentence\":\"fine\",\"label\":1}\n{\"sentence\":\"dull\",\"label\":0}\n");
    let examples = read_examples(&path, "Review: {sentence}\nIt is", "label").unwrap();
    assert_eq!((examples[0].prompt.as_str(), examples[0].label.as_str()), ("Review: fine\nIt is", "1"));
    let error = read_examples(&path, "{text}", "label").unwrap_err().to_string();
    assert!(error.contains("missing field `text`") && error.contains("task.jsonl, line 1"), "{error}");
}

/// `numpy.save` of a vector of float64.
fn npy(values: &[f64]) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({},), }}", values.len());
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

#[test]
fn weights_of_words_are_scikit_learns() {
    let folder = tempfile::tempdir().unwrap();
    let vocabulary = put(folder.path(), "tfidf_vocab.json", br#"{"city":1,"rome":0}"#);
    let idf = put(folder.path(), "idf.npy", &npy(&[1.5, 1.25]));
    let weights = word_weights(&vocabulary, &idf).unwrap();
    assert_eq!((weights["rome"], weights["city"]), (1.5, 1.25));
    let say = |idf: &[u8]| word_weights(&vocabulary, &put(folder.path(), "bad.npy", idf)).unwrap_err().message;
    assert!(say(&npy(&[1.0])).contains("place 1"), "{}", say(&npy(&[1.0])));
    assert!(say(&npy(&[1.0, f64::NAN])).contains("not a number"));
    assert!(say(&npy(&[1.0; 64])[..200]).contains("does not fit"));
    assert!(say(b"nonsense").contains("no npy file"));
}
