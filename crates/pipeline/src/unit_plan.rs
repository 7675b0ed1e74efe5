//! Where a long stage is cut.

use std::ops::Range;

/// How the work of a stage is cut into units, known before it runs.
///
/// A unit is what is kept when it is done, what a killed run goes on from, and what another process can be given to do. For that
/// it must be the same piece of work everywhere: its size is a constant of the stage or one of its keyed parameters, never
/// taken from memory, device, number of cores, or from how much is computed side by side. A batch of the device never crosses
/// a unit, so that a unit's result does not depend on its neighbours; and results are joined, and sums taken, in the units'
/// order, whatever order they were finished in.
///
/// Units come in parts of equal size. A part is the least that can be computed apart from the others with the same bits: where results are
/// joined that is one unit; where they are summed, a part has a sum of its own, and the parts' sums are added in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitPlan {
    /// What is counted, such as "documents".
    pub what: &'static str,
    /// How many there are, or at most are.
    pub items: usize,
    /// Items in a unit; the last one may have fewer.
    pub size: usize,
    /// Units in a part; the last one may have fewer.
    pub units_in_part: usize,
}

impl UnitPlan {
    /// `items` cut into units of `size`, each a part by itself.
    pub const fn new(what: &'static str, items: usize, size: usize) -> Self {
        Self { what, items, size: if size == 0 { 1 } else { size }, units_in_part: 1 }
    }

    /// The same with so many units in a part.
    #[must_use]
    pub const fn in_parts_of(self, units: usize) -> Self {
        Self { units_in_part: if units == 0 { 1 } else { units }, ..self }
    }

    /// The same for units of which each needs the one before: they are all one part.
    #[must_use]
    pub const fn in_one_part(self) -> Self {
        Self { units_in_part: usize::MAX, ..self }
    }

    /// How many units there are.
    pub const fn units(&self) -> usize {
        self.items.div_ceil(self.size)
    }

    /// The items of a unit.
    pub fn unit(&self, number: usize) -> Range<usize> {
        let start = number.saturating_mul(self.size).min(self.items);
        start..start.saturating_add(self.size).min(self.items)
    }

    /// How many parts there are.
    pub const fn parts(&self) -> usize {
        self.units().div_ceil(self.units_in_part)
    }

    /// The units of a part.
    pub fn part(&self, number: usize) -> Range<usize> {
        let start = number.saturating_mul(self.units_in_part).min(self.units());
        start..start.saturating_add(self.units_in_part).min(self.units())
    }
}

#[cfg(test)]
mod tests {
    use super::UnitPlan;

    /// Every item lies in one unit and every unit in one part, in order.
    #[test]
    fn units_and_parts_cover_everything_once() {
        for items in [0, 1, 2, 6, 7, 8, 63, 64, 65] {
            for size in [1, 2, 7, 64, 100] {
                for units in [1, 3, usize::MAX] {
                    let plan = UnitPlan::new("items", items, size).in_parts_of(units);
                    let units: Vec<usize> = (0..plan.parts()).flat_map(|part| plan.part(part)).collect();
                    assert_eq!(units, (0..plan.units()).collect::<Vec<_>>(), "{plan:?}");
                    let found: Vec<usize> = units.into_iter().flat_map(|unit| plan.unit(unit)).collect();
                    assert_eq!(found, (0..items).collect::<Vec<_>>(), "{plan:?}");
                }
            }
        }
        assert_eq!(UnitPlan::new("rounds", 5, 1).in_one_part().parts(), 1);
    }
}
