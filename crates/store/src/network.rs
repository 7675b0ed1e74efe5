//! Stores on file systems that several machines share.
//!
//! Blobs, manifests, units and records are files that are written whole and renamed into place, which every file system keeps. Three things
//! are not so sure there. Locks may be this machine's alone, and then keep out nobody: such a mount is refused. The index is a database whose
//! files one machine maps and writes at random: it lies on the machine's own disk instead, since it can be made from the files at any
//! time. And numbers of devices and inodes are each machine's own: see [`Stat::from_afar`](super::stat::Stat::from_afar).

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::filesystem;
use palinode_error::{Error, ErrorKind};
use palinode_fingerprint::Digest;

/// The variable that names another folder for indexes.
const VARIABLE: &str = "PALINODE_INDEX";

/// Where the index of a store lies: in it, or for one that machines share on this machine's own disk.
pub fn index(root: &Path) -> PathBuf {
    let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let folder = match named {
        Some(folder) => Some(folder),
        None if filesystem::is_shared(root) => own(&std::env::temp_dir()),
        None => None,
    };
    let real = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let name = Digest::of(real.as_os_str().as_encoded_bytes()).short();
    folder.map_or_else(|| root.join("index"), |folder| folder.join(format!("index-{name}")))
}

/// A folder of this user's own in one that is everyone's; `None` where someone else has made it.
fn own(everyones: &Path) -> Option<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let folder = everyones.join(format!("palinode-{user}"));
    let _ = DirBuilder::new().mode(0o700).create(&folder);
    let made = fs::symlink_metadata(&folder).ok()?;
    let ours = made.is_dir() && made.uid() == user && made.permissions().mode() & 0o777 == 0o700;
    ours.then_some(folder)
}

/// Refuses a store where locks keep out nobody on other machines.
///
/// # Errors
/// With how the file system would have to be mounted.
pub fn check_locks(root: &Path) -> Result<(), Error> {
    let real = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(why) = without_locks(&mounts, &real) else { return Ok(()) };
    let message = format!("the store {} lies on {why}: two machines could write to it at once", root.display());
    Err(Error::new(ErrorKind::Store, message)
        .hint("put it where locks are shared, or have the file system mounted with them"))
}

/// What is wrong with the locks of the file system that a path lies in, by the list of mounts.
fn without_locks(mounts: &str, path: &Path) -> Option<String> {
    // The mount that covers the path is the longest one, and of two at one place the later.
    let (_, kind, options) = mounts
        .lines()
        .filter_map(mount)
        .filter(|(place, ..)| path.starts_with(place))
        .max_by_key(|(place, ..)| place.components().count())?;
    let has = |names: &[&str]| options.split(',').find(|option| names.contains(option)).map(str::to_owned);
    let found = match kind {
        "nfs" | "nfs4" => has(&["nolock", "local_lock=all", "local_lock=flock"]),
        // Without either, Lustre has no such locks at all, and taking one fails.
        "lustre" => has(&["localflock"]),
        _ => None,
    };
    found.map(|option| format!("{kind} mounted with `{option}`, where locks are this machine's alone"))
}

/// Place, kind and options of a line of the list of mounts; a space in a place is written `\040`.
fn mount(line: &str) -> Option<(PathBuf, &str, String)> {
    let (before, after) = line.split_once(" - ")?;
    let fields: Vec<&str> = before.split(' ').collect();
    let mut rest = after.split(' ');
    let (kind, _, own) = (rest.next()?, rest.next()?, rest.next().unwrap_or_default());
    let place = fields.get(4)?.replace("\\040", " ");
    Some((place.into(), kind, format!("{},{own}", fields.get(5)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_that_are_not_shared_are_known() {
        let mounts = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 21 0:45 / /home rw,relatime shared:2 - nfs4 server:/home rw,vers=4.2,local_lock=none
41 21 0:46 / /scratch rw,relatime - nfs server:/scratch rw,vers=3,nolock,local_lock=all
42 21 0:47 / /lustre rw - lustre a@tcp:/fs rw,flock
43 21 0:48 / /fast\\040one rw - lustre a@tcp:/fs rw,localflock
44 41 0:49 / /scratch/safe rw - nfs4 server:/safe rw
";
        let check = |path: &str, expect: Option<&str>| {
            let found = without_locks(mounts, Path::new(path));
            assert_eq!(found.is_some(), expect.is_some(), "{path}: {found:?}");
            assert!(expect.is_none_or(|words| found.unwrap().contains(words)), "{path}");
        };
        check("/tmp/store", None);
        check("/home/me/store", None);
        check("/scratch/me/store", Some("nfs mounted with `nolock`"));
        check("/scratch/safe/store", None);
        check("/lustre/store", None);
        check("/fast one/store", Some("lustre mounted with `localflock`"));
    }

    #[test]
    fn a_folder_of_someone_else_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let own_folder = own(dir.path()).unwrap();
        assert_eq!(own(dir.path()), Some(own_folder.clone()));
        fs::set_permissions(&own_folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(own(dir.path()), None);
    }
}
