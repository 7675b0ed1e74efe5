//! Resources kept in memory between the stages of a run, such as a loaded model.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use palinode_error::Error;

type Slot = Arc<Mutex<Option<Arc<dyn Any + Send + Sync>>>>;

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

    /// The resource under `key`, made when it is not there. Makers of different keys do not wait for one another.
    ///
    /// # Errors
    /// What `make` gives, or an internal error when the key holds something of another type.
    pub fn get<T: Any + Send + Sync>(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<T, Error>,
    ) -> Result<Arc<T>, Error> {
        let slot = self.slot(key);
        let mut held = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let any = if let Some(any) = &*held {
            Arc::clone(any)
        } else {
            let any: Arc<dyn Any + Send + Sync> = Arc::new(make()?);
            *held = Some(Arc::clone(&any));
            any
        };
        any.downcast().map_err(|_| Error::internal(format!("shared resource `{key}` is of another type")))
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
