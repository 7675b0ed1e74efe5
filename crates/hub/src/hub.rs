//! The Hub as one place: what is in the cache, and what is fetched into it.

use std::path::PathBuf;

use crate::cache::Folder;
use crate::client::Client;
use crate::listing::File;
use crate::{HubError, Reference, blob};

/// Where the Hub and its cache are.
#[derive(Clone, Debug)]
pub struct Hub {
    /// The folder of the cache.
    pub cache: PathBuf,
    /// The Hub's address.
    pub endpoint: String,
    /// What opens gated and private repositories.
    pub token: Option<String>,
    /// Whether the network must not be used.
    pub offline: bool,
}

/// Files of a repository at one commit, in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What the revision was resolved to.
    pub commit: String,
    /// The folder.
    pub folder: PathBuf,
    /// The files asked for, in the order of their names.
    pub files: Vec<PathBuf>,
}

/// How a download goes.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The file on its way.
    pub file: &'a str,
    /// Bytes of all files that are here.
    pub done: u64,
    /// Bytes of all files; 0 where the Hub does not tell.
    pub total: u64,
}

/// What can be done where downloads are forbidden.
pub const FORBIDDEN: &str = "unset HF_HUB_OFFLINE to download it, or give a local path";

impl Hub {
    /// As the environment says: `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = var("HF_HOME").map_or_else(
            || {
                let cache = var("XDG_CACHE_HOME").map(PathBuf::from);
                let cache = cache.or_else(|| Some(PathBuf::from(var("HOME")?).join(".cache")));
                cache.unwrap_or_default().join("huggingface")
            },
            PathBuf::from,
        );
        let token_path = var("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token = var("HF_TOKEN").or_else(|| std::fs::read_to_string(token_path).ok());
        let on = |value: String| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str());
        Self {
            cache: var("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            endpoint: var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline: var("HF_HUB_OFFLINE").is_some_and(on),
        }
    }

    /// Whether nothing may be fetched.
    pub fn is_offline(&self) -> bool {
        self.offline
    }

    /// The commit that a reference's revision was when it was last fetched.
    pub fn commit(&self, reference: &Reference) -> Option<String> {
        Folder::new(&self.cache, reference).commit(&reference.revision)
    }

    /// The files of a reference, where all of them are in the cache. A branch is then what it was when it was last fetched.
    pub fn cached(&self, reference: &Reference) -> Option<Snapshot> {
        let folder = Folder::new(&self.cache, reference);
        let commit = folder.commit(&reference.revision)?;
        let (listing, told) = folder.listing(&commit)?;
        let files = listing.wanted(reference).ok()?;
        // What other programs left here may be a part of what a pattern means: that is used where there is no other way.
        let exact =
            reference.pattern.as_deref().is_none_or(|pattern| listing.siblings.iter().any(|f| f.rfilename == pattern));
        let whole = folder.is_whole(reference, &listing, &files) && (told || exact || self.offline);
        whole.then(|| snapshot(&folder, &commit, &files))
    }

    /// Brings the files of a reference into the cache; what is there is not fetched again. `watch` says whether to go on.
    ///
    /// # Errors
    /// [`HubError`] where the network may not be used or does not answer, the repository or its files are not there or not
    /// open, the cache cannot be written, or what arrives is not what was announced.
    pub fn fetch(
        &self,
        reference: &Reference,
        watch: &mut dyn FnMut(Progress<'_>) -> bool,
    ) -> Result<Snapshot, HubError> {
        if self.offline {
            return Err(self.absent(reference).hint(FORBIDDEN));
        }
        // Of a text that cannot stand in a request, the client would say nothing that helps.
        if self.token.iter().any(|token| token.chars().any(|char| !char.is_ascii_graphic())) {
            let message = "the token for the Hugging Face Hub has a character that no token has, such as a line break";
            return Err(HubError::new(message).hint("look at HF_TOKEN, or at the file of `huggingface-cli login`"));
        }
        let client = Client::new(&self.endpoint, self.token.clone());
        let listing = client.listing(reference)?;
        let files = listing.wanted(reference)?;
        let folder = Folder::new(&self.cache, reference);
        let total = files.iter().map(|file| file.size.unwrap_or(0)).sum();
        let mut done = 0;
        for file in &files {
            let mut bytes = |bytes| {
                done += bytes;
                watch(Progress { file: &file.rfilename, done, total })
            };
            let blob = blob::fetch(&client, &folder, reference, &listing.sha, file, &mut bytes)?;
            folder.link(&listing.sha, file, &blob)?;
        }
        folder.remember(&reference.revision, &listing)?;
        Ok(snapshot(&folder, &listing.sha, &files))
    }

    /// Says that a reference is not in the cache.
    pub fn absent(&self, reference: &Reference) -> HubError {
        HubError::new(format!("{reference} is not in the cache, {}", self.cache.display()))
    }
}

fn snapshot(folder: &Folder, commit: &str, files: &[File]) -> Snapshot {
    let path = folder.snapshot(commit);
    let files = files.iter().map(|file| path.join(&file.rfilename)).collect();
    Snapshot { commit: commit.to_owned(), folder: path, files }
}
