//! Names that became paths: of files in results, which may come from anyone's archive.
//!
//! A result names its files, and some of these names become paths: `show --save` and `export` write files under them. A name such as
//! `../../x`, `/etc/x` or `weights//etc/x` would then lead out of the folder that the user gave. So names are checked where a manifest is
//! read, and whoever joins one to a folder does it with [`inside`], which checks it again.

use std::path::{Path, PathBuf};

use palinode_error::Error;

/// Longest part of a name, in bytes: what file systems take.
const LONGEST: usize = 255;

/// Names that Windows keeps for devices, whatever their ending.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "com", "lpt"];

/// Whether a name stays in whatever folder it is joined to, on every system: parts separated by single slashes, none of them empty, `.` or
/// `..`, none with a backslash, a colon or a control character, none the name of a device.
pub fn is_plain(name: &str) -> bool {
    name.split('/').all(is_plain_part)
}

fn is_plain_part(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or_default().to_lowercase();
    let device = DEVICES.iter().any(|device| {
        stem.strip_prefix(device).is_some_and(|rest| match *device {
            "com" | "lpt" => rest.len() == 1 && rest.bytes().all(|byte| byte.is_ascii_digit()),
            _ => rest.is_empty(),
        })
    });
    !matches!(part, "" | "." | "..")
        && part.len() <= LONGEST
        && !device
        && !part.contains(|c: char| c.is_control() || matches!(c, '\\' | ':'))
}

/// The path of `name` in `folder`.
///
/// # Errors
/// When the name would lead out of the folder: by itself, or since a folder that it names there is a link that leads elsewhere.
pub fn inside(folder: &Path, name: &str) -> Result<PathBuf, Error> {
    let refused =
        |why: &str| Error::input(format!("`{}` is not the name of a file in a folder{why}", name.escape_debug()));
    if !is_plain(name) {
        return Err(refused("").hint("the result that names it was made by another program, or altered: do not use it"));
    }
    let path = folder.join(name);
    // Only what is there already can be a link.
    if let (Some(parent), Ok(root)) = (path.parent(), folder.canonicalize())
        && let Ok(parent) = parent.canonicalize()
        && !parent.starts_with(root)
    {
        return Err(refused(&format!(": a link in {} leads elsewhere", folder.display())));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for good in ["config.json", "other/tokenizer.json", "a.b-c_d", "..a", "a..", "console.json", "com10", "å"] {
            assert_eq!(inside(folder.path(), good).unwrap(), folder.path().join(good));
        }
        let long = "a".repeat(256);
        for bad in [
            "",
            ".",
            "..",
            "../x",
            "a/../../x",
            "/etc/x",
            "other//etc/x",
            "a/",
            "/",
            "a\\b",
            "c:x",
            "a\nb",
            "nul",
            "NUL.txt",
            "com1",
            "lpt9.json",
            &long,
            "a/./b",
            "\u{1b}[31m",
        ] {
            assert!(inside(folder.path(), bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn links_that_lead_elsewhere_are_refused() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(other.path(), folder.path().join("other")).unwrap();
        std::fs::create_dir(folder.path().join("own")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("own"), folder.path().join("here")).unwrap();
        assert!(inside(folder.path(), "other/x").is_err());
        assert!(inside(folder.path(), "here/x").is_ok());
    }
}
