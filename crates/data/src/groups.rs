//! Records of several edits: those that name one group are made together and judged together.

use std::collections::HashMap;
use std::ops::Range;

use crate::EditRequest;

/// The edits by record, each record where its first edit stands. An edit without a group is a record of its own.
pub fn by_record(requests: Vec<EditRequest>) -> Vec<Vec<EditRequest>> {
    let mut records: Vec<Vec<EditRequest>> = Vec::with_capacity(requests.len());
    let mut known: HashMap<String, usize> = HashMap::new();
    for request in requests {
        let at = match &request.group {
            None => records.len(),
            Some(group) => *known.entry(group.clone()).or_insert(records.len()),
        };
        if at == records.len() {
            records.push(Vec::new());
        }
        records[at].push(request);
    }
    records
}

/// The places of each record's edits, which stand one behind the other.
pub fn records(requests: &[EditRequest]) -> Vec<Range<usize>> {
    let mut records: Vec<Range<usize>> = Vec::with_capacity(requests.len());
    for (at, request) in requests.iter().enumerate() {
        let together = at > 0 && request.group.is_some() && request.group == requests[at - 1].group;
        match records.last_mut().filter(|_| together) {
            Some(record) => record.end = at + 1,
            None => records.push(at..at + 1),
        }
    }
    records
}

/// The edits in batches of at most `size` records, 1 or more: no batch cuts a record.
pub fn batches(requests: &[EditRequest], size: usize) -> Vec<Range<usize>> {
    let records = records(requests);
    records.chunks(size.max(1)).map(|some| some[0].start..some[some.len() - 1].end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_batch_cuts_a_record() {
        let request = |group: &str| EditRequest {
            group: Some(group.to_owned()).filter(|group| !group.is_empty()),
            ..EditRequest::default()
        };
        let all: Vec<EditRequest> = ["a", "", "b", "a", "b", "", ""].map(request).into();
        let ordered: Vec<EditRequest> = by_record(all).into_iter().flatten().collect();
        let names: Vec<&str> = ordered.iter().map(|r| r.group.as_deref().unwrap_or("-")).collect();
        assert_eq!(names, ["a", "a", "-", "b", "b", "-", "-"]);
        assert_eq!(records(&ordered), [0..2, 2..3, 3..5, 5..6, 6..7]);
        assert_eq!(batches(&ordered, 2), [0..3, 3..6, 6..7]);
        assert_eq!(batches(&ordered, 9), [0..7; 1]);
        assert!(batches(&[], 2).is_empty());
    }
}
