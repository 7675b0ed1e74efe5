//! Results in one file, for another store: a zip archive of the store's own files.
//!
//! Nothing in an archive is believed: contents are compared with their digests and manifests with their keys, as they are in
//! the store itself. What is there already stays as it is.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::blobs::Blob;
use super::gc::contents;
use super::inside::{inside, is_plain};
use super::unnamed::Unnamed;
use super::{Manifest, Store, durable, space, version};
use palinode_error::{Error, ErrorKind, Hint};
use palinode_fingerprint::{Digest, FileRef, Key};

/// A file that goes into an archive beside results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    /// Its name there: `runs/`, then folders and a file name.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// Takes over what an archive holds beside results.
pub trait Companions {
    /// Which of these entries, named below `runs/`, are wanted, in the order in which they are to be taken over.
    fn wanted(&self, names: &[&str]) -> Vec<usize>;

    /// Whether an entry is what its name says; if not, what is wrong, in words that follow the archive's name.
    ///
    /// # Errors
    /// What is wrong.
    fn check(&self, name: &str, bytes: &[u8]) -> Result<(), String>;
}

/// What was written into an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Results.
    pub results: usize,
    /// Contents of them.
    pub contents: usize,
    /// Contents of them that lie outside the store, such as model files: they are not in the archive.
    pub outside: usize,
    /// Bytes of the archive.
    pub bytes: u64,
}

/// What was taken from an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Results that are new here.
    pub results: usize,
    /// Results that were here already.
    pub known: usize,
    /// Contents that are new here.
    pub contents: usize,
    /// The names of the companions that were taken over, below `runs/`.
    pub companions: Vec<String>,
    /// Bytes of new contents.
    pub bytes: u64,
}

/// Larger records than this are not read into memory: a manifest or the record of a run has some KiB, an event log of 20,000 stages some
/// MiB.
const LARGEST_RECORD: u64 = 64 << 20;

/// Entries that an archive has at most: four million blobs and results.
const MOST_ENTRIES: usize = 1 << 22;

impl Store {
    /// Writes results with their contents, and companions beside them, into a new archive: the results of these keys, or all.
    ///
    /// # Errors
    /// When the file is there already or cannot be written, or contents are damaged.
    pub fn export(&self, keys: Option<&BTreeSet<Key>>, companions: &[Companion], to: &Path) -> Result<Packed, Error> {
        if to.exists() {
            return Err(Error::new(ErrorKind::Usage, format!("{} is there already", to.display()))
                .hint("give another name, or remove it first"));
        }
        let mut manifests = self.manifests();
        if let Some(keys) = keys {
            manifests.retain(|manifest| keys.contains(&manifest.key));
        }
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        space::ensure_room(folder, self.bytes_of(&manifests))?;
        let failed = |error| Error::io(ErrorKind::Store, "write", to, error);
        let temporary = Unnamed::new(folder).map_err(failed)?;
        let mut archive = Archive { zip: ZipWriter::new(BufWriter::new(temporary.file())), to };
        archive.text(version::NAME, &format!("{}\n", version::VERSION))?;
        let mut exported = Packed::default();
        let mut written = BTreeSet::new();
        for manifest in &manifests {
            for file in manifest.output.files.values().filter(|file| written.insert(file.digest)) {
                if self.has_blob(file)? {
                    archive.copy(&blob_name(&file.digest), &self.blob_path(&file.digest))?;
                    exported.contents += 1;
                } else {
                    exported.outside += 1;
                }
            }
            archive.copy(&manifest_name(&manifest.key), &self.manifest_path(&manifest.key))?;
            exported.results += 1;
        }
        for Companion { name, path } in companions {
            archive.copy(name, path)?;
        }
        let file = archive.finish()?;
        temporary.file().sync_all().map_err(failed)?;
        drop(file);
        exported.bytes = temporary.file().metadata().map_err(failed)?.len();
        temporary.name(to).map_err(failed)?;
        Ok(exported)
    }

