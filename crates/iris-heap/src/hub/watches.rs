//! The operations of one rank that are watched.

use super::message::Answer;
use crate::fault::{Activity, Watched};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a rank that waits is given to leave after it was told to, and to say where it stood.
const PATIENCE: Duration = Duration::from_millis(400);
/// Between two looks at it.
const STEP: Duration = Duration::from_millis(4);

/// The operations of one rank that are watched.
///
/// The lock is never held while an operation is called: operations are foreign code.
#[derive(Default)]
pub(crate) struct Watches {
    operations: Mutex<BTreeMap<u64, Arc<dyn Watched>>>,
}

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<dyn Watched>>> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, id: u64, operation: Arc<dyn Watched>) {
        self.lock().insert(id, operation);
    }

    pub(crate) fn remove(&self, id: u64) {
        let removed = self.lock().remove(&id);
        drop(removed); // after the lock is given back
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<dyn Watched>> {
        self.lock().get(&id).cloned()
    }

    /// Aborts all operations.
    pub(crate) fn abort_all(&self, by: usize) {
        let operations: Vec<_> = self.lock().values().cloned().collect();
        for operation in operations {
            operation.abort(by);
        }
    }
}

/// Tells operation `id` of each of `ranks` to stop, waits a while for those that wait to leave, and reports what each is
/// doing, in the order in which that becomes known.
pub(crate) fn inquire(
    ranks: &[(usize, Arc<Watches>)],
    id: u64,
    by: usize,
    mut report: impl FnMut(usize, Answer),
) {
    let mut waiting: Vec<(usize, Arc<dyn Watched>)> = Vec::new();
    for (rank, watches) in ranks {
        match watches.get(id) {
            Some(operation) => waiting.push((*rank, operation)),
            None => report(*rank, Answer::Dropped),
        }
    }
    for (_, operation) in &waiting {
        operation.abort(by);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = Instant::now() >= deadline;
        waiting.retain(|(rank, operation)| {
            let activity = operation.activity();
            // A rank at work may be about to wait, and leave: only one that stays at work is to blame.
            let again = !last && matches!(activity, Activity::Waiting(_) | Activity::Busy { .. });
            if !again {
                report(*rank, Answer::Doing(activity));
            }
            again
        });
        if waiting.is_empty() {
            return;
        }
        thread::sleep(STEP);
    }
}
