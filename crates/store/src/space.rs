//! Room on the disk, looked for before much is written.

use std::path::Path;

use rustix::fs::statvfs;

use palinode_error::size;
use palinode_error::{Error, Hint};

/// Writes smaller than this are tried at once: the answer takes longer than they do.
const LARGE: u64 = 1 << 20;

/// Left for what is written beside: manifests, records, logs.
const BESIDE: u64 = 1 << 20;

/// What a store needs to be opened: the index writes when it is.
const LEAST: u64 = 4 << 20;

/// Bytes that this user can still write in the file system of `path`; `None` where nobody knows.
pub fn available(path: &Path) -> Option<u64> {
    // What is yet to be made lies where its folder does.
    let there = path.ancestors().find(|path| path.exists())?;
    let known = statvfs(there).ok()?;
    Some(known.f_bavail.saturating_mul(known.f_frsize))
}

/// Makes sure that `needed` bytes can be written at `path`; small numbers are believed to fit.
///
/// # Errors
/// When there is not enough room.
pub fn ensure_room(path: &Path, needed: u64) -> Result<(), Error> {
    if needed < LARGE { Ok(()) } else { ensure(path, needed.saturating_add(BESIDE)) }
}

/// Makes sure that a store can be worked with at all.
pub fn ensure_least(store: &Path) -> Result<(), Error> {
    ensure(store, LEAST)
}

fn ensure(path: &Path, needed: u64) -> Result<(), Error> {
    match available(path) {
        Some(available) if available < needed => Err(Error::store(format!(
            "not enough free space for {}: {} needed, {} available",
            path.display(),
            size(needed),
            size(available)
        ))
        .hint(Hint::FreeSpace)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use palinode_error::ErrorKind;

    use super::*;

    #[test]
    fn room() {
        let here = Path::new("a/file/that/is/not/there/yet");
        let available = available(&std::path::absolute(here).unwrap()).unwrap();
        assert!(available > 0);
        assert!(ensure_room(here, 0).is_ok());
        let error = ensure_room(&std::path::absolute(here).unwrap(), u64::MAX).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Store);
        assert!(error.message.contains("needed") && error.message.contains("available"), "{error}");
    }
}
