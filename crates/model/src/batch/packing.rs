//! Grouping rows of similar length, so that little is computed on padding and memory stays bounded.

/// A batch of rows, by index.
pub type Packing = Vec<Vec<usize>>;

/// Groups rows so that no group's rectangle (rows × longest row) exceeds `tokens`; a row longer than that stands alone.
/// Rows are taken by rising length, ties by index: the same rows always give the same groups.
pub fn pack(lengths: &[usize], tokens: usize) -> Packing {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| (lengths[i], i));
    let mut groups: Packing = Vec::new();
    for index in order {
        match groups.last_mut() {
            // Rows come by rising length: the newcomer is the longest of its group.
            Some(group) if (group.len() + 1) * lengths[index] <= tokens => group.push(index),
            _ => groups.push(vec![index]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::pack;

    #[test]
    fn groups_hold_every_row_once_within_the_budget() {
        let lengths = [5, 3, 9, 3, 20, 1];
        let groups = pack(&lengths, 12);
        assert_eq!(groups, [vec![5, 1, 3], vec![0], vec![2], vec![4]]);
        assert!(pack(&[], 10).is_empty());
    }
}
