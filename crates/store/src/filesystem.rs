//! Which file system a file lies in, beyond the number of its device.
//!
//! The kernel gives the numbers of devices again: two images that are mounted in turn at one place can both be device 43, and a file in each
//! can have the same inode, size and times. So the identity has what the file system says of itself (`f_fsid`, which most make from their
//! UUID). That alone is enough only where nobody can choose a file's time of status change; an image of squashfs or ISO 9660 has the times
//! that whoever made it wanted, a file system in user space or of another host has any, and many of these say nothing of themselves but
//! their device. For those the mount counts too, as it does for a disk that is mounted to be read only, which may be an image as well: what
//! was read before it is read once more after the next one.

use std::fs::File;
use std::io;
use std::path::Path;

#[cfg(target_os = "linux")]
use rustix::fs::StatVfsMountFlags;
use rustix::fs::statvfs;

#[cfg(target_os = "linux")]
mod mounts {
    use std::path::Path;
    use std::sync::OnceLock;

    use rustix::fs::{AtFlags, CWD, StatxFlags, statfs, statx};

    /// File systems that set the time of status change themselves, and have an identity of their own: ext2 to ext4, XFS, Btrfs, F2FS, ZFS,
    /// bcachefs, JFS, Lustre, GPFS, Ceph, NFS.
    const KEEPS_TIME: [u32; 11] = [
        0xEF53,
        0x5846_5342,
        0x9123_683E,
        0xF2F5_2010,
        0x2FC1_2FC1,
        0xCA45_1A4E,
        0x3153_464A,
        0x0BD0_0BD0,
        0x4750_4653,
        0x00C3_6400,
        0x6969,
    ];

    /// Those of them that are on other machines: read-only ones are no images.
    const REMOTE: [u32; 4] = [0x0BD0_0BD0, 0x4750_4653, 0x00C3_6400, 0x6969];

    /// `STATX_MNT_ID_UNIQUE` of Linux 6.8: a number that no other mount gets until the machine is started again.
    const UNIQUE: u32 = 0x4000;

    /// What else distinguishes the file system: its type, and the mount where that is needed. `None` where it cannot be told.
    pub fn beside(path: &Path, read_only: bool) -> Option<Vec<u8>> {
        let kind = statfs(path).ok()?.f_type as u32;
        let mut beside = kind.to_le_bytes().to_vec();
        if !KEEPS_TIME.contains(&kind) || read_only && !REMOTE.contains(&kind) {
            beside.extend_from_slice(&mount(path)?.to_le_bytes());
            beside.extend_from_slice(boot().as_bytes());
        }
        Some(beside)
    }

    /// Whether other machines may write to it.
    pub fn is_shared(path: &Path) -> bool {
        statfs(path).is_ok_and(|said| REMOTE.contains(&(said.f_type as u32)))
    }

    /// Whether a wait for the whole file system waits for all that was written, and says what could not be: the file systems of this machine
    /// that have an identity of their own, since Linux 5.8.
    pub fn syncs_whole(path: &Path) -> bool {
        let kind = statfs(path).map_or(0, |said| said.f_type as u32);
        KEEPS_TIME.contains(&kind) && !REMOTE.contains(&kind) && since(5, 8)
    }

    /// Whether the system is of this version or a later one.
    fn since(major: u32, minor: u32) -> bool {
        let name = rustix::system::uname();
        let mut parts = name.release().to_str().unwrap_or_default().split(|c: char| !c.is_ascii_digit());
        let mut next = || parts.next().and_then(|part| part.parse::<u32>().ok()).unwrap_or(0);
        (next(), next()) >= (major, minor)
    }

    fn mount(path: &Path) -> Option<u64> {
        let flags = StatxFlags::MNT_ID | StatxFlags::from_bits_retain(UNIQUE);
        Some(statx(CWD, path, AtFlags::empty(), flags).ok()?.stx_mnt_id)
    }

    /// Which start of the machine this is.
    fn boot() -> &'static str {
        static BOOT: OnceLock<String> = OnceLock::new();
        BOOT.get_or_init(|| std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default())
    }
}

/// Whether a path lies in a file system of other machines, which keeps the time of status change.
pub fn is_shared(path: &Path) -> bool {
    #[cfg(target_os = "linux")]
    return mounts::is_shared(path);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        false
    }
}

/// A file system that can be waited for as a whole.
pub struct Whole(File);

/// The file system of a folder, where a wait for all of it is as good as one for each file.
pub fn that_syncs_whole(folder: &Path) -> Option<Whole> {
    #[cfg(target_os = "linux")]
    return mounts::syncs_whole(folder).then(|| File::open(folder).ok().map(Whole)).flatten();
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        None
    }
}

impl Whole {
    /// Waits until everything that was written is on the disk.
    ///
    /// # Errors
    /// When something could not be written since this was opened.
    pub fn sync(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        return Ok(rustix::fs::syncfs(&self.0)?);
        #[cfg(not(target_os = "linux"))]
        self.0.sync_all()
    }
}

/// A number for the file system that a file lies in; `None` where it cannot be told, and nothing may be concluded.
pub fn of(path: &Path) -> Option<u64> {
    let said = statvfs(path).ok()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&said.f_fsid.to_le_bytes());
    #[cfg(target_os = "linux")]
    hasher.update(&mounts::beside(path, said.f_flag.contains(StatVfsMountFlags::RDONLY))?);
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    Some(u64::from_le_bytes(number))
}
