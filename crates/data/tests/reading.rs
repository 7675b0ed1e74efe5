//! Requests: what is read, and what is said about mistakes.

use palinode_data::{ContextTemplates, Dataset, Selection, ZsreQuestion, ZsreTarget, conflicts, read_requests};

fn message(name: &str, content: &[u8], dataset: Dataset) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    let mistakes = read_requests(&path, &dataset, &Selection::default()).unwrap_err();
    let hint = mistakes.shown[0].hint.as_ref().map(|h| format!("\nhint: {h}")).unwrap_or_default();
    format!("{mistakes}{hint}").replace(folder.path().to_str().unwrap(), "").trim_start_matches('/').to_string()
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
    let requests = read_requests(&path, &Dataset::Jsonl, &Selection::default()).unwrap();
    assert_eq!(requests[0].prompt, "Where {} lies:");
    assert_eq!(requests[0].filled_prompt(), "Where Oslo lies:");
    assert_eq!(requests[0].neighbors[0].target.as_deref(), Some("Norway"));
    assert_eq!(requests[0].strength, Some(2.0));
    assert_eq!(conflicts(&requests), [(0, 1)]);
    let one = read_requests(&path, &Dataset::Jsonl, &Selection { offset: 1, limit: Some(5), ..Selection::default() })
        .unwrap();
    assert_eq!(one.len(), 1);
    assert!(read_requests(&path, &Dataset::Jsonl, &Selection { offset: 9, ..Selection::default() }).is_err());
}

const ZSRE: &str = r#"{"subject":"Oslo","src":"Where is Oslo, the Oslo of old?","pred":"x","rephrase":"Oslo is where?","alt":"Chile",
    "answers":["Norway","Noreg"],"loc":"nq question: who wrote it","loc_ans":"Ibsen","cond":"x"}"#;

const KNOW: &str = r#"{"subject":"Oslo","prompt":"Oslo lies in","target_new":"Chile","ground_truth":["Norway"],"extra":1,
    "rephrase":"Oslo can be found in","portability":{"Reasoning":[{"prompt":"The king of Oslo's land is","ground_truth":[["A","B"],["C"]]},
    {"prompt":"","ground_truth":[]}],"Subject_Aliasing":null},
    "locality":{"Relation_Specificity":[{"prompt":"Oslo has","ground_truth":"fjords"}]}}"#;

const FLAT: &str = r#"{"case_id":7,"subject":"Oslo","prompt":"Oslo lies in","target_new":"Chile","ground_truth":"Norway",
    "rephrase_prompt":"Oslo can be found in","locality_prompt":"Bergen lies in","locality_ground_truth":"Norway"}"#;

#[test]
fn other_layouts_become_requests() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("edits.json");
    let read = |content: &str, dataset| {
        std::fs::write(&path, content).unwrap();
        read_requests(&path, &dataset, &Selection::default()).unwrap()
    };
    let zsre = format!("[{ZSRE}]");
    insta::assert_snapshot!(
        serde_json::to_string_pretty(&[
            read(&zsre, Dataset::Zsre(ZsreTarget::Answer, ZsreQuestion::AsWritten)),
            read(&zsre, Dataset::Zsre(ZsreTarget::Alt, ZsreQuestion::AsWritten)),
            read(&format!("[{KNOW}]"), Dataset::KnowEdit),
            read(&format!("[{FLAT}]"), Dataset::KnowEdit),
        ])
        .unwrap()
    );
    // One object a line does as well as an array, for any layout.
    assert_eq!(read(&FLAT.replace('\n', " "), Dataset::KnowEdit), read(&format!("\n[{FLAT}]"), Dataset::KnowEdit));
    assert_eq!(read(GOOD, Dataset::CounterFact).len(), 1);
}

#[test]
fn mistakes_in_other_layouts() {
    let zsre = |target, from: &str, to: &str| {
        message(
            "zsre.json",
            format!("[{}]", ZSRE.replace(from, to)).as_bytes(),
            Dataset::Zsre(target, ZsreQuestion::AsWritten),
        )
    };
    let know = |from: &str, to: &str| {
        message("know.json", format!("[{}]", KNOW.replace(from, to)).as_bytes(), Dataset::KnowEdit)
    };
    insta::assert_snapshot!(
        [
            zsre(ZsreTarget::Answer, r#""answers":["Norway","Noreg"],"#, ""),
            zsre(ZsreTarget::Alt, r#""alt":"Chile","#, ""),
            zsre(ZsreTarget::Alt, "Where is Oslo, the Oslo", "Where is that, the place"),
            zsre(ZsreTarget::Alt, r#""answers":["#, r#""answers":[3,"#),
            know(r#""ground_truth":"fjords""#, r#""ground_truth":{"a":1}"#),
            know(r#""target_new":"Chile""#, r#""target_new":[]"#),
            know(r#""prompt":"Oslo has","#, ""),
            know(r#""subject":"Oslo","#, ""),
        ]
        .join("\n--\n")
    );
}

#[test]
fn a_mistake_of_many_records_is_said_three_times_and_counted() {
    let records: Vec<String> = (0..40)
        .map(|i| if i % 3 == 0 { GOOD.into() } else { GOOD.replace("Oslo", if i % 2 == 0 { "" } else { " " }) })
        .collect();
    let said = message("edits.json", format!("[{}]", records.join(",")).as_bytes(), Dataset::CounterFact);
    assert_eq!(said.matches("field subject: the subject is empty").count(), 3, "{said}");
    assert!(said.contains("23 more records have mistakes"), "{said}");
}

#[test]
fn what_is_too_large_is_refused() {
    let long = "a".repeat(5 << 20);
    let record = GOOD.replace("Oslo", &long);
    for (content, place) in [
        (format!("[{GOOD},\n{record}]"), "line 2"),
        (format!("{GOOD}\n{record}"), "line 2"),
        ("[".repeat(1 << 20), "line 1"),
    ] {
        let said = message("edits.json", content.as_bytes(), Dataset::CounterFact);
        assert!(said.contains(place), "{said}");
    }
    let said = message("edits.json", format!("[{record}]").as_bytes(), Dataset::CounterFact);
    assert!(said.contains("the record is larger than 4 MiB"), "{said}");
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..520 {
        std::io::Write::write_all(&mut bomb, &[b' '; 1 << 20]).unwrap();
    }
    let said = message("edits.json", &bomb.finish().unwrap(), Dataset::CounterFact);
    assert!(said.contains("more than 512 MiB of text"), "{said}");
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
