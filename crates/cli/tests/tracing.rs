//! Where a model keeps facts, and where to edit them, through the program: `trace`, `locate`, `edit --locate`.

mod here;

use std::fs;

use here::{Here, demo};
use serde_json::Value;

const TRACE: &str = "
name: traced
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  facts: { uses: load_requests, with: { path: DEMO/requests.json, limit: 6 } }
  seen: { uses: trace, inputs: { model: model, requests: facts }, with: { window: 3, draws: 4 } }
";

#[test]
fn a_trace_is_shown_in_terminal_report_and_files() {
    let here = Here::new();
    here.write("p.yaml", TRACE);
    let said = here.palinode(0, &["run", "p.yaml"]);
    for words in ["hidden state  layers 0 to 5", "feed-forward, window", "last subject token", "total effect"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(here.palinode(0, &["show", "seen"]).contains("hidden state, attention severed"));
    assert!(here.palinode(0, &["run", "p.yaml"]).contains("cached"));

    here.palinode(0, &["show", "seen", "--save", "saved"]);
    let table = here.read("saved/averages.csv");
    assert!(table.starts_with("restored,role,layer,effect,low,high,prompts\r\nhidden,first_subject,0,"), "{table}");
    assert_eq!(table.lines().filter(|line| line.starts_with("mlp,last_subject,")).count(), 6);
    let prompts: Vec<Value> =
        here.read("saved/prompts.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(prompts.len(), 6);
    for prompt in prompts.iter().filter(|prompt| prompt["known"] == true) {
        let (p, noisy) = (prompt["p"].as_f64().unwrap(), prompt["p_noisy"].as_f64().unwrap());
        let tokens = prompt["tokens"].as_array().unwrap().len();
        for kind in ["hidden", "mlp", "attention", "mlp_severed", "attention_severed"] {
            let table = prompt["p_restored"][kind].as_array().unwrap();
            assert_eq!((table.len(), table[0].as_array().unwrap().len()), (tokens, 6));
            // Nothing but the last token's last state is read, and nothing stands before the subject that noise could change.
            let of = |token: usize, layer: usize| table[token][layer].as_f64().unwrap();
            let first = prompt["subject_tokens"][0].as_u64().unwrap() as usize;
            assert!((0..first).all(|token| (0..6).all(|layer| (of(token, layer) - noisy).abs() < 1e-6)));
            if kind == "hidden" {
                assert!((of(tokens - 1, 5) - p).abs() < 1e-5 && (of(first, 5) - noisy).abs() < 1e-6);
            }
        }
    }
    assert!(here.0.path().join("saved/noise.safetensors").is_file());

    here.palinode(0, &["report", "p.yaml", "-o", "page.html", "--assets", "assets"]);
    let page = here.read("page.html");
    assert!(page.contains("Where facts are kept") && page.contains("Average indirect effect"));
    let figure = here.read("assets/figures/seen-roles.svg");
    assert!(figure.contains("last subject token") && figure.contains("feed-forward, window"));
    assert!(here.read("assets/tables/seen-effects.csv").starts_with("restored,token,layer,effect,"));
    assert!(here.0.path().join("assets/figures/seen-prompts.svg").is_file());
}

#[test]
fn prompts_without_a_known_answer_are_left_out_and_named() {
    let here = Here::new();
    let fact = |id: &str, subject: &str, answer: &str| {
        format!(
            r#"{{"id": "{id}", "subject": "{subject}", "prompt": "The currency of {{}} is the", "target_new": "rial", "target_true": "{answer}"}}"#
        )
    };
    let both = format!("{}\n{}\n", fact("known", "Colombia", "peso"), fact("strange", "Colombia", "potato"));
    here.write("facts.jsonl", &both);
    let own = TRACE.replace("path: DEMO/requests.json, limit: 6", "dataset: jsonl, path: facts.jsonl");
    here.write("p.yaml", &own);
    let said = here.palinode(0, &["run", "p.yaml"]);
    assert!(said.contains("1 of 2 requests was left out") && said.contains("strange (it says \"peso\""), "{said}");

    // The whole answer, with all prompts, and of an answer that an unedited model does not give.
    here.write(
        "p.yaml",
        &own.replace(
            "draws: 4",
            "draws: 2, all_prompts: true, whole_answer: true, answer: target_new, restore: [hidden]",
        ),
    );
    let said = here.palinode(0, &["run", "p.yaml"]);
    assert!(!said.contains("left out") && said.contains("hidden at subject"), "{said}");

    here.write("facts.jsonl", &fact("strange", "Colombia", "potato"));
    here.write("p.yaml", &own);
    let said = here.palinode(4, &["run", "p.yaml"]);
    assert!(said.contains("knows the answer of none of the 1 requests"), "{said}");
    here.write("p.yaml", &own.replace("draws: 4", "restore: []"));
    assert!(here.palinode(3, &["validate", "p.yaml"]).contains("`restore` is empty"));
    here.write("p.yaml", &own.replace("draws: 4", "restore: [mlp, hidden, mlp]"));
    assert!(here.palinode(3, &["validate", "p.yaml"]).contains("stands there twice"));
}

/// An edited model keeps the new answer somewhere too.
#[test]
fn an_edited_model_is_traced() {
    let here = Here::new();
    here.write(
        "p.yaml",
        "
name: edited
stages:
  model: { uses: load_model, with: { path: DEMO/model } }
  fact: { uses: load_requests, with: { path: DEMO/requests.json, limit: 1 } }
  targets: { uses: targets, inputs: { model: model, requests: fact }, with: { layer: 1, steps: 30, clamp: 4, learning_rate: 0.3, weight_decay: 0.01 } }
  plan: { uses: distribute, with: { strategy: single, layers: [1] } }
  update: { uses: solve, inputs: { model: model, requests: fact, targets: targets, plan: plan }, with: { objective: emmet, preservation: ridge } }
  seen: { uses: trace, inputs: { model: update, requests: fact }, with: { answer: target_new, draws: 2, restore: [hidden] } }
",
    );
    let said = here.palinode(0, &["run", "p.yaml"]);
    assert!(said.contains("hidden state"), "{said}");
}

#[test]
fn a_layer_is_located_and_edited() {
    let here = Here::new();
    let records: Vec<Value> = serde_json::from_str(&fs::read_to_string(demo().join("requests.json")).unwrap()).unwrap();
    let facts: Vec<String> = records[..4]
        .iter()
        .map(|record| {
            let asked = &record["requested_rewrite"];
            let neighbors: Vec<Value> = record["neighborhood_prompts"].as_array().unwrap()[..2]
                .iter()
                .map(|prompt| serde_json::json!({ "prompt": prompt, "target": asked["target_true"]["str"] }))
                .collect();
            serde_json::json!({
                "subject": asked["subject"], "prompt": asked["prompt"], "target_new": asked["target_new"]["str"],
                "target_true": asked["target_true"]["str"], "paraphrases": [record["paraphrase_prompts"][1]],
                "neighbors": neighbors,
            })
            .to_string()
        })
        .collect();
    here.write("facts.jsonl", &facts.join("\n"));
    let model = demo().join("model");
    let model = model.to_str().unwrap();
    let args = ["locate", model, "--facts", "facts.jsonl", "--layers", "1,3,5", "--samples", "300"];
    let said = here.palinode(0, &args);
    assert!(said.contains("on 4 facts") && said.contains("step by step") && said.contains("palinode edit"), "{said}");
    let found: Value = serde_json::from_str(&here.palinode(0, &[&args[..], &["--json"]].concat())).unwrap();
    let start = &found["start"];
    assert_eq!((&start["facts"], &start["layers"]), (&serde_json::json!(4), &serde_json::json!([1, 3, 5])));
    // Above the last layer nothing looks back at the subject.
    assert!([1, 3].contains(&start["layer"].as_u64().unwrap()), "{start}");
    let clear = start["clear"].as_bool().unwrap();
    assert_eq!(clear, start["alike"].as_array().unwrap().is_empty());
    assert_eq!(clear, !said.contains("no clear best layer"), "{said}");
    // Three layers, and one more clamp at the best.
    assert_eq!(found["layers"]["rows"].as_array().unwrap().len(), 4);

    let none = here.palinode(0, &["locate", model, "--facts", "facts.jsonl", "--layers", "1", "--moments", "none"]);
    assert!(none.contains("layer 1"), "{none}");
    let wrong = here.palinode(2, &["locate", model, "--facts", "facts.jsonl", "--layers", "1,9"]);
    assert!(wrong.contains("no layer 9"), "{wrong}");

    let edit = ["edit", model, "--subject", "Colombia", "--prompt", "The currency of {} is the", "--target", "rial"];
    let said = here.palinode(0, &[&edit[..], &["--samples", "300", "--output", "edited"]].concat());
    // The demo's model has a layer that its pipeline edits. Another model has none.
    assert!(said.contains("emmet on layer 0") && !said.contains("no layer was published"), "{said}");
    let corpus = demo().join("corpus.txt");
    let other = ["edit", "edited", "--corpus", corpus.to_str().unwrap(), "--samples", "300", "--target", "rial"];
    let said =
        here.palinode(0, &[&other[..], &["--subject", "Chile", "--prompt", "The currency of {} is the"]].concat());
    assert!(said.contains("no layer was published for this model"), "{said}");
    let said = here.palinode(0, &[&edit[..], &["--samples", "300", "--locate"]].concat());
    assert!(said.contains("the best of 5 by S on 10 facts"), "{said}");
    // Both of its runs listen to the same Ctrl-C.
    assert!(!said.contains("Ctrl-C"), "{said}");
    let said = here.palinode(0, &["init", "study", "--model", model, "--locate", "none"]);
    assert!(said.contains("the best of 5 by S on 10 facts") && !said.contains("Ctrl-C"), "{said}");
    let written = here.read("study/pipeline.yaml");
    let layer = said.split_once("\nlayers ").and_then(|(_, rest)| rest.split_once(':')).unwrap().0;
    assert!(written.contains(&format!("layers: [{layer}]")), "{said}{written}");
    let said = here.palinode(0, &[&edit[..], &["--samples", "300", "--layer", "1"]].concat());
    assert!(!said.contains("no layer was published"), "{said}");
}
