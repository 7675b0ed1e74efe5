//! The version of a store, in the file `VERSION` of its folder.
//!
//! A program that meets a store of a later version cannot know what it does not understand: a file that looks like garbage may
//! be a result, and a manifest that does not read may be sound. So it does nothing at all with such a store: it neither
//! repairs nor collects nor adds anything, and says so. Every way into a store comes through [`check`].

use std::fs;
use std::io::ErrorKind as IoKind;
use std::path::Path;

use super::durable;
use super::share::Shared;
use palinode_error::{Error, ErrorKind};

/// The version that this program writes. Raise it when an earlier program would misread a store that this one wrote, and read
/// or carry over what the earlier one left.
pub const VERSION: u32 = 1;

/// The version of stores from before there was a `VERSION`.
const FIRST: u32 = 1;

/// The file's name in the store's folder.
pub const NAME: &str = "VERSION";

/// The version of the store in this folder, which need not be there; `None` when nothing says.
///
/// # Errors
/// When it is of a later version than this program's, or what says so cannot be read.
pub fn check(root: &Path) -> Result<Option<u32>, Error> {
    let path = root.join(NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // Where the folder itself is missing or no folder, whoever opens the store says so.
        Err(error) if matches!(error.kind(), IoKind::NotFound | IoKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(Error::io(ErrorKind::Store, "read", &path, error)),
    };
    let version = text.lines().next().and_then(|line| line.trim().parse().ok());
    let version = version.ok_or_else(|| {
        Error::store(format!("{} does not say which version the store is of", path.display()))
            .hint(format!("its first line is a number; a store that this version of the program wrote has {VERSION}"))
    })?;
    accept(version, &format!("the store {}", root.display())).map(Some)
}

/// Accepts what was written by this version of the program or an earlier one.
///
/// # Errors
/// When it was written by a later one.
pub fn accept(version: u32, what: &str) -> Result<u32, Error> {
    if version <= VERSION {
        return Ok(version);
    }
    let message = format!(
        "{what} was written by a newer version of the program: it is of version {version}, and this program \
         reads versions up to {VERSION}"
    );
    Err(Error::store(message).hint("use that version of the program, or a store of its own for this one"))
}

/// Writes the version into a store that is made now, or that is from before there were versions.
pub fn mark(root: &Path, tmp: &Path, shared: Shared) -> Result<(), Error> {
    if check(root)?.is_some() {
        return Ok(());
    }
    // A store is older than its version's file when there is anything in it.
    let is_new = fs::read_dir(root.join("actions")).is_ok_and(|mut entries| entries.next().is_none());
    let version = if is_new { VERSION } else { FIRST };
    durable::write(tmp, &root.join(NAME), &[format!("{version}\n").as_bytes()], shared)
}
