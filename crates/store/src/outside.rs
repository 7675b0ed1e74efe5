//! What is written outside the store, for people and other programs: whole or not at all, and never over what is someone else's.
//!
//! A folder is *ours* when it holds a marker, `palinode.json`, that says who wrote it, and every file that the marker lists still has the
//! contents that it lists. A folder that is there and is not ours is left alone, whatever is in it, unless the user says otherwise: it may
//! be a model, or an export that someone has changed since. Files in it that the marker does not list are not ours and stay. A folder is
//! filled beside its place and then renamed; one that is there already gets its files one by one, each by a rename, while the marker lists
//! both the old contents and the new, so that one that was left half done is still known as ours.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::inside;
use palinode_error::{Error, ErrorKind, Hint};
use palinode_fingerprint::{Digest, FileRef};

/// The marker's name.
pub const MARKER: &str = "palinode.json";

/// A folder of this name is being filled; it lies beside the place, or in it.
const PART: &str = ".palinode-part";

/// Who writes a folder. What one of them wrote is not the other's. Its marker is the same for the same work on every machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maker {
    /// The way from the folder to the store of the results, or nothing for what needs none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub store: String,
    /// The pipeline's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pipeline: String,
    /// The stage instance, or the command.
    pub stage: String,
}

impl Maker {
    /// A stage instance or a command, with results of the store in the folder `store`, that writes `place`.
    pub fn of(store: &Path, place: &Path, pipeline: &str, stage: &str) -> Self {
        let store = way(&real(store), &real(place)).display().to_string();
        Self { store, pipeline: pipeline.to_owned(), stage: stage.to_owned() }
    }

    fn told(&self) -> String {
        let pipeline = if self.pipeline.is_empty() { String::new() } else { format!(" of `{}`", self.pipeline) };
        let store = if self.store.is_empty() { String::new() } else { format!(" with the store {}", self.store) };
        format!("`{}`{pipeline}{store}", self.stage)
    }
}

/// What is read of a marker. The rest of it is for people.
#[derive(Default, Deserialize)]
struct Marker {
    #[serde(default)]
    made_by: Option<Maker>,
    #[serde(default)]
    files: BTreeMap<String, Digest>,
    /// What files held before those that are being put into their place.
    #[serde(default)]
    before: BTreeMap<String, Digest>,
    /// All that version 0.1.0 listed.
    #[serde(default)]
    weights: BTreeMap<String, Digest>,
}

/// Whether what is there and is not ours may be written over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// No.
    #[default]
    Refused,
    /// The user says so. Files that are not replaced stay all the same.
    Wanted,
}

impl Overwrite {
    /// From a flag or a parameter.
    pub fn if_wanted(wanted: bool) -> Self {
        if wanted { Self::Wanted } else { Self::Refused }
    }
}

/// What of a folder is ours.
#[derive(Debug, Default)]
struct Claim {
    /// The files, with what they hold.
    files: BTreeMap<String, Digest>,
    /// Whether these are all that were written.
    lists_all: bool,
}

/// Makes sure that `maker` may write a folder. `known` is what it is known to have written there, by other records than the marker.
///
/// # Errors
/// When there is something else.
pub fn may_write(
    place: &Path,
    maker: &Maker,
    known: &BTreeMap<String, Digest>,
    overwrite: Overwrite,
) -> Result<(), Error> {
    claim(place, maker, known, overwrite).map(drop)
}

fn claim(place: &Path, maker: &Maker, known: &BTreeMap<String, Digest>, overwrite: Overwrite) -> Result<Claim, Error> {
    let io = |error| Error::io(ErrorKind::Input, "look at", place, error);
    let empty = Claim { files: BTreeMap::new(), lists_all: true };
    match fs::metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty),
        Err(error) => return Err(io(error)),
        Ok(metadata) if !metadata.is_dir() => return Err(refused(place, "is a file")),
        Ok(_) => {}
    }
    let holds_nothing = fs::read_dir(place).map_err(io)?.flatten().all(|entry| entry.file_name() == PART);
    if holds_nothing {
        return Ok(empty);
    }
    match ours(place, maker, known) {
        Ok(claim) => Ok(claim),
        // What is ours of it is not told from the rest: all of it stays but what is replaced.
        Err(_) if overwrite == Overwrite::Wanted => Ok(empty),
        Err(why) => Err(refused(place, &why)),
    }
}

