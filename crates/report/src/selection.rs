//! A report with some of its columns, and rows in another order.

use crate::data::{Cell, Measured, Report};

impl Report {
    /// Keeps these columns of the tables of results, by name or heading, in this order; tables that have none of them stay as they are.
    ///
    /// # Errors
    /// A column that no table has, with the headings that there are.
    pub fn choose_columns(&mut self, wanted: &[String]) -> Result<(), (String, Vec<String>)> {
        let is = |measured: &Measured, at: usize, name: &String| {
            measured.metrics[at].name == *name || measured.metrics[at].label == *name
        };
        for name in wanted {
            let known = |measured: &Measured| (0..measured.metrics.len()).any(|at| is(measured, at, name));
            if !self.measured.iter().any(known) {
                let mut all: Vec<String> = Vec::new();
                for measured in &self.measured {
                    all.extend(measured.known().into_iter().map(|at| measured.metrics[at].label.clone()));
                }
                all.dedup();
                return Err((name.clone(), all));
            }
        }
        for measured in &mut self.measured {
            let found = |name| (0..measured.metrics.len()).find(|&at| is(measured, at, name));
            let mut kept: Vec<usize> = wanted.iter().filter_map(found).collect();
            if kept.is_empty() {
                continue;
            }
            // What stands in the row of the unedited model goes with its column.
            for at in kept.clone() {
                let before = format!("before_{}", measured.metrics[at].name);
                kept.extend(measured.metrics.iter().position(|metric| metric.name == before));
            }
            measured.take(&kept);
        }
        Ok(())
    }

    /// Puts an axis first, so that rows are grouped by it.
    ///
    /// # Errors
    /// An axis that nothing was measured along, with those that there are.
    pub fn group_by(&mut self, axis: &str) -> Result<(), (String, Vec<String>)> {
        let mut axes: Vec<String> = Vec::new();
        for name in self.measured.iter().flat_map(|measured| measured.axes()) {
            if !axes.iter().any(|known| known == name) {
                axes.push(name.to_owned());
            }
        }
        if !axes.iter().any(|known| known == axis) {
            return Err((axis.to_owned(), axes));
        }
        for measured in &mut self.measured {
            measured.group_by(axis);
        }
        Ok(())
    }
}

impl Measured {
    /// Only these metrics, by index, in this order.
    fn take(&mut self, kept: &[usize]) {
        self.metrics = kept.iter().map(|&at| self.metrics[at].clone()).collect();
        if !self.marks.is_empty() {
            self.marks = kept.iter().map(|&at| self.marks[at]).collect();
        }
        let steps = self.steps.iter_mut().chain(&mut self.retention).flat_map(|steps| &mut steps.rows);
        let rows = self.rows.iter_mut().map(|row| &mut row.values);
        for values in rows.chain(steps.map(|step| &mut step.values)) {
            *values = kept.iter().map(|&at| values[at]).collect();
        }
    }

    fn group_by(&mut self, axis: &str) {
        let mut names: Vec<String> = Vec::new();
        let first = |cell: &mut Cell| {
            if let Some(at) = cell.iter().position(|(name, _)| name == axis) {
                cell[..=at].rotate_right(1);
            }
        };
        for row in &mut self.rows {
            first(&mut row.cell);
            let name = row.cell.first().map(|(_, level)| level.to_string()).unwrap_or_default();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let of = |row: &crate::data::Row| row.cell.first().map(|(_, level)| level.to_string()).unwrap_or_default();
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by_key(|&at| names.iter().position(|name| *name == of(&self.rows[at])));
        self.rows = order.iter().map(|&at| self.rows[at].clone()).collect();
        let new = |old: usize| order.iter().position(|&at| at == old).unwrap_or(old);
        for mark in &mut self.marks {
            if let crate::data::Mark::Row(row) = mark {
                *row = new(*row);
            }
        }
        for step in self.steps.iter_mut().chain(&mut self.retention).flat_map(|steps| &mut steps.rows) {
            step.row = new(step.row);
        }
    }
}
