//! Which failures are worth another attempt, and when.

use std::time::Duration;

use super::message::Failure;
use palinode_error::ErrorKind;

/// How long a failed instance waits for its next attempt: `first`, then twice as long after each further failure, `most` at most.
///
/// There is no chance in it: one coordinator starts all attempts, so there are no others that it would have to avoid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), most: Duration::from_mins(1) }
    }
}

impl Backoff {
    /// The wait after so many failures.
    pub(crate) fn after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.checked_mul(1 << doublings).map_or(self.most, |wait| wait.min(self.most))
    }
}

/// Whether a further attempt may go better. Storage, memory, time and processes are the surroundings of an attempt, which change.
/// Arithmetic and inputs are the attempt itself: another one computes the same and fails the same way, only later.
pub fn may_pass(failure: Failure) -> bool {
    match failure {
        Failure::Lost(_) | Failure::TimedOut | Failure::Error(ErrorKind::Store | ErrorKind::Limit) => true,
        Failure::Error(
            ErrorKind::Usage
            | ErrorKind::Pipeline
            | ErrorKind::Input
            | ErrorKind::Numerical
            | ErrorKind::Doubtful
            // The key is of the contents as they were: another attempt cannot compute from them.
            | ErrorKind::Changed
            | ErrorKind::Interrupted
            | ErrorKind::Unworkable
            | ErrorKind::Internal,
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_until_the_longest() {
        let backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(10) };
        let waits = [1, 2, 3, 4, 5, 100, u32::MAX].map(|failures| backoff.after(failures).as_secs());
        assert_eq!(waits, [1, 2, 4, 8, 10, 10, 10]);
        let none = Backoff { first: Duration::ZERO, ..backoff };
        assert_eq!(none.after(7), Duration::ZERO);
    }
}