/// What of a folder is ours, or why nothing is.
fn ours(place: &Path, maker: &Maker, known: &BTreeMap<String, Digest>) -> Result<Claim, String> {
    let marker = fs::read(place.join(MARKER)).ok();
    let marker = marker.and_then(|bytes| serde_json::from_slice::<Marker>(&bytes).ok()).unwrap_or_default();
    if let Some(other) = marker.made_by.as_ref().filter(|other| *other != maker) {
        return Err(format!("was written by {}", other.told()));
    }
    let is_marked = marker.made_by.is_some();
    // Version 0.1.0 listed its weights alone; what else it wrote, another record may know.
    let lists_all = is_marked || marker.weights.is_empty() || !known.is_empty();
    let mut files = if is_marked { marker.files } else { marker.weights };
    if !is_marked {
        files.extend(known.iter().map(|(name, digest)| (name.clone(), *digest)));
    }
    // Of a folder that was left half done, what was to go.
    let gone =
        marker.before.iter().filter(|(name, _)| !files.contains_key(*name)).map(|(name, old)| (name.clone(), *old));
    let gone: Vec<(String, Digest)> = gone.collect();
    let mut there = BTreeMap::new();
    for (name, digest) in &files {
        let path = inside(place, name).map_err(|error| format!("has a marker that is not ours: {error}"))?;
        match FileRef::of_file(&path) {
            Ok(file) if file.digest == *digest || marker.before.get(name) == Some(&file.digest) => {
                there.insert(name.clone(), file.digest);
            }
            Ok(_) => return Err(format!("was written by us, and {name} was changed since")),
            // What is gone is not harmed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("holds {name}, which cannot be read ({error})")),
        }
    }
    if there.is_empty() && !is_marked {
        return Err("is there already, and was not written by this stage or command".to_owned());
    }
    let is_there = |(name, digest): &(String, Digest)| {
        inside(place, name).is_ok_and(|path| FileRef::of_file(&path).is_ok_and(|file| file.digest == *digest))
    };
    there.extend(gone.into_iter().filter(is_there));
    Ok(Claim { files: there, lists_all })
}

fn refused(place: &Path, why: &str) -> Error {
    Error::input(format!("{} {why}: nothing is written into it", place.display())).hint(Hint::Overwrite)
}

/// Makes the text of a marker, if there is to be one, of what files held before.
type Marking<'a> = dyn Fn(&BTreeMap<String, Digest>) -> Option<Vec<u8>> + 'a;

/// A folder that is being written.
#[derive(Debug)]
pub struct Output {
    place: PathBuf,
    part: PathBuf,
    maker: Maker,
    known: BTreeMap<String, Digest>,
    overwrite: Overwrite,
    names: Vec<String>,
    /// Whether `part` is in its place.
    done: bool,
}

