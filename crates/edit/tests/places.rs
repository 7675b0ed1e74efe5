//! Where the fact token is: by itself, in a context, and in the frame that a chat puts around every prompt.

use std::path::Path;

use palinode_data::EditRequest;
use palinode_edit::prompts::{prompt_at, rewrite_prompts_at};
use palinode_edit::{FactToken, findings};
use palinode_model::{DecoderConfig, Text};

/// The demo model's tokenizer and sizes. Its chat, where there is one, puts a blank before each message and a word behind it.
fn model(chat: Option<&str>) -> (Text, DecoderConfig) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/demo-model/model");
    let config = DecoderConfig::read(&folder.join("config.json")).unwrap();
    let text = Text::open(&folder.join("tokenizer.json")).unwrap();
    let Some(template) = chat else { return (text, config) };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat_template.jinja");
    std::fs::write(&path, template).unwrap();
    (text.with_template(&path).unwrap().in_chat(None).unwrap(), config)
}

const CHATS: [Option<&str>; 4] = [
    None,
    Some("{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}The answer is{% endif %}"),
    Some(
        "{% for m in messages %}Question: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}",
    ),
    Some(
        "{% for m in messages %}Somebody asks\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}Answer:{% endif %}",
    ),
];

fn request(subject: &str, prompt: &str) -> EditRequest {
    EditRequest {
        id: "0".into(),
        subject: subject.into(),
        prompt: prompt.into(),
        target_new: "Thai".into(),
        ..EditRequest::default()
    }
}

#[test]
fn each_fact_token_is_where_it_says_in_a_chat_too() {
    for chat in CHATS {
        let (text, config) = model(chat);
        let read = |request: &EditRequest, template: &str, at: FactToken| {
            let row = prompt_at(&text, &config, request, template, at).unwrap();
            assert_eq!(row.ids, text.encode(&template.replace("{}", &request.filled_prompt())).unwrap());
            text.decode(&row.ids[..=row.fact]).unwrap()
        };
        let inside = request("Costa Rica", "People in {} speak");
        for template in ["{}", "It is known. {}"] {
            let before = text.decode(&text.encode_opening(&template.replace("{}", "People in")).unwrap()).unwrap();
            let check = |at: FactToken, words: &str| assert_eq!(read(&inside, template, at), before.clone() + words);
            let first = read(&inside, template, FactToken::SubjectFirst);
            let more = first.strip_prefix(&before).unwrap_or_else(|| panic!("{chat:?}: {first:?}"));
            assert!(more.len() > 1 && " Costa".starts_with(more), "{chat:?}: {first:?}");
            check(FactToken::SubjectLast, " Costa Rica");
            check(FactToken::SubjectFirstAfterLast, " Costa Rica speak");
            check(FactToken::Last, " Costa Rica speak");
        }
        // At the beginning of a message, where a chat may put the space before it.
        let opening = text.decode(&text.encode_opening("").unwrap()).unwrap();
        let first = read(&request("Chile", "{} lies in"), "{}", FactToken::SubjectFirst);
        let more = first.strip_prefix(opening.trim_end_matches(' ')).unwrap();
        assert!(!more.trim().is_empty() && "Chile".starts_with(more.trim()), "{chat:?}: {first:?}");
        // The same in the rows that a target is optimised on.
        let rows = rewrite_prompts_at(&text, &config, &inside, &["{}"], FactToken::SubjectFirst).unwrap();
        let bare = prompt_at(&text, &config, &inside, "{}", FactToken::SubjectFirst).unwrap();
        assert_eq!(rows.rows[0].fact, bare.fact);
    }
}

/// What a chat puts behind a message is no part of the subject.
#[test]
fn a_subject_in_a_chat_ends_where_its_token_ends() {
    for chat in CHATS {
        let (text, config) = model(chat);
        let other = EditRequest { id: "1".into(), ..request("Chile", "The language of {} is") };
        let all = [request("Costa Rica", "People in {} speak"), other];
        let found = findings(&all, &text, &config, &["{}"], FactToken::SubjectLast);
        assert!(found.is_empty(), "{chat:?}: {found:?}");
    }
}
