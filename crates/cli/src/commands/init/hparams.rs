//! Hyperparameter files of the reference implementations (JSON) and of EasyEdit (YAML) as pipelines.
//!
//! Every key of a file ends in one of three places: in the pipeline, among what needs no place in it since Palinode knows it from the
//! model, or among what could not be carried over. Nothing is dropped without a word.

use std::fmt::Write;
use std::path::Path;

use palinode::{Error, read_yaml};
use serde_json::{Map, Value, json};

/// A method that such files are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Rome,
    Memit,
    Emmet,
    Pmet,
    AlphaEdit,
    Ft,
    UltraEdit,
}

const METHODS: [(&str, Method); 9] = [
    ("rome", Method::Rome),
    ("r-rome", Method::Rome),
    ("memit", Method::Memit),
    ("emmet", Method::Emmet),
    ("unified_editing", Method::Emmet),
    ("pmet", Method::Pmet),
    ("alphaedit", Method::AlphaEdit),
    ("ft", Method::Ft),
    ("ultraedit", Method::UltraEdit),
];

/// What a file means.
#[derive(Debug)]
pub struct Reading {
    /// The pipeline.
    pub pipeline: String,
    /// Keys that are in it, with where.
    pub carried: Vec<(String, String)>,
    /// Keys that are not, with why.
    pub left: Vec<(String, String)>,
}

/// The file, and where its values went.
struct File {
    values: Map<String, Value>,
    carried: Vec<(String, String)>,
    left: Vec<(String, String)>,
    wrong: Option<String>,
    layers: Vec<u64>,
}

impl File {
    /// Takes a key out, to be written at `place`.
    fn take(&mut self, key: &str, place: &str) -> Option<Value> {
        let value = self.values.remove(key).filter(|value| !value.is_null())?;
        self.carried.push((key.to_owned(), place.to_owned()));
        Some(value)
    }

    /// A number; YAML reads `5e-1` as text.
    fn number(&mut self, key: &str, place: &str) -> Option<Value> {
        let value = self.take(key, place)?;
        let number = match &value {
            Value::Number(_) => Some(value.clone()),
            Value::String(text) => text.trim().parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| json!(n)),
            _ => None,
        };
        if number.is_none() {
            self.wrong.get_or_insert_with(|| format!("`{key}` is {value}, expected a number"));
        }
        number
    }

    fn leave(&mut self, key: &str, why: &str) {
        if self.values.remove(key).is_some() {
            self.left.push((key.to_owned(), why.to_owned()));
        }
    }
}

/// Reads a file; `model` is the model to edit as a pipeline names it, with so many layers.
pub fn read(path: &Path, text: &str, model: &str, layers: u64) -> Result<Reading, Error> {
    let input = |message: String, line: Option<usize>| Error::input(message).at(path, line);
    let value = read_yaml(text).map_err(|(message, line)| {
        input(message, line).hint("hyperparameter files are JSON or YAML: a mapping from names to values")
    })?;
    let Value::Object(values) = value else {
        return Err(input("it is no mapping from names to values".into(), None)
            .hint("name a file such as hparams/MEMIT/gpt2-xl.json, or EasyEdit's hparams/ROME/gpt2-xl.yaml"));
    };
    let line_of = |key: &str| text.lines().position(|line| line.contains(key)).map(|at| at + 1);
    let method = method(path, &values).map_err(|message| {
        let known: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
        input(message, line_of("alg_name")).hint(format!("methods that can be carried over: {}", known.join(", ")))
    })?;
    let mut file = File { values, carried: Vec::new(), left: Vec::new(), wrong: None, layers: Vec::new() };
    file.values.remove("alg_name");
    let edited = edited_layers(&mut file, layers).map_err(|message| input(message, line_of("layers")))?;
    file.layers.clone_from(&edited);
    let stages = match method {
        Method::Ft => finetune(&mut file, &edited),
        Method::UltraEdit => ultraedit(&mut file, &edited),
        _ => closed_form(&mut file, method, &edited),
    };
    if let Some(wrong) = file.wrong {
        let key = wrong.split('`').nth(1).unwrap_or_default().to_owned();
        return Err(input(wrong, line_of(&key)));
    }
    rest(&mut file);
    Ok(Reading { pipeline: written(path, method, model, &stages, &file), carried: file.carried, left: file.left })
}

