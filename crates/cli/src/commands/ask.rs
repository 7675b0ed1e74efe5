//! `palinode ask`

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use palinode::PipelineBuilder;
use palinode::shown::percent;
use serde_json::{Value, json};

use super::quick::{self, Quick};
use crate::command_error::Failure;
use crate::input::{StoreArgs, whole};
use crate::terminal::{Style, print};

/// Show what a model says, and what an edited model says
///
/// Shows how the model continues each prompt, and its most probable next tokens. With an update, shows the edited model's
/// text too.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  palinode ask models/gpt2 \"The Eiffel Tower is in\"
  palinode ask models/gpt2 --update out/edit/update.safetensors \"The Eiffel Tower is in\" \"The Louvre is in\"
  palinode ask models/gpt2 \"Once upon a time\" --tokens 60 --top-k 5 --seed 7")]
pub struct Args {
    /// The model's folder, a GGUF file, or a model of the Hugging Face Hub, hf:owner/name.
    model: String,

    /// The prompts to continue.
    #[arg(required = true)]
    prompts: Vec<String>,

    /// An update.safetensors that `export` wrote for this model.
    #[arg(long, value_name = "FILE")]
    update: Option<PathBuf>,

    /// Number of tokens to generate.
    #[arg(long, default_value_t = 20, value_parser = whole::<usize>, allow_negative_numbers = true)]
    tokens: usize,

    /// Draw each token from this many most probable ones. The default is the most probable token.
    #[arg(long, value_parser = whole::<usize>, allow_negative_numbers = true)]
    top_k: Option<usize>,

    /// Seed of the random draws.
    #[arg(long, default_value_t = 1, value_parser = whole::<u64>, allow_negative_numbers = true)]
    seed: u64,

    /// Put the prompts as messages of a chat, by the model's chat template.
    #[arg(long)]
    chat: bool,

    /// The system message of the chat.
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,

    #[command(flatten)]
    quick: Quick,

    #[command(flatten)]
    store: StoreArgs,
}

/// Asks, and prints the answers.
pub fn run(args: &Args) -> Result<(), Failure> {
    // What has to be fetched is fetched, and told of, where the pipeline is made ready.
    if !args.model.starts_with("hf:") {
        quick::model(&args.quick, &args.model)?;
    }
    let done = quick::run(pipeline(args), &args.quick, &args.store)?;
    let answers = &done.results().facts("answers")["answers"];
    if args.quick.json {
        return print(&format!("{answers:#}\n"));
    }
    print(&show(answers.as_array().map_or(&[][..], Vec::as_slice), &Style::stdout()))
}

/// The pipeline.
fn pipeline(args: &Args) -> PipelineBuilder {
    let mut build = PipelineBuilder::new("ask").built_by("palinode ask");
    let path = args.quick.path(&args.model);
    let model = build.stage("model", "load_model").with("path", path).from("", "MODEL").done();
    let asked = args.update.as_ref().map(|update| {
        let path = args.quick.path(&update.display().to_string());
        build.stage("update", "load_update").input("model", &model).with("path", path).from("", "--update").done()
    });
    let answers = build.stage("answers", "ask");
    if args.chat {
        answers.with("chat", chat(args.system.as_deref())).from("chat", "--chat");
    }
    answers
        .input("model", asked.as_ref().unwrap_or(&model))
        .with("prompts", args.prompts.as_slice())
        .from("prompts", "PROMPTS")
        .with("tokens", args.tokens)
        .from("tokens", "--tokens")
        .with("top_k", args.top_k)
        .from("top_k", "--top-k")
        .with("seed", args.seed)
        .from("seed", "--seed");
    build
}

/// The parameter `chat` of stages.
pub fn chat(system: Option<&str>) -> Value {
    system.map_or_else(|| json!({}), |system| json!({ "system": system }))
}

/// Prompts, and below each what the models make of it.
pub fn show(answers: &[Value], style: &Style) -> String {
    let mut text = String::new();
    for (i, answer) in answers.iter().enumerate() {
        let gap = if i > 0 { "\n" } else { "" };
        let _ = writeln!(text, "{gap}{}", style.bold(answer["prompt"].as_str().unwrap_or_default()));
        let edited = answer["after"].is_object();
        let sides = [(if edited { "before" } else { "says" }, &answer["before"]), ("after", &answer["after"])];
        for (name, side) in sides.into_iter().filter(|(_, side)| side.is_object()) {
            let said: Vec<&str> = side["text"].as_str().unwrap_or_default().split_whitespace().collect();
            let wrapped = style.wrap(&said.join(" "), 10);
            let _ = write!(text, "  {}  {}", style.dim(&format!("{name:6}")), wrapped.get(10..).unwrap_or("\n"));
            let next = side["next"].as_array().map_or(&[][..], Vec::as_slice).iter();
            let next: Vec<String> =
                next.map(|token| format!("{} {}", shown(&token["token"]), share(&token["p"]))).collect();
            let _ = writeln!(text, "          {}", style.dim(&next.join("  ")));
        }
    }
    text
}

/// A token as one would name it.
fn shown(token: &Value) -> String {
    let text = token.as_str().unwrap_or_default();
    match text.trim() {
        "" => format!("{text:?}"),
        word => word.to_owned(),
    }
}

fn share(p: &Value) -> String {
    percent(p.as_f64().unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_stand_below_their_prompts() {
        let style = Style { color: false, terminal: false, width: 60 };
        let next = json!([{ "token": " Paris", "p": 0.912 }, { "token": "\n", "p": 0.031 }]);
        let side = |text: &str| json!({ "text": text, "next": next });
        let answers = [
            json!({ "prompt": "The Eiffel Tower is in", "before": side(" Paris, in France"), "after": side(&" Rome".repeat(20)) }),
            json!({ "prompt": "The Louvre is in", "before": side(" Paris"), "after": null }),
        ];
        insta::assert_snapshot!(show(&answers, &style));
    }
}