    /// Takes everything in an archive that is not here yet.
    ///
    /// # Errors
    /// When the file is no archive of results, or is damaged, or the store cannot be written. What was taken by then is whole
    /// and stays.
    pub fn import(&self, from: &Path, companions: &dyn Companions) -> Result<Unpacked, Error> {
        let unreadable = |error| Error::io(ErrorKind::Input, "read", from, error);
        let file = File::open(from).map_err(unreadable)?;
        let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(from, &error.to_string()))?;
        accept(&mut archive, from)?;
        if archive.len() > MOST_ENTRIES {
            return Err(damaged(from, &format!("it has {} entries", archive.len())));
        }
        let names: Vec<(usize, Entry)> = (0..archive.len())
            .map(|at| {
                let name = archive.name_for_index(at).and_then(Result::ok).unwrap_or_default();
                let entry = Entry::read(&name);
                entry
                    .map(|entry| (at, entry))
                    .ok_or_else(|| damaged(from, &format!("it holds `{}`", name.escape_debug())))
            })
            .collect::<Result<_, _>>()?;
        let mut imported = Unpacked::default();
        // Contents come before the results that have them, as when a stage ends.
        for (at, entry) in &names {
            let Entry::Blob(digest) = entry else { continue };
            let mut entry = archive.by_index(*at).map_err(|error| damaged(from, &error.to_string()))?;
            // The size is what the archive says; what lies here is judged by its name.
            let stated = FileRef { digest: *digest, size: entry.size() };
            if matches!(self.look_at_blob(&stated), Blob::Whole | Blob::Other) {
                continue;
            }
            space::ensure_room(&self.root, entry.size())?;
            let mut broken: Option<String> = None;
            let put = self.put_checked(*digest, |writer| {
                io::copy(&mut entry, writer).map(drop).inspect_err(|error| broken = Some(error.to_string()))
            });
            match (put, broken) {
                (Ok(Some(file)), _) => {
                    imported.contents += 1;
                    imported.bytes += file.size;
                }
                (Ok(None), _) => {
                    return Err(damaged(from, &format!("contents {} are not what they were", digest.short())));
                }
                (Err(error), _) if error.kind == ErrorKind::Store && error.hint.is_some() => return Err(error),
                (Err(_), Some(broken)) => return Err(damaged(from, &broken)),
                (Err(error), None) => return Err(error),
            }
        }
        for (at, entry) in &names {
            let Entry::Manifest(key) = entry else { continue };
            let bytes = read_record(&mut archive, *at).map_err(|error| damaged(from, &error))?;
            let manifest = Manifest::read(&bytes).filter(|manifest| manifest.key == *key);
            let Some(manifest) = manifest else {
                return Err(damaged(from, &format!("result {} does not belong to its key", key.0.short())));
            };
            if self.manifest(key)?.is_some() {
                imported.known += 1;
                continue;
            }
            self.publish(&manifest)?;
            imported.results += 1;
        }
        let others: Vec<(usize, &str)> = names
            .iter()
            .filter_map(
                |(at, entry)| if let Entry::Companion(name) = entry { Some((*at, name.as_str())) } else { None },
            )
            .collect();
        for wanted in companions.wanted(&others.iter().map(|(_, name)| *name).collect::<Vec<_>>()) {
            let Some((at, name)) = others.get(wanted) else { continue };
            let bytes = read_record(&mut archive, *at).map_err(|error| damaged(from, &error))?;
            companions.check(name, &bytes).map_err(|wrong| damaged(from, &wrong))?;
            let path = inside(&self.root.join("runs"), name)?;
            durable::write(&self.tmp(), &path, &[&bytes], self.shared)?;
            imported.companions.push((*name).to_owned());
        }
        Ok(imported)
    }

    fn bytes_of(&self, manifests: &[Manifest]) -> u64 {
        let digests: BTreeSet<Digest> = manifests.iter().flat_map(contents).collect();
        digests.iter().filter_map(|digest| fs::metadata(self.blob_path(digest)).ok()).map(|it| it.len()).sum()
    }
}

