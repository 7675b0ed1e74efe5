//! Resources kept in memory between the stages of a run, such as a loaded model.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use palinode_error::Error;

use crate::watch::{Sources, is_of};

type Slot = Arc<Mutex<Option<Held>>>;

/// A resource, and the files that it was made from.
#[derive(Clone)]
struct Held {
    any: Arc<dyn Any + Send + Sync>,
    sources: Sources,
}

/// A bounded set of resources; the one not used for longest leaves first.
pub struct SharedPool {
    capacity: usize,
    /// Most recently used last.
    slots: Mutex<Vec<(String, Slot)>>,
}

/// How many loaded resources are kept between stages.
const MOST: usize = 3;

impl Default for SharedPool {
    fn default() -> Self {
        Self::new(MOST)
    }
}

impl SharedPool {
    /// A pool of at most `capacity` resources.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), slots: Mutex::default() }
    }

    /// The resource under `key`, made when it is not there or when a file that it was made from looks different, and these files.
    /// Makers of different keys do not wait for one another.
    ///
    /// # Errors
    /// What `make` gives, or an internal error when the key holds something of another type.
    pub(crate) fn get<T: Any + Send + Sync>(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<(T, Sources), Error>,
    ) -> Result<(Arc<T>, Sources), Error> {
        let slot = self.slot(key);
        let mut held = slot.lock().unwrap_or_else(PoisonError::into_inner);
        // Let go of before another is made: both need not fit in memory together.
        let kept = held.take().filter(|held| is_of(&held.sources));
        let kept = if let Some(kept) = kept {
            kept
        } else {
            let (made, sources) = make()?;
            Held { any: Arc::new(made), sources }
        };
        *held = Some(kept.clone());
        let any = kept.any.downcast();
        let any = any.map_err(|_| Error::internal(format!("shared resource `{key}` is of another type")))?;
        Ok((any, kept.sources))
    }

    fn slot(&self, key: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match slots.iter().position(|(name, _)| name == key) {
            Some(at) => slots.remove(at).1,
            None => Slot::default(),
        };
        // Room is made before a new resource is built, so that old and new need not fit in memory together.
        while slots.len() >= self.capacity {
            slots.remove(0);
        }
        slots.push((key.to_owned(), Arc::clone(&slot)));
        slot
    }
}
