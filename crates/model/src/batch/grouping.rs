//! Grouping rows of similar length, so that little is computed on padding and memory stays bounded.

use crate::batch::rows::RowForm;

/// Groups rows, given by their lengths, into batches of at most `tokens` cells each, padding included; a row longer than that stands
/// alone. Rows are taken by rising length, ties by index: the same rows always give the same groups.
pub(crate) fn groups(lengths: &[usize], tokens: usize, form: RowForm) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| (lengths[i], i));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut sum = 0;
    for index in order {
        // Rows come by rising length: the newcomer is the longest of its group, and padded rows are as long as it.
        let cells = |members: usize| match form {
            RowForm::Padded => (members + 1) * lengths[index],
            RowForm::Packed => sum + lengths[index],
        };
        if let Some(group) = groups.last_mut().filter(|group| cells(group.len()) <= tokens) {
            sum += lengths[index];
            group.push(index);
        } else {
            sum = lengths[index];
            groups.push(vec![index]);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_every_row_once_within_the_budget() {
        let lengths = [5, 3, 9, 3, 20, 1];
        assert_eq!(groups(&lengths, 12, RowForm::Padded), [vec![5, 1, 3], vec![0], vec![2], vec![4]]);
        assert_eq!(groups(&lengths, 12, RowForm::Packed), [vec![5, 1, 3, 0], vec![2], vec![4]]);
        assert!(groups(&[], 10, RowForm::Padded).is_empty());
    }
}