impl Output {
    /// Begins to write a folder. `known` is what the same maker is known to have written there before, by other records than the marker.
    ///
    /// # Errors
    /// When there is a folder that is not the maker's, or nothing can be written there.
    pub fn begin(
        place: &Path,
        maker: Maker,
        known: BTreeMap<String, Digest>,
        overwrite: Overwrite,
    ) -> Result<Self, Error> {
        claim(place, &maker, &known, overwrite)?;
        let io = |what: &'static str| move |error| Error::io(ErrorKind::Input, what, place, error);
        let part = if place.is_dir() {
            place.join(PART)
        } else {
            let name = place.file_name().ok_or_else(|| refused(place, "is no name of a folder"))?;
            let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::create_dir_all(folder).map_err(io("make the folder"))?;
            let mut part = std::ffi::OsString::from(".");
            part.push(name);
            part.push(PART);
            folder.join(part)
        };
        // What a killed process left.
        match fs::remove_dir_all(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("clear")(error)),
            _ => {}
        }
        fs::create_dir(&part).map_err(io("make the folder"))?;
        let place = place.to_owned();
        Ok(Self { place, part, maker, known, overwrite, names: Vec::new(), done: false })
    }

    /// Where a file is to be written until the folder is whole.
    ///
    /// # Errors
    /// When the name leads out of the folder, or its folder cannot be made.
    pub fn file(&mut self, name: &str) -> Result<PathBuf, Error> {
        let path = inside(&self.part, name)?;
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder).map_err(|error| Error::io(ErrorKind::Input, "make the folder", folder, error))?;
        if !self.names.iter().any(|known| known == name) {
            self.names.push(name.to_owned());
        }
        Ok(path)
    }

    /// Writes bytes as a file.
    ///
    /// # Errors
    /// As [`Output::file`], or when it cannot be written.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.file(name)?;
        fs::write(&path, bytes).map_err(|error| self.failed(name, error))
    }

    /// Copies a file.
    ///
    /// # Errors
    /// As [`Output::file`], or when it cannot be read or written.
    pub fn copy(&mut self, name: &str, from: &Path) -> Result<(), Error> {
        let path = self.file(name)?;
        // Contents alone: a blob is read-only, and what is written for the user is not.
        let copied = File::open(from).and_then(|mut from| io::copy(&mut from, &mut File::create(&path)?));
        copied.map(drop).map_err(|error| self.failed(name, error))
    }

    /// Puts the folder into its place, with a marker that has `about` beside what it needs itself; gives the files with their contents,
    /// the marker among them.
    ///
    /// # Errors
    /// When there is something else by now, or it cannot be written.
    pub fn finish(self, about: Map<String, Value>) -> Result<BTreeMap<String, FileRef>, Error> {
        self.put(Some(&about))
    }

    /// Puts the folder into its place without a marker: nobody's from then on.
    ///
    /// # Errors
    /// As [`Output::finish`].
    pub fn finish_unmarked(self) -> Result<BTreeMap<String, FileRef>, Error> {
        self.put(None)
    }

    fn put(mut self, about: Option<&Map<String, Value>>) -> Result<BTreeMap<String, FileRef>, Error> {
        let mut files = BTreeMap::new();
        for name in &self.names {
            let path = self.part.join(name);
            let synced = File::open(&path).and_then(|file| file.sync_all());
            let file = synced.and_then(|()| FileRef::of_file(&path)).map_err(|error| self.failed(name, error))?;
            files.insert(name.clone(), file);
        }
        let claim = claim(&self.place, &self.maker, &self.known, self.overwrite)?;
        let marker = |before: &BTreeMap<String, Digest>| {
            let mut marker = about?.clone();
            let digests: BTreeMap<&String, Digest> = files.iter().map(|(name, file)| (name, file.digest)).collect();
            marker.insert("made_by".to_owned(), serde_json::to_value(&self.maker).unwrap_or_default());
            marker.insert("files".to_owned(), serde_json::to_value(digests).unwrap_or_default());
            if !before.is_empty() {
                marker.insert("before".to_owned(), serde_json::to_value(before).unwrap_or_default());
            }
            let mut text = serde_json::to_vec_pretty(&marker).unwrap_or_default();
            text.push(b'\n');
            Some(text)
        };
        let last = marker(&BTreeMap::new());
        if self.place.is_dir() {
            self.replace_in_place(&claim, &files, &marker)?;
        } else {
            let marked = last.as_ref().map_or(Ok(()), |text| fs::write(self.part.join(MARKER), text));
            marked.and_then(|()| fs::rename(&self.part, &self.place)).map_err(|error| self.failed("", error))?;
            self.done = true;
        }
        files.extend(last.map(|text| (MARKER.to_owned(), FileRef::of(&text))));
        Ok(files)
    }

    /// Puts the files into a folder that is there.
    fn replace_in_place(
        &self,
        claim: &Claim,
        files: &BTreeMap<String, FileRef>,
        marker: &Marking<'_>,
    ) -> Result<(), Error> {
        let targets = files.keys().map(|name| Ok((name, inside(&self.place, name)?)));
        let targets: Vec<(&String, PathBuf)> = targets.collect::<Result<_, Error>>()?;
        if self.overwrite == Overwrite::Refused && claim.lists_all {
            let foreign = targets.iter().find(|(name, path)| path.exists() && !claim.files.contains_key(*name));
            if let Some((name, _)) = foreign {
                return Err(refused(&self.place, &format!("holds {name}, which was not written by this stage")));
            }
        }
        let mark = |text: Option<Vec<u8>>| {
            let (part, place) = (self.part.join(MARKER), self.place.join(MARKER));
            match text {
                Some(text) => fs::write(&part, text).and_then(|()| fs::rename(&part, place)),
                // One that is there would speak of other files.
                None => fs::remove_file(place).or_else(|error| match error.kind() {
                    io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                }),
            }
        };
        let mut before = claim.files.clone();
        if self.overwrite == Overwrite::Wanted {
            // Said of all that is about to be replaced, so that it is ours from here on.
            for (name, path) in &targets {
                if let Ok(file) = FileRef::of_file(path) {
                    before.insert((*name).clone(), file.digest);
                }
            }
        }
        mark(marker(&before)).map_err(|error| self.failed(MARKER, error))?;
        for (name, path) in &targets {
            let folder = path.parent().unwrap_or(path);
            fs::create_dir_all(folder)
                .and_then(|()| fs::rename(self.part.join(name), path))
                .map_err(|error| self.failed(name, error))?;
        }
        // What this maker wrote before and does not any more would be taken for part of what it writes now.
        for name in claim.files.keys().filter(|name| !files.contains_key(*name) && *name != MARKER) {
            if let Ok(path) = inside(&self.place, name) {
                let _ = fs::remove_file(path);
            }
        }
        mark(marker(&BTreeMap::new())).map_err(|error| self.failed(MARKER, error))
    }

    fn failed(&self, name: &str, error: io::Error) -> Error {
        Error::io(ErrorKind::Input, "write", &self.place.join(name), error)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_dir_all(&self.part);
        }
    }
}

