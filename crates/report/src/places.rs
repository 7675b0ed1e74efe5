//! Where a fact is kept: effects of restored states by token and layer, as heat maps and as lines.

use std::iter::empty;

use crate::choose::figure;
use crate::curve::{self, Line, Point};
use crate::data::{Effects, Metric, PromptEffects, Traced};
use crate::figure::{Figure, Key, PANEL, Panel};
use crate::heat::shade;
use crate::look::{Look, words};
use crate::losses::stem;
use crate::number::{decimals, fixed, short};
use crate::svg::{Anchor, Svg, clip, width};
use crate::table::{Column, Field, Table};

/// Room for a panel; a third of a page.
const WIDE: f64 = 1.49 * PANEL;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 38.0;
const LINE: f64 = 20.0;
/// Room for the scale of colours beside a map.
const BAR: f64 = 46.0;

/// A heat map: a row for each label, a column for each layer.
struct Map<'a> {
    heading: &'a str,
    labels: &'a [String],
    /// `[rows][layers]`.
    values: &'a [&'a [f64]],
    /// The values that no colour and the darkest stand for.
    reach: [f64; 2],
    /// What the values are.
    what: &'a str,
}

impl Map<'_> {
    fn panel(&self) -> Panel {
        let [low, high] = self.reach;
        let layers = self.values.iter().map(|row| row.len()).max().unwrap_or(0);
        let left = (self.labels.iter().map(|label| width(label)).fold(0.0, f64::max) + 10.0).min(WIDE * 0.42);
        let inner = WIDE - left - BAR;
        let (wide, tall) = (inner / layers.max(1) as f64, LINE * self.labels.len() as f64);
        let mut svg = Svg::default();
        svg.text((0.0, 14.0), Anchor::Start, &clip(self.heading, WIDE), r#"font-weight="600""#);
        let gap = if wide > 6.0 { 1.0 } else { 0.0 };
        for (r, (label, values)) in self.labels.iter().zip(self.values).enumerate() {
            let y = TOP + LINE * r as f64;
            svg.text((left - 6.0, y + LINE / 2.0 + 3.8), Anchor::End, &clip(label, left - 8.0), "");
            for (layer, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
                let [red, green, blue] = shade((value - low) / (high - low).max(1e-12));
                let fill = format!(r#"fill="rgb({red:.0},{green:.0},{blue:.0})""#);
                // Neighbours overlap a little, so that no line of the ground shows between them.
                let size = (wide - gap + if gap > 0.0 { 0.0 } else { 0.3 }, LINE - 1.0);
                svg.rect((left + wide * layer as f64, y), size, &fill);
            }
        }
        let step = [1, 2, 5, 10, 20, 50].into_iter().find(|step| layers.div_ceil(*step) <= 8).unwrap_or(100);
        for layer in (0..layers).step_by(step) {
            let x = left + wide * (layer as f64 + 0.5);
            svg.line((x, TOP + tall), (x, TOP + tall + 4.0), r#"stroke-opacity=".6""#);
            svg.text((x, TOP + tall + 15.0), Anchor::Middle, &layer.to_string(), "");
        }
        svg.text((left + inner / 2.0, TOP + tall + 30.0), Anchor::Middle, "layer", r#"opacity=".8""#);
        let (x, steps) = (WIDE - BAR + 8.0, 24);
        for part in 0..steps {
            let [red, green, blue] = shade(1.0 - part as f64 / f64::from(steps - 1));
            let fill = format!(r#"fill="rgb({red:.0},{green:.0},{blue:.0})""#);
            let tall = tall / f64::from(steps);
            svg.rect((x, TOP + tall * f64::from(part)), (8.0, tall + 0.3), &fill);
        }
        svg.text((x + 11.0, TOP + 8.0), Anchor::Start, &short(round(high)), r#"font-size="9""#);
        svg.text((x + 11.0, TOP + tall), Anchor::Start, &short(round(low)), r#"font-size="9""#);
        let title = format!("{}: {} by token (rows) and layer (columns)", self.heading, self.what);
        Panel { width: WIDE, height: TOP + tall + BOTTOM, title, body: svg }
    }
}

/// To two digits, for the end of a scale.
fn round(value: f64) -> f64 {
    let size = 10f64.powf(value.abs().max(1e-300).log10().floor() - 1.0);
    if value == 0.0 { 0.0 } else { (value / size).round() * size }
}

impl Effects {
    /// The heading of its panel.
    fn heading(&self) -> &str {
        &self.restored
    }
}

impl Traced {
    fn kinds(&self) -> Vec<&str> {
        let mut kinds: Vec<&str> = Vec::new();
        for effects in &self.effects {
            if !kinds.contains(&effects.heading()) {
                kinds.push(effects.heading());
            }
        }
        kinds
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Effects> {
        self.effects.iter().filter(move |effects| effects.restored == kind)
    }

    /// The averaged heat map of the ROME paper: a panel for each kind of state, a row for each role of a token.
    pub fn maps(&self) -> Figure {
        let panel = |kind: &&str| {
            let rows: Vec<&Effects> = self.of_kind(kind).collect();
            let labels: Vec<String> = rows.iter().map(|row| row.role.clone()).collect();
            let values: Vec<&[f64]> = rows.iter().map(|row| row.effect.as_slice()).collect();
            let high = values.iter().copied().flatten().copied().fold(0.0, f64::max);
            let what = "average indirect effect";
            Map { heading: kind, labels: &labels, values: &values, reach: [0.0, high], what }.panel()
        };
        let panels = self.kinds().iter().map(panel).collect();
        let caption = format!(
            "Average indirect effect of restoring a state, by the token's role and layer ({}), over {} prompt{}: p(answer) with the state \
             restored less p(answer) with noise alone, which is {} on average and {} without noise. {} Each panel has a scale of its own, \
             from 0; effects below 0 have its lightest colour.",
            words(&self.instance),
            self.prompts,
            if self.prompts == 1 { "" } else { "s" },
            fixed(self.noisy, false, 3),
            fixed(self.clean, false, 3),
            self.how
        );
        figure(&format!("{}-roles", stem(&self.instance)), &caption, panels, &[], &[], false)
    }

    /// The same as lines with intervals.
    pub fn lines(&self) -> Figure {
        let mut roles: Vec<&str> = Vec::new();
        for effects in &self.effects {
            if !roles.contains(&effects.role.as_str()) {
                roles.push(&effects.role);
            }
        }
        let look = |role: &str| Look::nth(roles.iter().position(|known| *known == role).unwrap_or(0));
        let layers = self.effects.iter().map(|effects| effects.effect.len()).max().unwrap_or(0);
        let levels: Vec<f64> = (0..layers).map(|layer| layer as f64).collect();
        let panel = |kind: &&str| {
            let lines = self.of_kind(kind).map(|effects| {
                let point = |(layer, effect): (usize, &f64)| {
                    let interval = effects.interval.as_ref().map(|all| all[layer]);
                    effect.is_finite().then_some(Point { x: layer as f64, y: *effect, interval })
                };
                let points = effects.effect.iter().enumerate().filter_map(point).collect();
                Line { look: look(&effects.role), label: effects.role.clone(), points }
            });
            let metric = Metric { label: (*kind).to_owned(), ..Metric::default() };
            curve::panel(&metric, "layer", &levels, &lines.collect::<Vec<_>>())
        };
        let panels = self.kinds().iter().map(panel).collect();
        let legend: Vec<Key> = roles.iter().map(|role| Key { look: look(role), label: (*role).to_owned() }).collect();
        let caption = format!(
            "Average indirect effects by layer ({}). Bars or bands: Student's 95 % intervals over the prompts that have such a token, {} at \
             most.",
            words(&self.instance),
            self.prompts
        );
        figure(&format!("{}-effects", stem(&self.instance)), &caption, panels, &legend, &["token"], true)
    }

    /// Single prompts.
    pub fn each(&self) -> Option<Figure> {
        let panels: Vec<Panel> = self.single.iter().flat_map(PromptEffects::panels).collect();
        let caption = format!(
            "The first {} of {} prompts ({}): p(answer) with the state of one token restored. * marks the subject's tokens, which noise was \
             added to. Colours reach from p(answer) with noise alone to that without noise.",
            self.single.len(),
            self.prompts,
            words(&self.instance)
        );
        let name = format!("{}-prompts", stem(&self.instance));
        (!panels.is_empty()).then(|| figure(&name, &caption, panels, &[], &[], true))
    }

    /// All averages.
    pub fn table(&self) -> Table {
        let digits = decimals(false, self.effects.iter().flat_map(|effects| effects.effect.iter().copied()), empty());
        let row = |effects: &Effects, layer: usize| {
            let effect = effects.effect[layer];
            let ends = effects.interval.as_ref().map(|all| all[layer]);
            let interval = ends.map_or_else(String::new, |[low, high]| {
                format!("{} to {}", fixed(low, false, digits), fixed(high, false, digits))
            });
            vec![
                Field::text(&effects.restored),
                Field::text(&effects.role),
                Field::text(layer.to_string()),
                Field { interval, ends, ..Field::shown(fixed(effect, false, digits), effect.to_string()) },
                Field::text(effects.prompts.to_string()),
            ]
        };
        let rows = self.effects.iter();
        Table {
            name: format!("{}-effects", stem(&self.instance)),
            caption: format!("Average indirect effects ({}).", words(&self.instance)),
            columns: vec![
                Column::text("restored"),
                Column::text("token"),
                Column::number("layer", "", ""),
                Column::number("effect", "", "p(answer) with the state restored, less that with noise alone"),
                Column::number("prompts", "", "prompts that have such a token"),
            ],
            rows: rows.flat_map(|effects| (0..effects.effect.len()).map(|layer| row(effects, layer))).collect(),
            note: String::new(),
            aside: true,
        }
    }
}

impl PromptEffects {
    fn panels(&self) -> Vec<Panel> {
        let panel = |(kind, values): &(String, Vec<Vec<f64>>)| {
            let values: Vec<&[f64]> = values.iter().map(Vec::as_slice).collect();
            let heading = format!("{kind} · p({})", self.answer.trim());
            let reach = [self.noisy.min(self.clean), self.clean.max(self.noisy)];
            Map { heading: &heading, labels: &self.tokens, values: &values, reach, what: "p(answer)" }.panel()
        };
        self.maps.iter().map(panel).collect()
    }
}