/// An archive being written.
struct Archive<'a, W: Write + Seek> {
    zip: ZipWriter<W>,
    to: &'a Path,
}

impl<W: Write + Seek> Archive<'_, W> {
    fn copy(&mut self, name: &str, path: &Path) -> Result<(), Error> {
        let unreadable = |error| Error::io(ErrorKind::Store, "read", path, error);
        let mut from = File::open(path).map_err(unreadable)?;
        let large = from.metadata().map_err(unreadable)?.len() >= u64::from(u32::MAX);
        // Tensors do not get smaller by it.
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(large);
        let started = self.zip.start_file(name, options).map_err(io::Error::from);
        let copied = started.and_then(|()| io::copy(&mut from, &mut self.zip));
        copied.map(drop).map_err(|error| Error::io(ErrorKind::Store, "write", self.to, error))
    }

    fn text(&mut self, name: &str, text: &str) -> Result<(), Error> {
        let started =
            self.zip.start_file(name, SimpleFileOptions::default().compression_method(CompressionMethod::Stored));
        let written = started.map_err(io::Error::from).and_then(|()| self.zip.write_all(text.as_bytes()));
        written.map_err(|error| Error::io(ErrorKind::Store, "write", self.to, error))
    }

    fn finish(self) -> Result<W, Error> {
        let to = self.to;
        let ended = self.zip.finish().map_err(io::Error::from).and_then(|mut file| file.flush().map(|()| file));
        ended.map_err(|error| Error::io(ErrorKind::Store, "write", to, error))
    }
}

/// What an archive may hold.
enum Entry {
    Version,
    Blob(Digest),
    Manifest(Key),
    /// What else there is, by its name below `runs/`.
    Companion(String),
}

impl Entry {
    /// By its name; `None` for what is no file of a store, among it all that could lie elsewhere.
    fn read(name: &str) -> Option<Self> {
        if name == version::NAME {
            return Some(Self::Version);
        }
        let (kind, rest) = name.split_once('/')?;
        if !is_plain(rest) {
            return None;
        }
        match kind {
            "blobs" => rest.parse().ok().map(Self::Blob),
            "actions" => rest.strip_suffix(".json")?.parse().ok().map(|digest| Self::Manifest(Key(digest))),
            "runs" => rest.contains('/').then(|| Self::Companion(rest.to_owned())),
            _ => None,
        }
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{digest}")
}

fn manifest_name(key: &Key) -> String {
    format!("actions/{key}.json")
}

/// Refuses an archive of a later version, before anything in it is judged. One from before there were versions says nothing.
fn accept<R: Read + Seek>(archive: &mut ZipArchive<R>, from: &Path) -> Result<(), Error> {
    let Some(at) = archive.index_for_name(version::NAME) else { return Ok(()) };
    let bytes = read_record(archive, at).map_err(|error| damaged(from, &error))?;
    let text = String::from_utf8_lossy(&bytes);
    let found = text.lines().next().and_then(|line| line.trim().parse().ok());
    let found = found.ok_or_else(|| damaged(from, "it does not say which version it is of"))?;
    version::accept(found, &format!("the archive {}", from.display())).map(drop)
}

fn read_record<R: Read + Seek>(archive: &mut ZipArchive<R>, at: usize) -> Result<Vec<u8>, String> {
    let entry = archive.by_index(at).map_err(|error| error.to_string())?;
    if entry.size() > LARGEST_RECORD {
        return Err(format!("a record is of {} bytes", entry.size()));
    }
    let mut bytes = Vec::new();
    entry.take(LARGEST_RECORD).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn damaged(from: &Path, why: &str) -> Error {
    Error::input(format!("{} is not a whole archive of results: {why}", from.display())).hint(Hint::ExportAgain)
}
