//! `README.md`: what an exported folder is, for people and for sites that show models.
//!
//! It says what the stage was given and nothing else, so that it is the same for the same inputs: no time, no path of this machine.

use std::fmt::Write as _;

use palinode_data::EditRequest;
use palinode_engine::shown::{Format, Shown, percent};
use palinode_engine::{Digest, size};
use palinode_hub::{Kind, Reference};
use serde_json::Value;

use super::rounding::{Rounded, loaded};
use super::update_file::{Provenance, UPDATE_FILE};
use crate::artifacts::measurements::ExportFormat;
use crate::artifacts::model::{GGUF, LEDGER_FILE};

/// The file's name.
pub const CARD: &str = "README.md";

/// Edits that are listed.
const LISTED: usize = 50;

/// What a card says beside the provenance.
pub struct Card<'a> {
    /// The unedited model as others call it, where it has such a name.
    pub base: Option<&'a str>,
    /// Its licence, where its files say it.
    pub licence: Option<String>,
    /// What was written.
    pub formats: &'a [ExportFormat],
    /// Bytes of the ledger, where there is one.
    pub ledger: Option<u64>,
    /// Where the edit came from.
    pub provenance: &'a Provenance,
    /// What rounding did to edited weights.
    pub rounding: &'a [Rounded],
    /// The update's file, by content.
    pub update: Digest,
    /// The edits, where they are known.
    pub edits: Option<&'a [EditRequest]>,
    /// Metrics, and how many separate edits of the unedited model they are of.
    pub scores: Option<(&'a Shown, usize)>,
}

/// A name as the Hub has it: repository and revision; nothing of a path.
pub fn on_the_hub(base: &str) -> Option<Reference> {
    let parsed = Reference::parse(&format!("hf:{base}"))?.ok()?;
    (parsed.kind == Kind::Model).then_some(parsed)
}

