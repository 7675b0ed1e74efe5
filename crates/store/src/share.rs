//! Who may read and write the files of a store.
//!
//! Files get the modes that the user's umask gives, as everywhere. Where the store's own folder has the set-group-ID bit and is writable for
//! its group, the store belongs to the group, as a repository that git shares: every file then is for the group as well, whatever the umask
//! of who made it. New folders take over the group and the bit by themselves.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The set-group-ID bit of a folder.
const SET_GROUP: u32 = 0o2000;

/// What the files of a store are for its group beside what the umask allows: bits of a file's mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shared(bool);

impl Shared {
    /// As the store's folder says.
    pub fn of(root: &Path) -> Self {
        let mode = fs::metadata(root).map_or(0, |metadata| metadata.mode());
        Self(mode & SET_GROUP != 0 && mode & 0o020 != 0)
    }

    /// Lets the group read and write a file that was just made.
    pub fn file(self, file: &File) -> io::Result<()> {
        if self.0 {
            add(file.metadata()?.mode(), 0o060).map_or(Ok(()), |mode| file.set_permissions(mode))
        } else {
            Ok(())
        }
    }

    /// The same of a file or a folder that others made, at its path. Best effort: it may belong to someone else, who did it then.
    pub fn path(self, path: &Path) {
        if let (true, Ok(metadata)) = (self.0, fs::metadata(path)) {
            let bits = if metadata.is_dir() { 0o070 | SET_GROUP } else { 0o060 };
            let _ = add(metadata.mode(), bits).map(|mode| fs::set_permissions(path, mode));
        }
    }

    /// Makes a folder with all above it; those that are new are the group's as well.
    pub fn folder(self, path: &Path) -> io::Result<()> {
        let new: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
        fs::create_dir_all(path)?;
        for folder in new {
            self.path(folder);
        }
        Ok(())
    }
}

/// A mode with these bits, if it lacks one.
fn add(mode: u32, bits: u32) -> Option<Permissions> {
    (mode & bits != bits).then(|| Permissions::from_mode((mode | bits) & 0o7777))
}

/// A mode that nobody may write with.
pub fn read_only(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.mode();
    file.set_permissions(Permissions::from_mode(mode & 0o7777 & !0o222))
}
