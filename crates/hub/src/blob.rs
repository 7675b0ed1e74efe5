//! One file's contents on their way into the cache: resumed where they broke off, checked before they are used.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::HubError;
use crate::Reference;
use crate::cache::Folder;
use crate::client::Client;
use crate::listing;

/// Times that a broken connection is taken up again.
const TRIES: usize = 3;
const BUFFER: usize = 1 << 20;

/// Brings a file's contents into the cache and returns their name there. `watch` hears of bytes, and says whether to go on.
pub fn fetch(
    client: &Client,
    folder: &Folder,
    reference: &Reference,
    commit: &str,
    file: &listing::File,
    watch: &mut dyn FnMut(u64) -> bool,
) -> Result<String, HubError> {
    let sha = file.lfs.as_ref().map(|large| large.sha256.clone());
    let known =
        sha.clone().or_else(|| file.blob.clone()).filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric()));
    if let Some(name) = &known
        && fs::metadata(folder.blob(name)).is_ok_and(|blob| file.size.is_none_or(|size| size == blob.len()))
    {
        watch(file.size.unwrap_or(0));
        return Ok(known.unwrap_or_default());
    }
    // Contents without a name are not resumed: they may be others.
    let part = folder.blob(&format!("{}.incomplete", known.as_deref().unwrap_or("unnamed")));
    let io = |error| HubError::io("write", &part, &error);
    fs::create_dir_all(folder.blob("")).map_err(io)?;
    if known.is_none() {
        let _ = fs::remove_file(&part);
    }
    let mut tries = 0;
    loop {
        match download(client, reference, commit, file, &part, watch) {
            Ok(()) => break,
            Err(Broken::Off(_)) if tries < TRIES => tries += 1,
            Err(Broken::Off(error) | Broken::For(error)) => return Err(error),
        }
    }
    let found = digest(&part).map_err(io)?;
    let size = fs::metadata(&part).map_err(io)?.len();
    if file.size.is_some_and(|expected| expected != size) || sha.as_ref().is_some_and(|sha| *sha != found) {
        let _ = fs::remove_file(&part);
        return Err(HubError::new(format!("{} of {reference} arrived damaged", file.rfilename)).hint("run again"));
    }
    let name = known.unwrap_or(found);
    fs::rename(&part, folder.blob(&name)).map_err(io)?;
    Ok(name)
}

/// Why a download ended early.
enum Broken {
    /// The connection did.
    Off(HubError),
    /// Trying again would not help.
    For(HubError),
}

fn download(
    client: &Client,
    reference: &Reference,
    commit: &str,
    file: &listing::File,
    part: &PathBuf,
    watch: &mut dyn FnMut(u64) -> bool,
) -> Result<(), Broken> {
    let io = |error| Broken::For(HubError::io("write", part, &error));
    let mut target = OpenOptions::new().create(true).append(true).open(part).map_err(io)?;
    let busy =
        |_| Broken::For(HubError::new(format!("another program downloads {}", file.rfilename)).hint("run again later"));
    target.try_lock().map_err(busy)?;
    let mut have = target.metadata().map_err(io)?.len();
    if file.size.is_some_and(|size| have > size) {
        target.set_len(0).map_err(io)?;
        have = 0;
    }
    if have > 0 && file.size == Some(have) {
        return Ok(());
    }
    let (mut source, partial) = client.file(reference, commit, &file.rfilename, have).map_err(Broken::For)?;
    if have > 0 && !partial {
        target.set_len(0).map_err(io)?;
    } else {
        watch(have);
    }
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => return Err(Broken::Off(client.failed(&error.to_string()))),
        };
        target.write_all(&buffer[..read]).map_err(io)?;
        if !watch(read as u64) {
            return Err(Broken::For(HubError::new("interrupted")));
        }
    }
    target.sync_all().map_err(io)?;
    let size = target.metadata().map_err(io)?.len();
    match file.size {
        Some(expected) if size < expected => Err(Broken::Off(client.failed("the connection ended early"))),
        _ => Ok(()),
    }
}

fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut sha = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => sha.update(&buffer[..read]),
        }
    }
    Ok(sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
