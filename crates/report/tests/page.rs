//! Small reports: that everything is on the page, that nothing gets out of its place, and that the page stays small.

use std::fmt::Write as _;

use palinode_report::{
    Better, Cell, Digested, Document, Edit, Edits, Effects, Instance, LayerFacts, Layers, Level, Losses, Measure,
    Measured, Metric, Outcome, PromptEffects, Report, Row, Sample, Spread, Stage, Step, Steps, Trace, Traced, render,
};

/// What a record may say when its author means harm.
const HOSTILE: &str = "</script><script>alert('x')</script>\"'&<img src=x onerror=alert(1)>{{ 7*7 }}\u{0}\u{1b}";

fn metric(name: &str, better: Option<Better>) -> Metric {
    let percent = better == Some(Better::Max);
    Metric { name: name.to_owned(), label: name.to_owned(), doc: format!("what {name} says"), percent, better }
}

fn measure(value: f64) -> Measure {
    Measure { value: Some(value), interval: Some([value - 0.1, value + 0.05]), ..Measure::default() }
}

fn cell(objective: &str, batch: f64) -> Cell {
    vec![("objective".to_owned(), Level::Text(objective.to_owned())), ("batch_size".to_owned(), Level::Number(batch))]
}

/// Objectives by batch sizes.
fn sweep(words: &[&str], batches: &[f64]) -> Measured {
    let metrics = vec![metric("S", Some(Better::Max)), metric("NS", Some(Better::Max)), metric("before_S", None)];
    let mut rows = Vec::new();
    for (i, word) in words.iter().enumerate() {
        for (j, batch) in batches.iter().enumerate() {
            let value = 0.9 - 0.05 * i as f64 - 0.1 * j as f64;
            let base = Measure { value: Some(0.25), ..Measure::default() };
            rows.push(Row {
                cell: cell(word, *batch),
                repetitions: 1,
                values: vec![measure(value), measure(1.0 - value), base],
            });
        }
    }
    Measured { stage: "scores".to_owned(), result: true, metrics, rows, ..Measured::default() }
}

fn report(text: &str) -> Report {
    let mut scores = sweep(&["memit", text], &[1.0, 8.0, 64.0]);
    let step = |row: usize, edits: f64| Step {
        row,
        at: vec![edits / 8.0, edits],
        values: vec![measure(0.9 - edits / 100.0), measure(0.5), Measure::default()],
    };
    scores.steps = Some(Steps {
        axes: vec!["round".to_owned(), "edits".to_owned()],
        rows: [8.0, 16.0, 24.0].into_iter().flat_map(|edits| [step(0, edits), step(1, edits)]).collect(),
    });
    let spread = |mean: f64| Spread { mean, min: mean * 0.5, max: mean * 2.0 };
    let layer = |layer| LayerFacts {
        cell: cell(text, 8.0),
        layer,
        module: String::new(),
        batches: 4,
        values: vec![spread(layer as f64 + 0.5)],
    };
    let edit = |i: usize| Edit {
        cell: i % 2,
        id: i.to_string(),
        prompt: format!("The capital of {text} is"),
        subject: text.to_owned(),
        new: text.to_owned(),
        old: Some("Paris".to_owned()),
        p_new: [Some(1e-5), Some(0.97)],
        p_old: [Some(0.8), None],
        values: vec![Some((i % 2) as f64)],
    };
    let instance = |name: &str, outcome| Instance {
        name: name.to_owned(),
        outcome,
        seconds: Some(12.4),
        version: Some(2),
        key: Some("0123456789abcdef".repeat(4)),
        content: Some("fedcba9876543210".repeat(4)),
        finished: Some("2026-01-31 12:00".to_owned()),
        run: Some("20260131-115959-1f3a".to_owned()),
        device: Some("cpu".to_owned()),
        program: Some("0.1.0".to_owned()),
        seeds: vec![("seed".to_owned(), "1".to_owned())],
        files: vec![Digested { name: text.to_owned(), digest: "ab".repeat(32), size: 2048 }],
    };
    Report {
        title: text.to_owned(),
        description: Some(text.to_owned()),
        doubts: vec![("objective rome".to_owned(), text.to_owned())],
        facts: vec![("run".to_owned(), text.to_owned())],
        measured: vec![scores],
        layers: vec![Layers {
            stage: "update".to_owned(),
            repeated: Vec::new(),
            metrics: vec![metric("norm", None)],
            rows: vec![layer(3), layer(4)],
        }],
        losses: vec![Losses {
            instance: text.to_owned(),
            terms: vec!["nll".to_owned()],
            traces: (1..4u8)
                .map(|i| {
                    let loss = vec![4.0 * f64::from(i), 1.0, 0.25];
                    Trace { label: text.to_owned(), terms: vec![loss.clone()], loss }
                })
                .collect(),
        }],
        traced: Vec::new(),
        edits: Edits {
            metrics: vec![metric("ES", Some(Better::Max))],
            cells: vec!["memit".to_owned(), text.to_owned()],
            rows: (0..4).map(edit).collect(),
        },
        samples: vec![Sample {
            prompt: text.to_owned(),
            fields: vec![("new target".to_owned(), text.to_owned())],
            before: Some(text.to_owned()),
            after: vec![("memit".to_owned(), text.to_owned())],
        }],
        stages: vec![
            Stage {
                name: "model".to_owned(),
                uses: "load_model".to_owned(),
                inputs: vec![],
                instances: vec![instance("model", Outcome::Cached)],
            },
            Stage {
                name: "scores".to_owned(),
                uses: "evaluate".to_owned(),
                inputs: vec![0],
                instances: vec![
                    instance("scores[objective=memit]", Outcome::Ran),
                    instance("scores[objective=rome]", Outcome::Failed(text.to_owned())),
                    Instance { name: "scores[objective=x]".to_owned(), ..Instance::default() },
                ],
            },
        ],
        resolved: format!("name: \"{text}\"\n"),
    }
}

