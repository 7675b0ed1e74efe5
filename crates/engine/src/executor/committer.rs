//! Publishes results of this process in groups.
//!
//! A disk takes milliseconds to say that something is on it, a light stage a fraction of one. So an attempt that has done its work hands its
//! result over and frees its resources; while one group waits for the disk, the next one gathers. A result that comes alone waits for nobody.
//! Nothing is weaker than if each were published by itself: an attempt ends, and what needs its result begins, once it is on the disk.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::interface::Notice;
use crate::scheduler::AttemptId;
use palinode_error::{Error, panics};
use palinode_store::{Manifest, Store};

/// Results in a group, at most. Who comes when so many wait, waits as well: a kill costs no more than the work of so many light stages.
const MOST: usize = 512;

/// A result that is to be published; `None` ends the thread.
type Item = Option<(AttemptId, Box<Manifest>)>;

/// Takes results, and says the end of their attempts once they are published.
pub(super) struct Committer {
    results: SyncSender<Item>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    /// For a store; ends are said to `ended`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(store: &Arc<Store>, ended: &Sender<Notice>) -> std::io::Result<Self> {
        let (results, taken) = sync_channel(MOST);
        let (store, ended) = (Arc::clone(store), ended.clone());
        let thread = thread::Builder::new().name("publish".to_owned()).spawn(move || work(&store, &taken, &ended))?;
        Ok(Self { results, thread: Some(thread) })
    }

    /// Where results are handed over.
    pub fn results(&self) -> SyncSender<Item> {
        self.results.clone()
    }
}

impl Drop for Committer {
    /// The store is let go of.
    fn drop(&mut self) {
        let _ = self.results.send(None);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn work(store: &Store, taken: &Receiver<Item>, ended: &Sender<Notice>) {
    while let Ok(Some(first)) = taken.recv() {
        let mut attempts = vec![first.0];
        let mut manifests = vec![*first.1];
        let mut over = false;
        while manifests.len() < MOST && !over {
            match taken.try_recv() {
                Ok(Some((attempt, manifest))) => {
                    attempts.push(attempt);
                    manifests.push(*manifest);
                }
                Ok(None) => over = true,
                Err(_) => break,
            }
        }
        let published = panics::catch(|| store.publish_all(&manifests)).unwrap_or_else(|panic| {
            let failed = || Err(Error::internal(format!("the engine panicked: {panic}")));
            manifests.iter().map(|_| failed()).collect()
        });
        for ((attempt, manifest), published) in attempts.into_iter().zip(manifests).zip(published) {
            let result = published.map(|()| manifest).map_err(Into::into);
            let _ = ended.send(Notice::Ended(attempt, Box::new(result)));
        }
        if over {
            return;
        }
    }
}
