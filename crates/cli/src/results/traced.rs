//! Effects of restored states, a line for each role of a token: one character a layer.

use std::fmt::Write as _;

use palinode::{Averages, Effects, TraceKind};
use serde_json::Value;

use crate::terminal::Style;

/// From nothing to the largest effect.
const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns of a role's name.
const NAME: usize = 23;

/// What tracing found, of a result that holds such; nothing of others.
pub fn of(meta: &Value) -> Option<Averages> {
    serde_json::from_value(meta.get("trace")?.clone()).ok()
}

/// The averages as text.
pub fn show(averages: &Averages, style: &Style) -> String {
    let mut text = String::new();
    for kind in TraceKind::ALL {
        let rows: Vec<&Effects> = averages.effects.iter().filter(|row| row.restored == kind).collect();
        let most = rows.iter().flat_map(|row| &row.effect).copied().fold(0.0, f64::max);
        if rows.is_empty() {
            continue;
        }
        let last = averages.layers.saturating_sub(1);
        let scale = format!("layers 0 to {last}, effects from 0 to {most:.3}");
        let _ = writeln!(text, "\n{}  {}", style.bold(kind.label()), style.dim(&scale));
        for row in rows {
            let (layer, peak) =
                row.effect.iter().enumerate().fold((0, f64::MIN), |best, (layer, effect)| {
                    if *effect > best.1 { (layer, *effect) } else { best }
                });
            let interval = row.interval.as_ref().map_or_else(String::new, |all| {
                // What rounds to nothing has no sign.
                let end = |value: f64| format!("{:.3}", if value.abs() < 5e-4 { 0.0 } else { value });
                format!(" [{}]", all[layer].map(end).join(", "))
            });
            let bars: String = row.effect.iter().map(|effect| step(*effect, most)).collect();
            let peak = format!("{peak:.3}{interval} at {layer}, n {}", row.prompts);
            let _ = writeln!(text, "  {:NAME$}{bars}  {}", row.role.label(), style.dim(&peak));
        }
    }
    text
}

fn step(effect: f64, most: f64) -> char {
    let share = if most > 0.0 { (effect / most).clamp(0.0, 1.0) } else { 0.0 };
    STEPS[((share * STEPS.len() as f64) as usize).min(STEPS.len() - 1)]
}
