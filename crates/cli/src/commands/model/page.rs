//! What a model folder holds, as a page.

use std::fmt::Write as _;

use palinode::{EditableWeight, ExpertId, Experts, Inspection};

use crate::terminal::table::{Column, Field, Look, table};
use crate::terminal::{Style, format};

/// The whole page.
pub fn page(found: &Inspection, style: &Style) -> String {
    let mut text = list(style, &facts(found));
    text.push_str(&title("EDITABLE WEIGHTS", style));
    text.push_str(&editable(&found.editable, style));
    text.push_str(&title("MEMORY", style));
    text + &memory(found, style)
}

fn title(text: &str, style: &Style) -> String {
    format!("\n{}\n", style.bold(text))
}

fn list(style: &Style, rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{}  {value}", style.dim(&format!("{name:width$}")));
        text
    })
}

fn facts(found: &Inspection) -> Vec<(&'static str, String)> {
    let groups = if found.kv_heads == found.heads {
        String::new()
    } else {
        format!(" that share {} keys and values", found.kv_heads)
    };
    let head = if found.tied_head { "the embedding, transposed" } else { "weights of its own" };
    let window = found.window.map(|window| format!(", {window} of them seen at once")).unwrap_or_default();
    let types: Vec<String> = found.dtypes.keys().map(|name| name.to_lowercase()).collect();
    let tokenizer = &found.tokenizer;
    let begins = match tokenizer.prefix.as_slice() {
        [] => "texts begin with no token of their own (no BOS)".to_owned(),
        tokens => format!("every text begins with {} (BOS)", tokens.join(" ")),
    };
    let mut rows = vec![
        ("family", found.family.clone()),
        ("parameters", format!("{} ({})", rounded(found.parameters), found.parameters)),
        ("stored as", types.join(", ")),
        ("on disk", format!("{} in {}", format::size(found.disk), format::count(found.shards.len(), "file"))),
        ("layers", format!("{}: 0 to {}", found.layers, found.layers.saturating_sub(1))),
        ("hidden size", found.hidden.to_string()),
        ("key size", key_size(found)),
        (EXPERTS, found.experts.as_ref().map(|experts| told_experts(experts, found.layers)).unwrap_or_default()),
        ("heads", format!("{} of {} dimensions{groups}", found.heads, found.head_dim)),
        ("positions", found.positions.clone()),
        ("context", format!("{} tokens{window}", found.context)),
        ("head", head.to_owned()),
        ("vocabulary", format!("{} in the model, {} in the tokenizer", found.vocabulary, tokenizer.vocabulary)),
        ("tokenizer", tokenizer.kind.clone()),
        ("", begins),
        ("", tokenizer.end.as_ref().map_or("no end token".to_owned(), |end| format!("a text ends with {end}"))),
    ];
    if found.experts.is_none() {
        rows.retain(|(name, _)| *name != EXPERTS);
    }
    rows
}

/// The row of a mixture of experts.
const EXPERTS: &str = "experts";

fn key_size(found: &Inspection) -> String {
    match &found.experts {
        Some(experts) if experts.dense_layers.is_empty() => format!("{} (feed-forward of an expert)", experts.size),
        _ => format!("{} (feed-forward)", found.feed_forward),
    }
}

/// "8 of 14336 dimensions in each layer, of which a token uses 2".
fn told_experts(experts: &Experts, layers: usize) -> String {
    let shared = experts.shared.map(|size| format!(", and one of {size} that all tokens use")).unwrap_or_default();
    let place = match layers - experts.dense_layers.len() {
        mixed if mixed == layers => "each layer".to_owned(),
        mixed => format!("{mixed} of {layers} layers"),
    };
    format!(
        "{} of {} dimensions in {place}, of which a token uses {}{shared}",
        experts.count, experts.size, experts.top
    )
}

/// "1.56 billion".
fn rounded(count: usize) -> String {
    match count as f64 {
        n if n >= 1e9 => format!("{:.2} billion", n / 1e9),
        n if n >= 1e6 => format!("{:.0} million", n / 1e6),
        n => format!("{:.0} thousand", n / 1e3),
    }
}