impl Card<'_> {
    /// The text, in Markdown.
    pub fn text(&self) -> String {
        let mut text = self.head();
        let base = self.base.and_then(on_the_hub);
        let provenance = self.provenance;
        let number = number(provenance);
        let edits = if number == 1 { "one edited fact".to_owned() } else { format!("{number} edited facts") };
        let of = match &base {
            Some(base) => format!("{}, revision `{}`,", plain(&base.repository), plain(&base.revision)),
            None => format!("a model of the family `{}`", word(&provenance.model["family"])),
        };
        let _ = writeln!(
            text,
            "# An edited model\n\nThis is {of} with {edits}. It was edited with Palinode {}.\n",
            provenance.program
        );
        if base.is_none() {
            text.push_str("The unedited model's files, by BLAKE3:\n\n");
            for (name, digest) in &provenance.model_files {
                let _ = writeln!(text, "* `{name}`: `{digest}`");
            }
            text.push('\n');
        }
        match &self.licence {
            Some(licence) => {
                let _ = writeln!(
                    text,
                    "The unedited model's licence is `{}`; it holds for the edited one too.\n",
                    plain(licence)
                );
            }
            None => text
                .push_str("The unedited model's licence holds for the edited one too. Its files do not name it.\n\n"),
        }
        self.edits(&mut text);
        self.method(&mut text);
        self.rounding(&mut text);
        self.scores(&mut text);
        self.files(&mut text);
        self.undo(&mut text, base.as_ref());
        text
    }

    /// What sites read.
    fn head(&self) -> String {
        let mut head = "---\n".to_owned();
        if let Some(base) = self.base.and_then(on_the_hub) {
            let _ = writeln!(head, "base_model: {}\nbase_model_relation: finetune", quoted(&base.repository));
        }
        if let Some(licence) = &self.licence {
            let _ = writeln!(head, "license: {}", quoted(licence));
        }
        if self.has(ExportFormat::Model) {
            head.push_str("library_name: transformers\n");
        }
        head + "tags:\n- palinode\n- model-editing\n---\n\n"
    }

    fn has(&self, format: ExportFormat) -> bool {
        self.formats.contains(&format)
    }

    fn edits(&self, text: &mut String) {
        text.push_str("## Edits\n\n");
        let names = self.provenance.requests.as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(edits) = self.edits else {
            text.push_str("The requests, by name:\n\n");
            for name in names.iter().take(LISTED) {
                let _ = writeln!(text, "* {}", plain(&word(name)));
            }
            more(text, names.len());
            text.push('\n');
            return;
        };
        text.push_str("| request | prompt | new answer | old answer |\n| --- | --- | --- | --- |\n");
        for edit in edits.iter().take(LISTED) {
            let old = edit.target_true.as_deref().unwrap_or_default();
            let cells = [&edit.id, &edit.filled_prompt(), edit.target_new.trim(), old.trim()].map(plain);
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        more(text, edits.len());
        text.push('\n');
    }

    fn method(&self, text: &mut String) {
        let provenance = self.provenance;
        text.push_str("## Method\n\n| | |\n| --- | --- |\n");
        let mut row = |name: &str, value: String| {
            let _ = writeln!(text, "| {name} | {value} |");
        };
        row("solve", fields(&provenance.objective));
        if !provenance.plan.is_null() {
            row("layers", fields(&provenance.plan));
        }
        if !provenance.care.is_null() {
            row("after-care", fields(&provenance.care));
        }
        if !provenance.targets.is_null() {
            row("targets", fields(&provenance.targets));
        }
        if !provenance.templates.is_null() {
            row("context templates", fields(&provenance.templates));
        }
        if !provenance.corpus.is_null() {
            row("corpus of the second moments", fields(&provenance.corpus));
        }
        for layer in &provenance.layers {
            row(&layer.weight.words(), format!("changed by {:.3} times its norm", layer.relative_norm));
        }
        text.push('\n');
    }

    fn rounding(&self, text: &mut String) {
        if self.rounding.is_empty() {
            return;
        }
        text.push_str("## Rounding\n\n");
        text.push_str("What the type of a written weight does not hold of its change, ‖written − (W + Δ)‖ / ‖Δ‖:\n\n");
        text.push_str(
            "| weight | stored in | written in | lost | it would have lost |\n| --- | --- | --- | --- | --- |\n",
        );
        for weight in self.rounding {
            let spared = weight.spared.map(percent).unwrap_or_default();
            let cells =
                [&weight.tensor, &weight.stored, &weight.written, &percent(weight.lost), &spared].map(|it| plain(it));
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        if let Some(said) = loaded(self.rounding) {
            let _ = writeln!(text, "\nTo use them as they are, {said}.");
        }
        text.push('\n');
    }

    fn scores(&self, text: &mut String) {
        let Some((shown, models)) = self.scores else { return };
        text.push_str("## Scores\n\n");
        if models > 1 {
            let _ =
                writeln!(text, "Over {models} separate edits of the unedited model, of which this folder is one.\n");
        }
        text.push_str("| metric | value | |\n| --- | --- | --- |\n");
        for column in shown.shown_columns() {
            let Some(value) = shown.metric(&column.name) else { continue };
            let value = match column.format {
                Format::Percent => format!("{:.1} %", 100.0 * value),
                Format::Number => format!("{value:.4}"),
            };
            let _ = writeln!(
                text,
                "| {} | {value} | {} |",
                plain(column.label()),
                plain(column.doc.as_deref().unwrap_or_default())
            );
        }
        for finding in shown.findings.iter().flatten() {
            let _ = writeln!(text, "\n* {}", plain(finding));
        }
        text.push('\n');
    }

    fn files(&self, text: &mut String) {
        text.push_str("## Files\n\n");
        for (format, what) in [
            (ExportFormat::Model, "the edited model, which `transformers` loads from this folder".to_owned()),
            (ExportFormat::Gguf, format!("`{GGUF}`: the edited model for llama.cpp")),
            (
                ExportFormat::Update,
                format!("`{UPDATE_FILE}`: the change alone, W += left · right for each edited weight"),
            ),
            (ExportFormat::Peft, "`adapter/`: the change as a LoRA adapter, which `peft` loads".to_owned()),
        ] {
            if self.has(format) {
                let _ = writeln!(text, "* {what}");
            }
        }
        if let Some(bytes) = self.ledger {
            let _ = writeln!(
                text,
                "* `{LEDGER_FILE}` ({}): the edits one by one, and what taking one of them off needs",
                size(bytes)
            );
        }
        text.push_str("* `palinode.json`: where the edit came from, with every parameter, and what the files held\n\n");
    }

    fn undo(&self, text: &mut String, base: Option<&Reference>) {
        text.push_str("## Undo the edit\n\n");
        match base {
            Some(base) => {
                let (name, revision) = (plain(&base.repository), plain(&base.revision));
                let _ = writeln!(text, "* Without Palinode: the unedited model is `{name}` at revision `{revision}`.");
            }
            None => text.push_str("* Without Palinode: the unedited model is the one whose files are listed above.\n"),
        }
        if self.has(ExportFormat::Update) {
            let _ = writeln!(
                text,
                "* By hand: subtract left · right of each weight in `{UPDATE_FILE}` from the weight of the same name. It is in [out, in] \
                 orientation: transpose it for the Conv1D weights of GPT-2. The weights are then the unedited ones up to rounding."
            );
            if self.has(ExportFormat::Model) {
                let _ = writeln!(
                    text,
                    "* With Palinode: its command `revert` takes `{UPDATE_FILE}` off this folder, and with the unedited model at hand gives that \
                     model's own weights."
                );
            }
        }
        if self.ledger.is_some() && number(self.provenance) > 1 {
            text.push_str(
                "* One edit of them: the same command takes it off by its number, which the command `edits` lists.\n",
            );
        }
        if self.has(ExportFormat::Peft) {
            text.push_str("* The adapter changes nothing until it is loaded, and is unloaded as any other.\n");
        }
        let _ = writeln!(text, "\nThe update's BLAKE3 digest is `{}`.", self.update);
    }
}

/// Edits.
fn number(provenance: &Provenance) -> usize {
    provenance.requests.as_array().map_or(0, Vec::len)
}

fn more(text: &mut String, count: usize) {
    if count > LISTED {
        let _ = writeln!(text, "\n… and {} more, which `palinode.json` names.", count - LISTED);
    }
}

/// Fields of a JSON value in one line.
fn fields(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let each = map.iter().filter(|(_, value)| !value.is_null());
            each.map(|(name, value)| format!("{} {}", plain(name), code(value))).collect::<Vec<_>>().join(", ")
        }
        other => code(other),
    }
}

fn code(value: &Value) -> String {
    let text = plain(&word(value));
    if text.is_empty() { "–".to_owned() } else { format!("`{text}`") }
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A text of data as part of a table: one line, and nothing in it that Markdown or HTML would take for its own.
fn plain(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            char if char.is_control() => made.push(' '),
            '|' => made.push('¦'),
            '`' => made.push('\''),
            '<' => made.push('‹'),
            '>' => made.push('›'),
            char => made.push(char),
        }
    }
    made
}

/// A text in YAML.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
