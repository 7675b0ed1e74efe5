//! Several runs in one report.

use crate::data::{Cell, Level, Report};

/// The axis that tells runs apart.
const RUN: &str = "run";

impl Report {
    /// Reports of several runs, each under its name, as one: the run is the first axis of everything that they measured.
    pub fn beside(parts: Vec<(String, Self)>) -> Self {
        let mut whole = Self::default();
        let titles: Vec<String> = parts.iter().map(|(_, part)| part.title.clone()).collect();
        whole.title = match titles.split_first() {
            Some((first, rest)) if rest.iter().all(|title| title == first) => first.clone(),
            _ => {
                let mut distinct: Vec<String> = Vec::new();
                for title in titles {
                    if !distinct.contains(&title) {
                        distinct.push(title);
                    }
                }
                distinct.join(", ")
            }
        };
        for (name, mut part) in parts {
            if whole.description.is_none() {
                whole.description = part.description.take();
            }
            let at = |cell: &mut Cell| cell.insert(0, (RUN.to_owned(), Level::Text(name.clone())));
            let named = |of: &str| if of.is_empty() { name.clone() } else { format!("{name} · {of}") };
            whole.facts.extend(part.facts.into_iter().map(|(fact, value)| (named(&fact), value)));
            whole.doubts.extend(part.doubts.into_iter().map(|(cell, doubt)| (named(&cell), doubt)));
            for mut layers in part.layers {
                layers.rows.iter_mut().for_each(|row| at(&mut row.cell));
                match whole
                    .layers
                    .iter_mut()
                    .find(|known| known.stage == layers.stage && known.metrics == layers.metrics)
                {
                    Some(known) => {
                        known.rows.append(&mut layers.rows);
                        known.repeated.extend(
                            layers
                                .repeated
                                .into_iter()
                                .filter(|axis| !known.repeated.contains(axis))
                                .collect::<Vec<_>>(),
                        );
                    }
                    None => whole.layers.push(layers),
                }
            }
            whole.losses.extend(part.losses.into_iter().map(|mut losses| {
                losses.instance = named(&losses.instance);
                losses
            }));
            whole.traced.extend(part.traced.into_iter().map(|mut traced| {
                traced.instance = named(&traced.instance);
                traced
            }));
            let edits = &mut whole.edits;
            for metric in &part.edits.metrics {
                if !edits.metrics.contains(metric) {
                    edits.metrics.push(metric.clone());
                    edits.rows.iter_mut().for_each(|row| row.values.push(None));
                }
            }
            let before = edits.cells.len();
            edits.cells.extend(part.edits.cells.iter().map(|cell| named(cell)));
            for mut row in part.edits.rows {
                row.cell += before;
                let own = |metric| part.edits.metrics.iter().position(|known| known == metric);
                row.values =
                    edits.metrics.iter().map(|metric| row.values.get(own(metric)?).copied().flatten()).collect();
                edits.rows.push(row);
            }
            whole.samples.extend(part.samples.into_iter().map(|mut sample| {
                sample.after.iter_mut().for_each(|(cell, _)| *cell = named(cell));
                sample
            }));
            let before = whole.stages.len();
            whole.stages.extend(part.stages.into_iter().map(|mut stage| {
                stage.name = named(&stage.name);
                stage.inputs.iter_mut().for_each(|input| *input += before);
                stage
            }));
            whole.resolved.push_str(&format!("# {name}\n{}\n", part.resolved));
        }
        whole
    }
}