/// One row for layers and experts that differ in their number alone.
fn editable(weights: &[EditableWeight], style: &Style) -> String {
    let stem = |weight: &EditableWeight| {
        let name = weight.name.replacen(&format!(".{}.", weight.layer), ".{}.", 1);
        match weight.expert {
            Some(ExpertId::Routed(expert)) => name.replacen(&format!(".experts.{expert}."), ".experts.{}.", 1),
            _ => name,
        }
    };
    let alike = |a: &EditableWeight, b: &EditableWeight| {
        (stem(a), &a.shape, &a.dtype, &a.file) == (stem(b), &b.shape, &b.dtype, &b.file)
    };
    // A layer's shared expert stands between the experts of two layers.
    let mut sorted: Vec<&EditableWeight> = weights.iter().collect();
    sorted.sort_by_key(|weight| weight.expert == Some(ExpertId::Shared));
    let rows = sorted.chunk_by(|a, b| alike(a, b)).map(|group| {
        let (first, last) = (group[0], group[group.len() - 1]);
        let layers = if first.layer == last.layer {
            first.layer.to_string()
        } else {
            format!("{} to {}", first.layer, last.layer)
        };
        let shape: Vec<String> = first.shape.iter().map(usize::to_string).collect();
        vec![
            Field::new(layers, Look::Bold),
            stem(first).into(),
            shape.join(" × ").into(),
            first.dtype.to_lowercase().into(),
            first.file.clone().into(),
        ]
    });
    let columns = [
        ("LAYERS", Column::Name),
        ("WEIGHT", Column::Name),
        ("SHAPE", Column::Name),
        ("TYPE", Column::Name),
        ("FILE", Column::Text),
    ];
    table(style, &columns, rows.collect())
}

fn memory(found: &Inspection, style: &Style) -> String {
    let needs = &found.memory;
    let mixed = found.experts.is_some();
    let row = |stage: &str, bytes: u64, what: &str| {
        vec![Field::new(stage, Look::Bold), format::size(bytes).into(), what.into()]
    };
    let mut rows = vec![
        row("load_model", needs.weights, "the weights in f32, once for all stages of a run"),
        row("", needs.weights_half, "instead, with `dtype: bf16` or `dtype: f16`"),
        row(
            "",
            needs.weights_streamed,
            &format!("instead, with streamed blocks: a pass over them reads {}", format::size(needs.pass)),
        ),
        row(
            "covariance",
            needs.covariance_layer,
            if mixed { "more for each layer: a sum for each of its experts" } else { "more for each layer" },
        ),
        row("targets", needs.targets_request, "more for each request optimised at once (about; six templates)"),
        row("", needs.targets_request_streamed, "instead, with streamed blocks"),
        row(
            "solve",
            needs.solve_layer,
            if mixed { "more for each layer, of the experts that one key is routed to" } else { "more for each layer" },
        ),
        row("texts", needs.texts, "more while several are written, where half of what is free holds it"),
    ];
    if !mixed {
        rows.insert(
            rows.len() - 1,
            row("", needs.solve_projector, "more while the directions for a `projector` are computed"),
        );
    }
    let columns = [("STAGE", Column::Name), ("TAKES", Column::Number), ("FOR", Column::Text)];
    let mut text = table(style, &columns, rows);
    if let Some(free) = needs.available {
        let fits = if needs.weights_half > free {
            style.yellow("the model does not fit")
        } else if needs.weights > free {
            style.yellow("the model fits with `dtype: bf16` or `dtype: f16` only")
        } else {
            let left = free - needs.weights;
            let square = needs.covariance_layer.max(1);
            let several = (left / square).min(found.layers as u64);
            format!("beside the model there is room for the covariance of {}", format::count(several as usize, "layer"))
        };
        let _ = writeln!(text, "\n{} of memory are free: {fits}", format::size(free));
    }
    text
}
