// SPDX-License-Identifier: MIT OR Apache-2.0

//! All objects that the application holds. Handles are numbers that are never used again, so a handle that was
//! freed, or is of another kind, is noticed instead of crashing later.

use crate::abi::{Id, handle, id};
use crate::control::misuse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where handles begin, to look like addresses.
const BASE: usize = 0x5a00_0000_0000;
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// The objects of one kind.
pub struct Registry<T> {
    name: &'static str,
    map: Mutex<BTreeMap<Id, Arc<T>>>,
}

/// Locks, whatever happened to who held it before.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Registry<T> {
    pub const fn new(name: &'static str) -> Self {
        Self { name, map: Mutex::new(BTreeMap::new()) }
    }

    pub fn insert(&self, object: T) -> Id {
        self.insert_arc(Arc::new(object))
    }

    pub fn insert_arc(&self, object: Arc<T>) -> Id {
        let id = BASE + NEXT.fetch_add(1, Ordering::Relaxed) * 16;
        lock(&self.map).insert(id, object);
        id
    }

    /// The object of a handle. A handle that is none is noted as misuse.
    pub fn get(&self, id: Id, what: &str) -> Option<Arc<T>> {
        let found = self.find(id);
        if found.is_none() {
            self.complain(id, what);
        }
        found
    }

    /// As `get`, for callers whose handle may rightly be gone.
    pub fn find(&self, id: Id) -> Option<Arc<T>> {
        lock(&self.map).get(&id).cloned()
    }

    pub fn remove(&self, id: Id, what: &str) -> Option<Arc<T>> {
        let found = lock(&self.map).remove(&id);
        if found.is_none() {
            self.complain(id, what);
        }
        found
    }

    fn complain(&self, id: Id, what: &str) {
        if id == 0 {
            misuse(format_args!("{what}: the {} is NULL", self.name));
        } else {
            misuse(format_args!("{what}: {id:#x} is no {} (freed already, or something else)", self.name));
        }
    }

    pub fn len(&self) -> usize {
        lock(&self.map).len()
    }

    /// As `get`, from a handle.
    pub fn of<H>(&self, h: *mut H, what: &str) -> Option<Arc<T>> {
        self.get(id(h), what)
    }

    /// As `insert`, to a handle.
    pub fn handle<H>(&self, object: T) -> *mut H {
        handle(self.insert(object))
    }
}