/// What causal tracing found, with these texts.
fn traced(text: &str) -> Traced {
    Traced {
        instance: text.to_owned(),
        prompts: 3,
        how: text.to_owned(),
        clean: 0.9,
        noisy: 0.1,
        effects: vec![Effects {
            restored: text.to_owned(),
            role: text.to_owned(),
            prompts: 3,
            effect: vec![0.1, -0.2, f64::NAN],
            interval: Some(vec![[0.0, 0.2], [-0.3, 0.1], [0.0, 0.0]]),
        }],
        single: vec![PromptEffects {
            tokens: vec![text.to_owned(), "token*".to_owned()],
            answer: text.to_owned(),
            clean: 0.9,
            noisy: 0.1,
            maps: vec![(text.to_owned(), vec![vec![0.1, 0.5], vec![0.2, 0.9]])],
        }],
    }
}

fn write(report: &Report) -> Document {
    render(report).expect("a report renders")
}

/// The elements that are open at each tag, checked to be closed in order; attributes must be quoted.
fn check_tags(text: &str, xml: bool) -> Vec<String> {
    const VOID: [&str; 5] = ["meta", "input", "br", "link", "img"];
    let mut open: Vec<String> = Vec::new();
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if rest.starts_with('!') {
            continue;
        }
        let mut quoted = None;
        let end = rest.char_indices().find(|(_, char)| {
            match (quoted, *char) {
                (None, '"' | '\'') => quoted = Some(*char),
                (Some(mark), char) if mark == char => quoted = None,
                _ => {}
            }
            quoted.is_none() && *char == '>'
        });
        let (end, _) = end.unwrap_or_else(|| panic!("a tag is not closed: {}", &rest[..rest.len().min(80)]));
        let tag = &rest[..end];
        rest = &rest[end + 1..];
        let name: String = tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
        assert!(!name.is_empty(), "a tag without a name: <{tag}>");
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()), "</{name}> closes another element");
        } else if !tag.ends_with('/') && (xml || !VOID.contains(&name.as_str())) {
            open.push(name.clone());
            if name == "script" || name == "style" {
                let end = rest.find(&format!("</{name}>")).expect("raw text ends");
                rest = &rest[end..];
            }
        }
        all.push(name);
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    all
}

/// The page in outline: its headings, captions, and how many rows and drawings there are.
fn outline(html: &str) -> String {
    let mut text = String::new();
    for name in ["h1", "h2", "h3", "summary", "caption", "figcaption", "th"] {
        let _ = writeln!(text, "{name}");
        for part in html.split(&format!("<{name}")).skip(1).filter(|part| part.starts_with(['>', ' '])) {
            let inside = part.split_once('>').map_or("", |(_, inside)| inside);
            let _ = writeln!(text, "  {}", inside.split(&format!("</{name}>")).next().unwrap_or_default());
        }
    }
    for (what, tag) in [("rows", "<tr"), ("drawings", "<svg"), ("folded", "<details"), ("forms", "<select")] {
        let _ = writeln!(text, "{what} {}", html.matches(tag).count());
    }
    text
}

