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
    operations: Mutex<BTreeMap<u64, Entry>>,
}

#[derive(Clone)]
struct Entry {
    operation: Arc<dyn Watched>,
    /// How often the operation was reset.
    resets: Arc<Mutex<u64>>,
}

/// The right to abort an operation as it was when this was made: it ends with the operation's next reset.
///
/// Inquiries run on threads of their own, which may come late. One that came after the reset would stop an operation
/// that has nothing to do with the fault it was about.
pub(crate) struct Ticket {
    entry: Entry,
    resets: u64,
}

impl Ticket {
    fn abort(&self, by: usize) {
        // Held while the operation is called, so that a reset which is beginning waits for an abort that has begun.
        let resets = self
            .entry
            .resets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *resets == self.resets {
            self.entry.operation.abort(by);
        }
    }
}

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, id: u64, operation: Arc<dyn Watched>) {
        let resets = Arc::default();
        self.lock().insert(id, Entry { operation, resets });
    }

    pub(crate) fn remove(&self, id: u64) {
        let removed = self.lock().remove(&id);
        drop(removed); // after the lock is given back
    }

    /// The right to abort operation `id`, if it is watched.
    pub(crate) fn ticket(&self, id: u64) -> Option<Ticket> {
        let entry = self.lock().get(&id)?.clone();
        let resets = *entry.resets.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Ticket { entry, resets })
    }

    /// Ends all rights to abort operation `id`.
    pub(crate) fn reset(&self, id: u64) {
        let entry = self.lock().get(&id).cloned();
        if let Some(entry) = entry {
            *entry.resets.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
    }

    /// Aborts all operations.
    pub(crate) fn abort_all(&self, by: usize) {
        let operations: Vec<_> = self.lock().values().cloned().collect();
        for entry in operations {
            entry.operation.abort(by);
        }
    }
}

/// Tells each rank's operation to stop, waits a while for those that wait to leave, and reports what each is doing, in
/// the order in which that becomes known. `None` is a rank that watches no such operation.
pub(crate) fn inquire(
    ranks: Vec<(usize, Option<Ticket>)>,
    by: usize,
    mut report: impl FnMut(usize, Answer),
) {
    let mut waiting = Vec::new();
    for (rank, ticket) in ranks {
        match ticket {
            Some(ticket) => {
                ticket.abort(by);
                waiting.push((rank, ticket.entry.operation));
            }
            None => report(rank, Answer::Dropped),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Watched for Counted {
        fn abort(&self, _: usize) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        fn activity(&self) -> Activity {
            Activity::Idle { calls: 0 }
        }
    }

    #[test]
    fn an_inquiry_that_comes_after_the_reset_aborts_nothing() {
        let watches = Watches::default();
        let operation = Arc::new(Counted::default());
        watches.insert(3, operation.clone());
        let (early, late) = (watches.ticket(3), watches.ticket(3));
        let answers = |ticket| {
            let mut answers = Vec::new();
            inquire(vec![(0, ticket)], 1, |_, answer| answers.push(answer));
            answers
        };
        let idle = Answer::Doing(Activity::Idle { calls: 0 });
        assert_eq!(answers(early)[0], idle);
        assert_eq!(operation.0.load(Ordering::SeqCst), 1);
        watches.reset(3);
        assert_eq!(answers(late)[0], idle);
        assert_eq!(operation.0.load(Ordering::SeqCst), 1);
        assert_eq!(answers(watches.ticket(3))[0], idle);
        assert_eq!(operation.0.load(Ordering::SeqCst), 2);
        watches.abort_all(0);
        assert_eq!(operation.0.load(Ordering::SeqCst), 3);
        watches.remove(3);
        assert_eq!(answers(watches.ticket(3)), [Answer::Dropped]);
    }
}
