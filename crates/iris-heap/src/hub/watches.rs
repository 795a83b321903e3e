//! The operations of one rank that are watched.

use super::deadline::Deadline;
use super::message::Answer;
use crate::fault::{Activity, Watched};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

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
    /// How often the operation was reset; `None` once it is watched no longer.
    ///
    /// Held while the operation is aborted, so that a reset or a removal which is beginning waits for an abort that has
    /// begun.
    resets: Arc<Mutex<Option<u64>>>,
}

impl Entry {
    fn resets(&self) -> MutexGuard<'_, Option<u64>> {
        self.resets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to abort an operation as it was when this was made: it ends with the operation's next reset, and with its
/// removal.
///
/// Inquiries run on threads of their own, which may come late. One that came after the reset would stop an operation
/// that has nothing to do with the fault it was about; one that came after the removal would write to memory that is
/// somebody else's by then.
pub(crate) struct Ticket {
    entry: Entry,
    resets: u64,
}

impl Ticket {
    /// Whether the operation is still watched. It is aborted if it was not reset either.
    fn abort(&self, by: usize) -> bool {
        let resets = self.entry.resets();
        if *resets == Some(self.resets) {
            self.entry.operation.abort(by);
        }
        resets.is_some()
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
        let resets = Arc::new(Mutex::new(Some(0)));
        self.lock().insert(id, Entry { operation, resets });
    }

    /// Watches operation `id` no longer: nothing aborts it once this has returned.
    pub(crate) fn remove(&self, id: u64) {
        let removed = self.lock().remove(&id);
        // What was told to abort it before, and has not yet, finds it gone.
        if let Some(entry) = removed {
            *entry.resets() = None;
        }
    }

    /// The right to abort operation `id`, if it is watched.
    pub(crate) fn ticket(&self, id: u64) -> Option<Ticket> {
        let entry = self.lock().get(&id)?.clone();
        let resets = (*entry.resets())?;
        Some(Ticket { entry, resets })
    }

    /// Ends all rights to abort operation `id`.
    pub(crate) fn reset(&self, id: u64) {
        let entry = self.lock().get(&id).cloned();
        if let Some(entry) = entry
            && let Some(resets) = &mut *entry.resets()
        {
            *resets += 1;
        }
    }

    /// Aborts all operations, for good: what they need is gone, and no reset brings it back.
    pub(crate) fn abort_all(&self, by: usize) {
        let operations: Vec<_> = self.lock().values().cloned().collect();
        for entry in operations {
            // As in `Ticket::abort`: it may have been removed since.
            let resets = entry.resets();
            if resets.is_some() {
                entry.operation.abort(by);
            }
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
            Some(ticket) if ticket.abort(by) => waiting.push((rank, ticket.entry.operation)),
            Some(_) | None => report(rank, Answer::Dropped),
        }
    }
    let deadline = Deadline::after(PATIENCE);
    loop {
        let last = deadline.is_over();
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

    /// What an inquiry of one rank is answered.
    fn answers(ticket: Option<Ticket>) -> Vec<Answer> {
        let mut answers = Vec::new();
        inquire(vec![(0, ticket)], 1, |_, answer| answers.push(answer));
        answers
    }

    #[test]
    fn an_inquiry_that_comes_after_the_reset_aborts_nothing() {
        let watches = Watches::default();
        let operation = Arc::new(Counted::default());
        watches.insert(3, operation.clone());
        let (early, late) = (watches.ticket(3), watches.ticket(3));
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

    #[test]
    fn an_inquiry_that_comes_after_the_removal_aborts_nothing() {
        let watches = Watches::default();
        let operation = Arc::new(Counted::default());
        watches.insert(3, operation.clone());
        let (early, late) = (watches.ticket(3), watches.ticket(3));
        let idle = Answer::Doing(Activity::Idle { calls: 0 });
        assert_eq!(answers(early), [idle]);
        assert_eq!(operation.0.load(Ordering::SeqCst), 1);
        watches.remove(3);
        assert_eq!(answers(late), [Answer::Dropped]);
        assert_eq!(operation.0.load(Ordering::SeqCst), 1);
    }

    /// An operation whose abort begins and ends when the test says.
    #[derive(Default)]
    struct Slow {
        begun: AtomicUsize,
        may_end: AtomicUsize,
        ended: AtomicUsize,
    }

    fn until_set(flag: &AtomicUsize) {
        while flag.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
    }

    impl Watched for Slow {
        fn abort(&self, _: usize) {
            self.begun.store(1, Ordering::SeqCst);
            until_set(&self.may_end);
            self.ended.fetch_add(1, Ordering::SeqCst);
        }
        fn activity(&self) -> Activity {
            Activity::Idle { calls: 0 }
        }
    }

    /// A rank's death aborts operations one after the other: while it is at one, the others may be removed, and the one
    /// itself is removed only when it is through.
    #[test]
    fn a_death_aborts_nothing_that_has_been_removed_meanwhile() {
        let watches = Watches::default();
        let (slow, next) = (Arc::new(Slow::default()), Arc::new(Counted::default()));
        watches.insert(1, slow.clone());
        watches.insert(2, next.clone());
        thread::scope(|scope| {
            scope.spawn(|| watches.abort_all(0));
            until_set(&slow.begun);
            watches.remove(2);
            scope.spawn(|| {
                thread::sleep(STEP);
                slow.may_end.store(1, Ordering::SeqCst);
            });
            watches.remove(1);
            assert_eq!(slow.ended.load(Ordering::SeqCst), 1);
        });
        assert_eq!(next.0.load(Ordering::SeqCst), 0);
    }
}