#[test]
fn the_page_holds_everything() {
    let document = write(&report("emmet"));
    check_tags(&document.html, false);
    let assets: Vec<&str> = document.assets.iter().map(|asset| asset.path.as_str()).collect();
    insta::assert_snapshot!("outline", format!("{}\n{}\n", outline(&document.html), assets.join("\n")));
    let file = |end: &str| document.assets.iter().find(|asset| asset.path.ends_with(end)).expect("there").text.clone();
    insta::assert_snapshot!("scores_csv", file("tables/scores.csv"));
    insta::assert_snapshot!("scores_tex", file("tables/scores.tex"));
    insta::assert_snapshot!("curve_svg", file("figures/scores-by-batch_size.svg"));
    insta::assert_snapshot!("stages_svg", file("figures/stages.svg"));
}

#[test]
fn texts_stay_texts() {
    let of = |text: &str| write(&Report { traced: vec![traced(text)], ..report(text) });
    let (plain, hostile) = (of("emmet"), of(HOSTILE));
    // The same elements in the same order: no text has become one.
    let tags = |document: &Document| check_tags(&document.html, false);
    assert_eq!(tags(&hostile), tags(&plain));
    assert!(!hostile.html.contains("<script>alert") && !hostile.html.contains("<img"));
    assert!(hostile.html.contains("{{ 7*7 }}"), "texts are not templates");
    assert!(!hostile.html.contains(['\u{0}', '\u{1b}']), "no control characters");
    for asset in &hostile.assets {
        assert!(asset.path.is_ascii() && !asset.path.contains(".."), "{}", asset.path);
        if asset.path.ends_with(".svg") {
            assert!(!check_tags(&asset.text, true).iter().any(|tag| tag == "script" || tag == "img"), "{}", asset.path);
        }
    }
}

#[test]
fn the_page_is_alone() {
    let document = write(&report("emmet"));
    for text in std::iter::once(&document.html).chain(document.assets.iter().map(|asset| &asset.text)) {
        let own = text.replace("http://www.w3.org/2000/svg", "");
        for word in ["http:", "https:", "//cdn", "@import", "url(", "src=", "<link"] {
            assert!(!own.contains(word), "`{word}` is in it");
        }
    }
}

#[test]
fn large_runs_make_pages_of_bearable_size() {
    let mut large = report("emmet");
    let one = large.edits.rows[0].clone();
    large.edits.rows = (0..60_000).map(|i| Edit { cell: i % 2, id: i.to_string(), ..one.clone() }).collect();
    large.losses[0].traces = vec![large.losses[0].traces[0].clone(); 10_000];
    large.samples = vec![large.samples[0].clone(); 1000];
    large.measured[0] = sweep(&["memit"; 40], &(1..60).map(f64::from).collect::<Vec<_>>());
    let document = write(&large);
    assert!(document.html.len() < 6 << 20, "{} bytes", document.html.len());
    let edits = document.assets.iter().find(|asset| asset.path == "tables/edits.csv").expect("there");
    assert_eq!(edits.text.lines().count(), 60_001);
}

#[test]
fn nothing_is_a_page_too() {
    check_tags(&write(&Report::default()).html, false);
    // Numbers that are none, single cells, cells without axes.
    let mut odd = report("emmet");
    for measured in &mut odd.measured {
        for row in &mut measured.rows {
            row.values[0] = Measure {
                value: Some(f64::NAN),
                interval: Some([f64::NEG_INFINITY, f64::INFINITY]),
                ..Measure::default()
            };
        }
    }
    odd.layers[0].rows[0].values[0] = Spread { mean: f64::NAN, min: f64::INFINITY, max: f64::NEG_INFINITY };
    odd.losses[0].traces[0].loss = vec![f64::NAN; 3];
    for asset in write(&odd).assets {
        assert!(!asset.path.ends_with(".svg") || !asset.text.contains("NaN"), "{}", asset.path);
    }
    let mut single = report("emmet");
    single.measured[0].rows.truncate(1);
    single.measured[0].rows[0].cell.clear();
    single.measured[0].steps = None;
    check_tags(&write(&single).html, false);
}
