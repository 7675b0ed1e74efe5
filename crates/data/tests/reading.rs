//! Requests and corpora: what is read, and what is said about mistakes.

use std::path::Path;

use palinode_data::{ContextTemplates, Corpus, Dataset, Selection, Split, conflicts, read_requests};

fn message(name: &str, content: &[u8], dataset: Dataset) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    let error = read_requests(&path, dataset, Selection::default()).unwrap_err();
    let hint = error.hint.as_ref().map(|h| format!("\nhint: {h}")).unwrap_or_default();
    format!("{error}{hint}").replace(folder.path().to_str().unwrap(), "").trim_start_matches('/').to_string()
}

const GOOD: &str = r#"{"requested_rewrite":{"prompt":"{} is in","subject":"Oslo","target_new":{"str":"Chile"}}}"#;

#[test]
fn mistakes_in_counterfact() {
    let say = |content: &str| message("edits.json", content.as_bytes(), Dataset::CounterFact);
    let with = |from: &str, to: &str| say(&format!("[{GOOD},{}]", GOOD.replace(from, to)));
    insta::assert_snapshot!(
        [
            with("{} is in", "it is in"),
            with("{} is in", "{} and {}"),
            with("Oslo", " "),
            with("Chile", ""),
            with(r#","target_new":{"str":"Chile"}"#, ""),
            with(r#"{"str":"Chile"}"#, "7"),
            say("[{\"requested_rewrite\":"),
            say("{}"),
            say("[]"),
            message("edits.json", b"[\n\xff]", Dataset::CounterFact),
        ]
        .join("\n--\n")
    );
}

#[test]
fn mistakes_in_json_lines() {
    let say = |content: &str| message("edits.jsonl", content.as_bytes(), Dataset::Jsonl);
    insta::assert_snapshot!(
        [
            say("{\"subject\":\"Oslo\",\"prompt\":\"The city is in\",\"target_new\":\"Chile\"}"),
            say("\n{\"subject\":\"Oslo\",\"prompt\":\"{} is in\",\"target_new\":\"Chile\",\"strength\":-1}"),
            say("{\"subject\":\"Oslo\",\"prompt\":\"{} is in\",\"target\":\"Chile\"}"),
            say("{\"subject\":\"Oslo\",\"prompt\":\"{} is in\",\"target_new\":\"Chile\"} x"),
            say("{\"subject\":\"Oslo\""),
        ]
        .join("\n--\n")
    );
}

#[test]
fn json_lines_find_the_subject_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edits.jsonl");
    std::fs::write(
        &path,
        "{\"subject\":\"Oslo\",\"prompt\":\"Where Oslo lies:\",\"target_new\":\"Chile\",\"target_true\":\"Norway\",\
         \"neighbors\":[{\"prompt\":\"Bergen is in\"}],\"strength\":2}\n\
         {\"subject\":\"Oslo\",\"prompt\":\"Where {} lies:\",\"target_new\":\"Peru\"}\n",
    )
    .unwrap();
    let requests = read_requests(&path, Dataset::Jsonl, Selection::default()).unwrap();
    assert_eq!(requests[0].prompt, "Where {} lies:");
    assert_eq!(requests[0].filled_prompt(), "Where Oslo lies:");
    assert_eq!(requests[0].neighbors[0].target.as_deref(), Some("Norway"));
    assert_eq!(requests[0].strength, Some(2.0));
    assert_eq!(conflicts(&requests), [(0, 1)]);
    let one = read_requests(&path, Dataset::Jsonl, Selection { offset: 1, limit: Some(5), shuffle: None }).unwrap();
    assert_eq!(one.len(), 1);
    assert!(read_requests(&path, Dataset::Jsonl, Selection { offset: 9, ..Selection::default() }).is_err());
}

#[test]
fn published_records_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/data");
    if !folder.is_dir() {
        println!("skipped: no golden data");
        return;
    }
    let original =
        read_requests(&folder.join("counterfact_original_format_10.json"), Dataset::CounterFact, Selection::default())
            .unwrap();
    assert_eq!(original.len(), 10);
    assert!(original.iter().all(|r| r.paraphrases.len() == 2 && r.neighbors.len() == 10 && r.attributes.len() == 10));
    let sample =
        read_requests(&folder.join("counterfact_sample_200.json"), Dataset::CounterFact, Selection::default()).unwrap();
    assert_eq!(sample.len(), 200);
}

#[test]
fn a_corpus_reads_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corpus.txt");
    std::fs::write(&path, "one\r\ntwo\n\n\nthrée\nfour").unwrap();
    let mut lines = Corpus::open(&path, Split::Line).unwrap();
    let texts: Vec<_> = (0..lines.len()).map(|i| lines.read(i).unwrap()).collect();
    assert_eq!(texts, ["one", "two", "thrée", "four"]);
    let mut blocks = Corpus::open(&path, Split::BlankLine).unwrap();
    let texts: Vec<_> = (0..blocks.len()).map(|i| blocks.read(i).unwrap()).collect();
    assert_eq!(texts, ["one\r\ntwo", "thrée\nfour"]);
    assert_eq!(lines.order(1, Some(2)), lines.order(1, None)[..2]);
    std::fs::write(&path, b"fine\nbad \xff").unwrap();
    let error = Corpus::open(&path, Split::Line).unwrap_err().to_string();
    assert!(error.ends_with("line 2: not UTF-8 text"), "{error}");
    std::fs::write(&path, "\n \n").unwrap();
    assert!(Corpus::open(&path, Split::Line).is_err());
}

#[test]
fn template_weights_follow_the_groups() {
    let templates = ContextTemplates::from_openings(&["The {old} inn", "I think"]);
    templates.check().unwrap();
    assert_eq!(templates.weighted(), [("{}", 0.5), ("The  old  inn. {}", 0.25), ("I think. {}", 0.25)]);
    for bad in
        [vec![], vec![vec!["x".to_string()]], vec![vec!["{}".into()], vec![]], vec![vec!["{}".into(), "{} {}".into()]]]
    {
        assert!(ContextTemplates { groups: bad }.check().is_err());
    }
}
