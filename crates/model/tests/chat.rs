//! Chat templates against the texts that transformers renders.

use std::path::Path;

use palinode_model::Text;
use palinode_model::chat::{Frame, Message, render};
use serde_json::Value;

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Made by scripts/make_chat_fixtures.py.
fn templates() -> Vec<Value> {
    let all: Value = serde_json::from_slice(&std::fs::read(fixtures().join("chat.json")).unwrap()).unwrap();
    all.as_array().unwrap().clone()
}

fn role(name: &str) -> &'static str {
    ["system", "user", "assistant"].into_iter().find(|role| *role == name).unwrap()
}

#[test]
fn texts_of_every_template() {
    let templates = templates();
    assert!(templates.len() >= 20);
    let mut wrong = Vec::new();
    for template in &templates {
        let tokens = template["tokens"].as_object().unwrap();
        for case in template["cases"].as_array().unwrap() {
            let messages: Vec<Message> = case["messages"]
                .as_array()
                .unwrap()
                .iter()
                .map(|message| Message {
                    role: role(message["role"].as_str().unwrap()),
                    content: message["content"].as_str().unwrap().to_owned(),
                })
                .collect();
            let text = template["template"].as_str().unwrap();
            let ours = render(text, tokens, &messages, case["go_on"].as_bool().unwrap());
            let expected = match (case["text"].as_str(), case["error"].as_str()) {
                (Some(text), _) => Ok(text.to_owned()),
                (None, error) => Err(error.unwrap().to_owned()),
            };
            if ours != expected {
                wrong.push(format!("{}\n  ours     {ours:?}\n  expected {expected:?}", template["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What stands around one message is what stands around any other.
#[test]
fn a_frame_is_the_template() {
    for template in templates() {
        let (name, text) = (&template["name"], template["template"].as_str().unwrap());
        let tokens = template["tokens"].as_object().unwrap();
        // These do not show a message, or show it changed or several times.
        let other = ["JSON", "filters over messages", "methods of texts", "neighbours", "numbers", "loop controls"];
        if other.contains(&name.as_str().unwrap()) {
            continue;
        }
        let frame = Frame::of(text, tokens, None).unwrap_or_else(|error| panic!("{name}: {error}"));
        let message = Message { role: "user", content: "The tall tower stands in".into() };
        let whole = render(text, tokens, &[message], true).unwrap();
        assert_eq!(format!("{}The tall tower stands in{}", frame.before, frame.after), whole, "{name}");
    }
    let none = Frame::of("{{ bos_token }}", &serde_json::Map::new(), None).unwrap_err();
    assert_eq!(none, "it does not hold a user's message once");
    let endless = Frame::of(
        "{% for i in range(100000) %}{% for j in range(10000) %}x{% endfor %}{% endfor %}",
        &serde_json::Map::new(),
        None,
    );
    assert!(endless.is_err());
}

/// A prompt in a chat: no beginning token but the template's, the fact token inside the message, the answer without a space.
#[test]
fn prompts_in_a_chat() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer_config.json");
    let folder = fixtures().join("llama3-tiny");
    let template = "{{ bos_token }}{% for m in messages %}{{ m.role ~ ': ' ~ m.content | trim ~ ' </s>' }}{% endfor %}{% if add_generation_prompt %}bot:\n{% endif %}";
    let settings = serde_json::json!({ "bos_token": "<s>", "eos_token": "</s>", "chat_template": template });
    std::fs::write(&path, settings.to_string()).unwrap();
    let plain = Text::open(&folder.join("tokenizer.json")).unwrap().with_settings(&path).unwrap();
    assert_eq!(plain.prefix(), 1);
    let chat = plain.in_chat(Some("Be kind.")).unwrap();
    let ids = chat.encode("The tall tower stands in").unwrap();
    let by_hand = "<s>system: Be kind. </s>user: The tall tower stands in </s>bot:\n";
    // The plain one puts a beginning token before the one that is in the text.
    assert_eq!(ids, plain.encode(by_hand).unwrap()[1..]);
    assert_eq!(ids.iter().filter(|id| **id == ids[0]).count(), 1);
    let fact = chat.last_token("The tall tower").unwrap();
    let up_to_it = plain.encode("<s>system: Be kind. </s>user: The tall tower").unwrap();
    assert_eq!(ids[..=fact], up_to_it[1..]);
    let target = chat.encode_target(" Parma").unwrap();
    assert_eq!(chat.decode(&target).unwrap(), "Parma");
    let whole = chat.encode_continued("The tall tower stands in", "Parma").unwrap();
    assert_eq!([ids, target].concat(), whole);
    assert!(plain.in_chat(None).is_ok());
    let none = Text::open(&folder.join("tokenizer.json")).unwrap().in_chat(None).unwrap_err();
    assert_eq!(none.to_string(), "the model has no chat template");
}