/// The way from a folder to a path, both absolute.
pub fn way(path: &Path, from: &Path) -> PathBuf {
    let same = path.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    // Folders that share nothing but the root are told apart better by their full names.
    if same <= 1 {
        return path.to_owned();
    }
    let up = from.components().skip(same).map(|_| Path::new("..").to_owned());
    up.chain(std::iter::once(path.components().skip(same).collect())).collect()
}

/// The full path of what a path leads to, as far as it is there: after a link, `..` is the folder that the link leads into.
pub fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut real = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(real.pop()),
            part => {
                real.push(part);
                real = real.canonicalize().unwrap_or(real);
            }
        }
    }
    real
}

/// A single file for the user.
pub struct Single<'a> {
    /// Where to.
    pub path: &'a Path,
    /// What it is to hold.
    pub bytes: &'a [u8],
    /// Whether what is there was written by us, and not changed since; `None` of a file that has to be new.
    pub is_ours: Option<fn(&[u8]) -> bool>,
}

impl<'a> Single<'a> {
    /// A file that has to be new.
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Self {
        Self { path, bytes, is_ours: None }
    }
}

/// Writes single files, each whole or not at all. Where one may not be written, none is.
///
/// # Errors
/// Of kind usage, when there is something else at a path, its folder is missing, or it cannot be written.
pub fn write_files(files: &[Single<'_>], overwrite: Overwrite) -> Result<(), Error> {
    let mut targets = Vec::new();
    for file in files {
        if let Some(target) = target(file, overwrite)? {
            targets.push((file, target));
        }
    }
    for (file, target) in targets {
        let failed = |error| Error::io(ErrorKind::Usage, "write", file.path, error);
        match target {
            Target::Device => {
                let written = File::options().write(true).open(file.path).and_then(|mut to| to.write_all(file.bytes));
                written.map_err(failed)?;
            }
            Target::File(path) => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let mode = fs::metadata(&path).map(|metadata| metadata.permissions());
                let part = tempfile::Builder::new().prefix(".palinode-").permissions(open_mode()).tempfile_in(folder);
                let mut part = part.map_err(failed)?;
                part.write_all(file.bytes).map_err(failed)?;
                if let Ok(mode) = mode {
                    part.as_file().set_permissions(mode).map_err(failed)?;
                }
                part.as_file().sync_all().map_err(failed)?;
                part.persist(&path).map_err(|error| failed(error.error))?;
            }
        }
    }
    Ok(())
}

/// What the umask is applied to.
fn open_mode() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(0o666)
}

enum Target {
    /// A file, or nothing yet.
    File(PathBuf),
    /// Something that is written to as it is, such as /dev/stdout.
    Device,
}

