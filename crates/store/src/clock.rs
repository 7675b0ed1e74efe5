//! What time it is by the file system's clock.
//!
//! A file that changes within one tick of that clock after it was read looks as it did before, if its length stays. Ticks
//! are some milliseconds long and come late on a busy machine, so they cannot be told from the clock of the process. What
//! can be told is the order on one clock: a change after some moment carries that moment's stamp or a later one.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Store;
use super::stat::{Stat, nanoseconds};

/// Between two clocks, such as those of this machine and of a file server.
const APART: Duration = Duration::from_secs(2);

impl Store {
    /// A stamp for reading a file that looks like `stat`: what changes it from now on will not look older than this.
    pub(super) fn stamp(&self, stat: &Stat) -> i128 {
        self.touched(stat).unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            now.saturating_sub(APART).as_nanos() as i128
        })
    }

    /// The change time of a file that is made for the purpose, if it lies in the same file system.
    fn touched(&self, stat: &Stat) -> Option<i128> {
        let made = tempfile::tempfile_in(self.tmp()).and_then(|file| file.metadata()).ok();
        let metadata = made.filter(|metadata| stat.is_on(metadata.dev()))?;
        Some(nanoseconds(metadata.ctime(), metadata.ctime_nsec()))
    }
}
