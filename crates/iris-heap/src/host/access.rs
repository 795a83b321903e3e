//! Who may touch a buffer's memory.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What a kernel does with a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes, and may read.
    Write,
}

/// A lock of one writer or many readers, without guards: a worker holds several at once in an order of its own.
///
/// Readers only wait for a writer that is in, never for one that waits. A kernel may hold a read for as long as its peers
/// need to come, and a peer of the same process may need to read the same buffer first: were it to queue behind a waiting
/// writer, neither would end.
#[derive(Debug, Default)]
pub(crate) struct AccessLock {
    /// The readers that are in, or -1 for a writer.
    users: Mutex<isize>,
    left: Condvar,
}

impl AccessLock {
    fn users(&self) -> MutexGuard<'_, isize> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `access` is possible, and takes it. Must be given back by [`AccessLock::release`].
    pub(crate) fn acquire(&self, access: Access) {
        let mut users = self.users();
        let taken = |users: isize| match access {
            Access::Read => users < 0,
            Access::Write => users != 0,
        };
        while taken(*users) {
            users = self
                .left
                .wait(users)
                .unwrap_or_else(PoisonError::into_inner);
        }
        match access {
            Access::Read => *users += 1,
            Access::Write => *users = -1,
        }
    }

    /// Gives back what [`AccessLock::acquire`] took.
    pub(crate) fn release(&self, access: Access) {
        let mut users = self.users();
        match access {
            Access::Read => *users -= 1,
            Access::Write => *users = 0,
        }
        if *users == 0 {
            self.left.notify_all();
        }
    }

    /// Runs `body` with access; gives it back also when `body` panics.
    pub(crate) fn with<R>(&self, access: Access, body: impl FnOnce() -> R) -> R {
        struct Release<'a>(&'a AccessLock, Access);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                self.0.release(self.1);
            }
        }
        self.acquire(access);
        let _release = Release(self, access);
        body()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::UnsafeCell;
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn writers_exclude_each_other() {
        struct Shared(UnsafeCell<u64>);
        // SAFETY: only used under the lock that is tested.
        unsafe impl Sync for Shared {}
        let lock = AccessLock::default();
        let count = Shared(UnsafeCell::new(0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let count = &count;
                    for _ in 0..1000 {
                        // SAFETY: only one writer is in.
                        lock.with(Access::Write, || unsafe { *count.0.get() += 1 });
                    }
                });
            }
        });
        assert_eq!(count.0.into_inner(), 4000);
    }

    #[test]
    fn a_reader_does_not_queue_behind_a_waiting_writer() {
        let lock = Arc::new(AccessLock::default());
        lock.acquire(Access::Read);
        let writer = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || lock.with(Access::Write, || {}))
        };
        thread::sleep(Duration::from_millis(20)); // so that the writer waits
        let (done, read) = mpsc::channel();
        let reader = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                lock.with(Access::Read, || {});
                done.send(())
            })
        };
        read.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(!writer.is_finished());
        lock.release(Access::Read);
        writer.join().unwrap();
        reader.join().unwrap().unwrap();
    }
}