/// Where to write; `None` where it is there already.
fn target(file: &Single<'_>, overwrite: Overwrite) -> Result<Option<Target>, Error> {
    let path = file.path;
    let usage = |what: &str| Error::new(ErrorKind::Usage, format!("cannot write {}: {what}", path.display()));
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            return match folder {
                Some(folder) if !folder.is_dir() => Err(usage(&format!("there is no folder {}", folder.display()))),
                _ => Ok(Some(Target::File(path.to_owned()))),
            };
        }
        Err(error) => return Err(Error::io(ErrorKind::Usage, "write", path, error)),
    };
    if metadata.is_dir() {
        return Err(usage("it is a folder"));
    }
    if !metadata.is_file() {
        return Ok(Some(Target::Device));
    }
    // A link stays, and what it leads to is replaced.
    let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if overwrite == Overwrite::Wanted {
        return Ok(Some(Target::File(place)));
    }
    let Some(is_ours) = file.is_ours else {
        return Err(usage("it is there already, and would be overwritten").hint(Hint::Overwrite));
    };
    let there = fs::read(path).map_err(|error| Error::io(ErrorKind::Usage, "read", path, error))?;
    if there == file.bytes {
        Ok(None)
    } else if is_ours(&there) {
        Ok(Some(Target::File(place)))
    } else {
        Err(usage("it is there already, and is something else").hint(Hint::Overwrite))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Act = fn(&Path);

    fn maker(stage: &str) -> Maker {
        Maker { stage: stage.to_owned(), ..Maker::default() }
    }

    /// Writes a folder with these files.
    fn write(place: &Path, stage: &str, files: &[(&str, &str)], overwrite: Overwrite) -> Result<(), Error> {
        let mut output = Output::begin(place, maker(stage), BTreeMap::new(), overwrite)?;
        for (name, text) in files {
            output.write(name, text.as_bytes())?;
        }
        output.finish(Map::new()).map(drop)
    }

    fn read(folder: &Path) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let mut todo = vec![folder.to_owned()];
        while let Some(next) = todo.pop() {
            for path in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    todo.push(path);
                } else if path.file_name().unwrap() != MARKER {
                    let name = path.strip_prefix(folder).unwrap().display().to_string();
                    all.insert(name, fs::read_to_string(path).unwrap());
                }
            }
        }
        all
    }

    #[test]
    fn what_is_not_ours_stays() {
        let root = tempfile::tempdir().unwrap();
        let (no, yes) = (Overwrite::Refused, Overwrite::Wanted);
        let new: &[(&str, &str)] = &[("a", "2"), ("sub/b", "2")];
        // What is done before, to what the stage `x` wrote as a = 1 and c = 1; whether it may be written again; what then is there.
        let cases: [(&str, Act, bool, &str); 9] = [
            ("nothing", |_| (), true, "a2 sub/b2"),
            ("removed", |place| fs::remove_dir_all(place).unwrap(), true, "a2 sub/b2"),
            ("one removed", |place| fs::remove_file(place.join("a")).unwrap(), true, "a2 sub/b2"),
            ("a file of the user's", |place| fs::write(place.join("mine"), "m").unwrap(), true, "a2 minem sub/b2"),
            ("changed", |place| fs::write(place.join("a"), "m").unwrap(), false, "am c1"),
            (
                "one in the way",
                |place| {
                    fs::create_dir(place.join("sub")).unwrap();
                    fs::write(place.join("sub/b"), "m").unwrap();
                },
                false,
                "a1 c1 sub/bm",
            ),
            ("no marker", |place| fs::remove_file(place.join(MARKER)).unwrap(), false, "a1 c1"),
            ("a strange marker", |place| fs::write(place.join(MARKER), "{}").unwrap(), false, "a1 c1"),
            (
                "half done",
                |place| {
                    let path = place.join(MARKER);
                    let text = fs::read_to_string(&path).unwrap();
                    let old = serde_json::from_str::<Value>(&text).unwrap()["files"].clone();
                    fs::write(place.join("a"), "2").unwrap();
                    let two = Digest::of(b"2").to_string();
                    let made_by = serde_json::to_value(maker("x")).unwrap();
                    let marker =
                        serde_json::json!({ "made_by": made_by, "files": { "a": two, "sub/b": two }, "before": old });
                    fs::write(path, marker.to_string()).unwrap();
                },
                true,
                "a2 sub/b2",
            ),
        ];
        for (what, act, may, expect) in cases {
            let place = root.path().join(what);
            write(&place, "x", &[("a", "1"), ("c", "1")], no).unwrap();
            act(&place);
            let done = write(&place, "x", new, no);
            assert_eq!(done.is_ok(), may, "{what}: {done:?}");
            let told: Vec<String> = read(&place).iter().map(|(name, text)| format!("{name}{text}")).collect();
            assert_eq!(told.join(" "), expect, "{what}");
            // The user may insist, and what is not replaced stays.
            write(&place, "x", new, yes).unwrap();
            let there = read(&place);
            assert!(there["a"] == "2" && there["sub/b"] == "2", "{what}: {there:?}");
            assert_eq!(there.contains_key("mine"), what == "a file of the user's", "{what}");
            write(&place, "x", &[("a", "3")], no).unwrap();
            assert!(write(&place, "y", new, no).is_err(), "{what}: another stage's");
            assert!(!place.join(PART).exists());
        }
        let names: Vec<String> =
            fs::read_dir(root.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
        // A folder that was there is as it was; one that is empty may be used.
        fs::create_dir(root.path().join("empty")).unwrap();
        write(&root.path().join("empty"), "x", new, no).unwrap();
        fs::write(root.path().join("file"), "m").unwrap();
        assert!(write(&root.path().join("file"), "x", new, yes).is_err());
    }

    /// What version 0.1.0 wrote says of its weights alone what they hold; other records know of the rest.
    #[test]
    fn what_an_earlier_version_wrote_is_ours() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("out");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("model.safetensors"), "w").unwrap();
        fs::write(place.join("config.json"), "c").unwrap();
        let digest = Digest::of(b"w").to_string();
        let marker =
            serde_json::json!({ "update": digest, "weights": { "model.safetensors": digest }, "provenance": {} });
        fs::write(place.join(MARKER), marker.to_string()).unwrap();
        let may = |known: &BTreeMap<String, Digest>| may_write(&place, &maker("x"), known, Overwrite::Refused).is_ok();
        assert!(may(&BTreeMap::new()));
        assert!(may(&[("config.json".to_owned(), Digest::of(b"c"))].into()));
        assert!(!may(&[("config.json".to_owned(), Digest::of(b"d"))].into()));
        fs::write(place.join("model.safetensors"), "v").unwrap();
        assert!(!may(&BTreeMap::new()));
        // One without a marker, of an update alone.
        fs::remove_file(place.join(MARKER)).unwrap();
        assert!(!may(&BTreeMap::new()) && may(&[("config.json".to_owned(), Digest::of(b"c"))].into()));
    }

    #[test]
    fn files_are_written_all_or_none() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        fs::write(&b, "mine").unwrap();
        let ours: Option<fn(&[u8]) -> bool> = Some(|bytes| bytes == b"ours");
        let both = |is_ours, overwrite| {
            write_files(&[Single::new(&a, b"1"), Single { path: &b, bytes: b"2", is_ours }], overwrite).is_ok()
        };
        for is_ours in [None, ours] {
            assert!(!both(is_ours, Overwrite::Refused) && !a.exists());
            assert_eq!(fs::read(&b).unwrap(), b"mine");
        }
        fs::write(&b, "ours").unwrap();
        assert!(both(ours, Overwrite::Refused));
        fs::write(&b, "mine").unwrap();
        assert!(!both(ours, Overwrite::Refused) && both(None, Overwrite::Wanted));
        assert_eq!(fs::read(&b).unwrap(), b"2");
        let error = write_files(&[Single::new(&root.path().join("no/c"), b"")], Overwrite::Refused).unwrap_err();
        assert!(error.message.contains("there is no folder"), "{error}");
    }

    #[test]
    fn ways() {
        let check = |path: &str, from: &str, expect: &str| {
            assert_eq!(way(Path::new(path), Path::new(from)), Path::new(expect));
        };
        check("/a/b/model", "/a/b/c", "../model");
        check("/a/b/model", "/a/b", "model");
        check("/m/model", "/a/b", "/m/model");
    }
}