/// The method: as the file says, or its folder, or the keys that only one method has.
fn method(path: &Path, values: &Map<String, Value>) -> Result<Method, String> {
    let named = |name: &str| {
        let name = name.to_lowercase();
        METHODS.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
    };
    if let Some(name) = values.get("alg_name") {
        let name = name.as_str().unwrap_or_default();
        return named(name).ok_or_else(|| format!("the method {name:?} cannot be carried over"));
    }
    let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    if let Some(method) = folder.and_then(named) {
        return Ok(method);
    }
    let has = |key: &str| values.contains_key(key);
    Ok(if has("nullspace_threshold") || has("L2") {
        Method::AlphaEdit
    } else if has("emmet_lambda") {
        Method::Emmet
    } else if has("nll_loss_factor") {
        Method::Pmet
    } else if has("norm_constraint") || has("num_steps") {
        Method::Ft
    } else if has("context_template_length_params") {
        Method::Rome
    } else if has("mom2_update_weight") {
        Method::Memit
    } else if has("v_num_grad_steps") {
        Method::Rome
    } else {
        return Err("it does not say which method it is for".into());
    })
}

fn edited_layers(file: &mut File, layers: u64) -> Result<Vec<u64>, String> {
    let Some(value) = file.take("layers", "vars.layers") else { return Err("it has no `layers`".into()) };
    let list = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    let numbers: Option<Vec<u64>> = list.iter().map(Value::as_u64).collect();
    let Some(mut numbers) = numbers.filter(|numbers| !numbers.is_empty()) else {
        return Err(format!("`layers` is {value}, expected a list of whole numbers"));
    };
    numbers.sort_unstable();
    numbers.dedup();
    if let Some(beyond) = numbers.iter().find(|&&layer| layer >= layers) {
        return Err(format!("layer {beyond} is not in the model, whose last layer is {}", layers - 1));
    }
    Ok(numbers)
}

