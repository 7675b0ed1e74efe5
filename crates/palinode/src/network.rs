//! Downloads: whether they are allowed, and who hears of them.

use std::path::PathBuf;

use palinode_engine::{Error, Hint};

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Download<'a> {
    /// What is fetched, as the pipeline names it: `hf:owner/name`.
    pub reference: &'a str,
    /// The file that is coming.
    pub file: &'a str,
    /// Bytes of all its files so far.
    pub done: u64,
    /// Bytes of all its files.
    pub total: u64,
}

/// Whether files may be fetched.
pub enum Network<'a> {
    /// They may not.
    Offline,
    /// They may; this hears of progress, and says whether to go on.
    Online(&'a mut dyn FnMut(Download<'_>) -> bool),
}

impl Network<'_> {
    /// Fetches what a reference stands for, into the cache that other programs share.
    ///
    /// # Errors
    /// Where that may not be, or cannot be, or was stopped.
    pub fn fetch(&mut self, reference: &str) -> Result<(), Error> {
        match self {
            Self::Offline => {
                Err(Error::input(format!("{reference} is not in the cache of the Hugging Face Hub"))
                    .hint(Hint::GoOnline))
            }
            Self::Online(watch) => palinode_stages::fetch(reference, &mut |progress| {
                watch(Download { reference, file: progress.file, done: progress.done, total: progress.total })
            }),
        }
    }
}

/// The folder of a model that is given by its folder or as `hf:owner/name`, which is fetched if it is not in the cache.
///
/// # Errors
/// For a reference that is none, and where it has to be fetched, as [`Network::fetch`].
pub fn model_folder(model: &str, network: &mut Network<'_>) -> Result<PathBuf, Error> {
    if let Some(folder) = palinode_stages::model_folder(model)? {
        return Ok(folder);
    }
    network.fetch(model)?;
    palinode_stages::model_folder(model)?
        .ok_or_else(|| Error::internal(format!("{model} was fetched and is not in the cache")))
}
