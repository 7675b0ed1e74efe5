//! A file that has no name until it is whole.
//!
//! What is written outside the store, in a folder of the user's, must leave nothing behind when it is killed: nobody would know what a
//! hidden half of an archive is, or that it may go. Linux makes files without a name, which vanish with the process, and gives them one
//! when they are whole. Where the file system or the system cannot do that, the file has a temporary name beside the final one.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// A file in a folder, for whom the umask allows.
pub enum Unnamed {
    /// Without a name.
    Anonymous(File),
    /// With a temporary one.
    Named(NamedTempFile),
}

impl Unnamed {
    /// A new file in this folder.
    pub fn new(folder: &Path) -> io::Result<Self> {
        if let Some(file) = anonymous(folder) {
            return Ok(Self::Anonymous(file));
        }
        let anyone = Permissions::from_mode(0o666);
        tempfile::Builder::new().permissions(anyone).tempfile_in(folder).map(Self::Named)
    }

    /// To write to.
    pub fn file(&self) -> &File {
        match self {
            Self::Anonymous(file) => file,
            Self::Named(file) => file.as_file(),
        }
    }

    /// Gives it its name, where nothing has that yet.
    pub fn name(self, to: &Path) -> io::Result<()> {
        match self {
            Self::Anonymous(file) => link(&file, to),
            Self::Named(file) => file.persist_noclobber(to).map(drop).map_err(|error| error.error),
        }
    }
}

#[cfg(target_os = "linux")]
fn anonymous(folder: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags};
    // A file that cannot be named in the end is of no use.
    if !Path::new("/proc/self/fd").is_dir() {
        return None;
    }
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666)).ok().map(File::from)
}

#[cfg(not(target_os = "linux"))]
fn anonymous(_: &Path) -> Option<File> {
    None
}

#[cfg(target_os = "linux")]
fn link(file: &File, to: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{AtFlags, CWD, linkat};
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, path, CWD, to, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn link(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_gets_its_name_when_it_is_whole_and_takes_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let to = folder.path().join("a.zip");
        for expect in [true, false] {
            let file = Unnamed::new(folder.path()).unwrap();
            file.file().write_all(b"whole").unwrap();
            let before = names();
            assert_eq!(file.name(&to).is_ok(), expect);
            assert_eq!(names(), 1);
            #[cfg(target_os = "linux")]
            assert_eq!(before, usize::from(!expect), "no name while it is written");
        }
        assert_eq!(std::fs::read(&to).unwrap(), b"whole");
    }
}