/// A stage of a pipeline.
struct Stage {
    name: &'static str,
    uses: &'static str,
    inputs: &'static str,
    with: Vec<(&'static str, Value)>,
}

/// What is written as an expression, not as a value.
const LAYERS: &str = "${vars.layers}";
const LAST: &str = "${vars.layers[-1]}";

fn contexts(file: &mut File, method: Method) -> Stage {
    let mut with = Vec::new();
    let given = file.take("context_template_length_params", "contexts.generate");
    let pairs = given.as_ref().and_then(Value::as_array).into_iter().flatten().filter_map(|pair| {
        let pair = pair.as_array()?;
        Some(json!({ "count": pair.get(1)?, "length": pair.first()? }))
    });
    let pairs: Vec<Value> = pairs.collect();
    let usual = if method == Method::Rome {
        json!([{ "count": 10, "length": 5 }, { "count": 10, "length": 10 }])
    } else {
        json!([{ "count": 5, "length": 10 }])
    };
    with.push(("generate", if pairs.is_empty() { usual } else { Value::Array(pairs) }));
    if method == Method::Rome {
        with.push(("flat", json!(true)));
        with.push(("start", json!("end_of_text")));
    }
    with.push(("seed", json!(1)));
    Stage { name: "contexts", uses: "templates", inputs: "{ model: model }", with }
}

fn closed_form(file: &mut File, method: Method, edited: &[u64]) -> Vec<Stage> {
    let contexts = contexts(file, method);
    let mut moments = vec![("corpus", json!("corpus.txt")), ("layers", json!(LAYERS))];
    if let Some(samples) = file.number("mom2_n_samples", "moments.samples") {
        moments.push(("samples", samples));
    }
    // What earlier rounds wrote is preserved where there are rounds.
    let remembers =
        method == Method::AlphaEdit || file.values.get("add_prev_edits").and_then(Value::as_bool) == Some(true);
    let (targets_at, solve_at) = if remembers { ("update.targets", "update.solve") } else { ("targets", "update") };
    let mut targets = Vec::new();
    match method {
        Method::Rome => targets.push(("site", json!("mlp_output"))),
        Method::Pmet => {
            targets.push(("site", json!("mlp_with_attention")));
            targets.push(("stop", json!("divergence")));
        }
        _ => {}
    }
    targets.push(("layer", json!(LAST)));
    for (key, name) in [
        ("v_num_grad_steps", "steps"),
        ("v_lr", "learning_rate"),
        ("kl_factor", "kl_factor"),
        ("v_weight_decay", "weight_decay"),
        ("clamp_norm_factor", "clamp"),
        ("v_loss_layer", "loss_layer"),
    ] {
        if let Some(value) = file.number(key, &format!("{targets_at}.{name}")) {
            targets.push((name, value));
        }
    }
    // ENCORE's stop is a negative cut-off: so many evaluations in which the target is the most probable text.
    match file.values.get("prob_cutoff").and_then(Value::as_i64) {
        Some(hits) if hits < 0 => {
            file.take("prob_cutoff", &format!("{targets_at}.argmax_hits"));
            targets.push(("stop", json!("argmax")));
            targets.push(("argmax_hits", json!(hits.unsigned_abs())));
        }
        Some(_) => file.leave("prob_cutoff", "a search is stopped by its loss, or by `stop: argmax`"),
        None => {}
    }
    fact_token(file, targets_at, &mut targets);
    let strategy = match method {
        _ if file.values.get("blue").and_then(Value::as_bool) == Some(true) => {
            file.take("blue", "plan.strategy");
            "boundary"
        }
        _ if edited.len() == 1 => "single",
        Method::Pmet => "sqrt",
        _ => "memit",
    };
    if strategy == "boundary"
        && let Some(layer) = targets.iter_mut().find(|(name, _)| *name == "layer")
    {
        layer.1 = json!("${vars.layers[0]}");
    }
    let solve = objective(file, method, solve_at, remembers);
    let plan = Stage {
        name: "plan",
        uses: "distribute",
        inputs: "",
        with: vec![("strategy", json!(strategy)), ("layers", json!(LAYERS))],
    };
    let moments = Stage { name: "moments", uses: "covariance", inputs: "{ model: model }", with: moments };
    if remembers {
        let of = |pairs: Vec<(&'static str, Value)>| {
            Value::Object(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
        };
        let update = Stage {
            name: "update",
            uses: "sequence",
            inputs: "{ model: model, requests: edits, moments: moments, plan: plan, templates: contexts }",
            with: vec![("targets", of(targets)), ("solve", of(solve))],
        };
        return vec![contexts, moments, plan, update];
    }
    vec![
        contexts,
        moments,
        Stage {
            name: "targets",
            uses: "targets",
            inputs: "{ model: model, requests: edits, templates: contexts }",
            with: targets,
        },
        plan,
        Stage {
            name: "update",
            uses: "solve",
            inputs: "{ model: model, requests: edits, moments: moments, targets: targets, plan: plan, templates: contexts }",
            with: solve,
        },
    ]
}

/// How a layer absorbs its part, and what is preserved.
fn objective(file: &mut File, method: Method, at: &str, remembers: bool) -> Vec<(&'static str, Value)> {
    let name = match method {
        Method::Rome => "rome",
        Method::Emmet if !remembers => "emmet",
        _ => "memit",
    };
    let mut solve = vec![("objective", json!(name))];
    if method == Method::Rome {
        solve.push(("rome_key", json!("reference")));
        file.leave("mom2_update_weight", "ROME does not depend on it");
    }
    if method == Method::AlphaEdit {
        // Without a number in the file, the authors'.
        let threshold = file.number("nullspace_threshold", &format!("{at}.projector.threshold"));
        let ridge = file.number("L2", &format!("{at}.update_norm_lambda"));
        file.leave("mom2_update_weight", "AlphaEdit preserves the corpus by its projector, and has no λ");
        file.leave("update_norm_lambda", "AlphaEdit's ridge is L2");
        solve.push(("lambda", json!(0)));
        solve.push(("update_norm_lambda", ridge.unwrap_or(json!(10))));
        solve.push(("projector", json!({ "threshold": threshold.unwrap_or(json!(0.02)) })));
    }
    if remembers {
        file.take("add_prev_edits", &format!("{at}.history"));
        solve.push(("history", json!(1)));
        if let Some(size) = file.number("batch_size", &format!("{at}.batch_size")) {
            solve.push(("batch_size", size));
        }
    }
    for (key, name) in [("mom2_update_weight", "lambda"), ("update_norm_lambda", "update_norm_lambda")] {
        if let Some(value) = file.number(key, &format!("{at}.{name}")) {
            solve.push((name, value));
        }
    }
    if name == "emmet" {
        if let Some(value) = file.number("emmet_lambda", &format!("{at}.emmet_lambda")) {
            solve.push(("emmet_lambda", value));
        }
    } else {
        file.leave("emmet_lambda", "only EMMET has it");
    }
    solve
}

fn fact_token(file: &mut File, at: &str, targets: &mut Vec<(&'static str, Value)>) {
    let known = ["subject_last", "subject_first", "subject_first_after_last", "last"];
    match file.values.get("fact_token").and_then(Value::as_str) {
        Some(token) if known.contains(&token) => {
            if let Some(token) = file.take("fact_token", &format!("{at}.fact_token")) {
                targets.push(("fact_token", token));
            }
        }
        Some(_) => file.leave("fact_token", "no such token is known"),
        None => {}
    }
}

fn finetune(file: &mut File, edited: &[u64]) -> Vec<Stage> {
    let mut with = vec![("layer", json!("${vars.layers[0]}"))];
    if edited.len() > 1 {
        file.left.push(("layers".into(), "one layer is tuned: the first of them".into()));
    }
    match file.values.get("objective_optimization").and_then(Value::as_str) {
        Some("prompt_last") => {
            file.take("objective_optimization", "update.loss");
            with.push(("loss", json!("prompt_last")));
        }
        Some("target_new") => {
            file.take("objective_optimization", "update.loss");
            with.push(("loss", json!("target")));
        }
        Some(_) => file.leave("objective_optimization", "no such loss is known"),
        // The reference's file has no choice.
        None => with.push(("loss", json!("prompt_last"))),
    }
    for (key, name, place) in [
        ("num_steps", "epochs", "update.epochs"),
        ("lr", "learning_rate", "update.learning_rate"),
        ("batch_size", "mini_batch", "update.mini_batch"),
    ] {
        if let Some(value) = file.number(key, place) {
            with.push((name, value));
        }
    }
    if file.values.get("norm_constraint").and_then(Value::as_bool) == Some(false) {
        file.take("norm_constraint", "update.bound");
    } else if let Some(bound) = file.number("norm_constraint", "update.bound") {
        with.push(("bound", bound));
    }
    for key in ["kl_factor", "weight_decay"] {
        if file.values.get(key).and_then(Value::as_f64) == Some(0.0) {
            file.take(key, "nothing: it is 0");
        } else {
            file.leave(key, "fine-tuning has no such term");
        }
    }
    vec![Stage { name: "update", uses: "finetune", inputs: "{ model: model, requests: edits }", with }]
}

fn ultraedit(file: &mut File, _: &[u64]) -> Vec<Stage> {
    let mut with = vec![("layers", json!(LAYERS))];
    for (key, name, place) in [
        ("lr", "learning_rate", "update.learning_rate"),
        ("batch_size", "mini_batch", "update.mini_batch"),
        ("n_edits", "batch_size", "update.batch_size"),
    ] {
        if let Some(value) = file.number(key, place) {
            with.push((name, value));
        }
    }
    vec![Stage { name: "update", uses: "ultraedit", inputs: "{ model: model, requests: edits }", with }]
}

/// Where keys go that are in no stage.
fn rest(file: &mut File) {
    let of_the_model = [
        "rewrite_module_tmp",
        "rewrite_module_tmps",
        "layer_module_tmp",
        "mlp_module_tmp",
        "attn_module_tmp",
        "ln_f_module",
        "lm_head_module",
    ];
    for key in of_the_model {
        if file.values.remove(key).is_some() {
            file.carried.push((key.to_owned(), "known from the model".to_owned()));
        }
    }
    for (key, why) in [
        ("model_name", "the model is the one that was named"),
        ("tokenizer_class", "known from the model"),
        ("tokenizer_name", "known from the model"),
        ("mom2_adjustment", "second moments are always used"),
        ("mom2_dataset", "put your text into corpus.txt, or set `corpus` of `moments`"),
        ("mom2_dtype", "second moments are summed in f64"),
        ("stats_dir", "load_moments reads published second moments"),
        ("layer_selection", "the layers are those of the list"),
        ("device", "the machine is chosen when a pipeline is run"),
        ("model_parallel", "the machine is chosen when a pipeline is run"),
        ("fp16", "set `dtype` of `model`"),
        ("bf16", "set `dtype` of `model`"),
        ("batch_size", "set `batch_size` of `update`"),
        ("max_length", "prompts are as long as they are"),
        ("P_loc", "the projector is made of the second moments, and kept"),
        ("add_prev_edits", "earlier rounds are not preserved"),
        ("edit_layer", "the layers are those of the list"),
        ("calculate_norms", "norms of changes are always shown"),
        ("calculate_objective_value", "values of the objective are always shown"),
        ("nll_loss_factor", "the stop `divergence` has it: 1, and 0.1 once the target is said"),
        ("wd_power_law", "fine-tuning has no such term"),
    ] {
        file.leave(key, why);
    }
    let unknown: Vec<String> = file.values.keys().cloned().collect();
    for key in unknown {
        file.values.remove(&key);
        file.left.push((key, "an unknown key".to_owned()));
    }
}

fn written(path: &Path, method: Method, model: &str, stages: &[Stage], file: &File) -> String {
    let source = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let method = match method {
        Method::Rome => "rome",
        Method::Memit => "memit",
        Method::Emmet => "emmet",
        Method::Pmet => "pmet",
        Method::AlphaEdit => "alphaedit",
        Method::Ft => "ft",
        Method::UltraEdit => "ultraedit",
    };
    let one_line = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let mut text = format!("# What {} means.\n", one_line(&source));
    for (key, why) in &file.left {
        let _ = writeln!(text, "# Not carried over: {} ({why}).", one_line(key));
    }
    let _ = writeln!(text, "name: {method}\n\nvars:\n  layers: [{}]\n", layers_of(file));
    let _ = writeln!(text, "stages:\n  model:\n    uses: load_model\n    with: {{ path: {model} }}\n");
    text.push_str("  edits:\n    uses: load_requests\n    with: { dataset: jsonl, path: facts.jsonl }\n");
    for Stage { name, uses, inputs, with } in stages {
        let _ = writeln!(text, "\n  {name}:\n    uses: {uses}");
        if !inputs.is_empty() {
            let _ = writeln!(text, "    inputs: {inputs}");
        }
        text.push_str("    with:\n");
        for (key, value) in with {
            // JSON is YAML.
            let _ = match value {
                Value::Object(parts) => {
                    let parts: Vec<String> =
                        parts.iter().map(|(name, value)| format!("        {name}: {value}\n")).collect();
                    writeln!(text, "      {key}:\n{}", parts.concat().trim_end())
                }
                _ => writeln!(text, "      {key}: {value}"),
            };
        }
    }
    text.push_str("\n  scores:\n    uses: evaluate\n    inputs: { model: update, requests: edits }\n");
    text
}

fn layers_of(file: &File) -> String {
    file.layers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}
