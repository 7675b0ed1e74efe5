//! What files a repository has at a commit, and which of them are needed.

use serde::{Deserialize, Serialize};

use crate::{HubError, Kind, Reference};

/// What nobody can do without beside the weights.
const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];
/// Small files beside the weights that other programs want.
pub const COMPANIONS: [&str; 8] = [
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
];
/// The weights in one file, and what names the shards where there are several.
pub const SINGLE: &str = "model.safetensors";
pub const INDEX: &str = "model.safetensors.index.json";

/// A repository at a commit, as `api/models/…/revision/…?blobs=true` tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// The commit.
    pub sha: String,
    /// Its files.
    #[serde(default)]
    pub siblings: Vec<File>,
}

/// A file of a repository.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct File {
    /// Its path in the repository.
    pub rfilename: String,
    /// Bytes.
    pub size: Option<u64>,
    /// Git's name of its contents.
    #[serde(rename = "blobId")]
    pub blob: Option<String>,
    /// Where it is kept as a large file.
    pub lfs: Option<Large>,
}

/// A large file's contents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Large {
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
}

impl File {
    /// A file of which nothing is known but that it is there.
    pub fn named(name: &str) -> Self {
        Self { rfilename: name.to_owned(), size: None, blob: None, lfs: None }
    }

    /// Whether its path leads nowhere but below the snapshot's folder.
    pub fn is_safe(&self) -> bool {
        let name = &self.rfilename;
        !name.contains(['\\', '\0', ':']) && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
    }
}

impl Listing {
    /// The files that a reference asks for, in the order of their names.
    pub fn wanted(&self, reference: &Reference) -> Result<Vec<File>, HubError> {
        let mut files: Vec<File> = match reference.kind {
            Kind::Model => {
                let sharded = !self.has(SINGLE);
                if sharded && !self.has(INDEX) {
                    return Err(HubError::new(format!("{reference} has no {SINGLE}"))
                        .hint("only safetensors are read; transformers writes them with save_pretrained"));
                }
                let wanted = |name: &str| match name {
                    SINGLE => true,
                    INDEX => sharded,
                    shard if sharded && shard.starts_with("model-") && shard.ends_with(".safetensors") => true,
                    other => NEEDED.contains(&other) || COMPANIONS.contains(&other),
                };
                self.siblings.iter().filter(|file| wanted(&file.rfilename)).cloned().collect()
            }
            Kind::Dataset => {
                let pattern = reference.pattern.as_deref().unwrap_or("**");
                let bad = |error: glob::PatternError| HubError::new(format!("not a pattern: {}", error.msg));
                let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
                let fits = glob::Pattern::new(pattern).map_err(bad)?;
                let wanted = |name: &str| name == pattern || fits.matches_with(name, options);
                self.siblings.iter().filter(|file| wanted(&file.rfilename)).cloned().collect()
            }
        };
        if let Some(odd) = files.iter().find(|file| !file.is_safe()) {
            return Err(HubError::new(format!("{reference} has a file of the unsafe name {:?}", odd.rfilename)));
        }
        files.sort_by(|a, b| a.rfilename.cmp(&b.rfilename));
        if let Some(shards) = reference.shards {
            files = shards.choose(files.len()).into_iter().map(|place| files[place].clone()).collect();
        }
        if files.is_empty() {
            let some: Vec<&str> = self.siblings.iter().take(8).map(|file| file.rfilename.as_str()).collect();
            let pattern = reference.pattern.as_deref().unwrap_or_default();
            return Err(HubError::new(format!("no file of {reference} fits `{pattern}`"))
                .hint(format!("it has {}", some.join(", "))));
        }
        Ok(files)
    }

    fn has(&self, name: &str) -> bool {
        self.siblings.iter().any(|file| file.rfilename == name)
    }
}
