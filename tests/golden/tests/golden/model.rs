//! Logits, tokens, and the position of the subject's last token.

use palinode_golden::Folder;
use palinode_model::Text;

#[path = "../../../../crates/model/tests/transformers/mod.rs"]
mod transformers;

#[test]
fn logits() {
    for name in ["gpt2", "gptj-tiny", "llama-tiny"] {
        let folder = Folder::given().folder(name);
        let difference = transformers::largest_difference(&folder.folder("model"), &folder);
        println!("{name}: logits {difference:.1e}");
        assert!(difference < 2e-4, "{name}: {difference}");
    }
}

#[test]
fn tokens_and_fact_token_positions() {
    for name in ["gpt2", "gptj-tiny", "llama-tiny"] {
        let folder = Folder::given().folder(name);
        let text = Text::open(&folder.folder("model").file("tokenizer.json")).unwrap();
        let mut checked = 0;
        for record in folder.json("tokenization.json").list() {
            let (prompt, subject) = (record.field("prompt"), record.field("subject"));
            let (prompt, subject) = (prompt.text(), subject.text());
            for case in record.field("per_template").list() {
                assert_eq!(text.encode(case.field("text").text()).unwrap(), case.field("ids").ids());
                let filled = case.field("template").text().replace("{}", prompt);
                let before = filled.split("{}").next().unwrap();
                let index = text.last_token(&format!("{before}{subject}")).unwrap();
                assert_eq!(index, case.field("lookup_idx").whole(), "{name}: {prompt} {subject}");
                checked += 1;
            }
        }
        assert_eq!(checked, 48, "{name}");
    }
}
