//! The hub: where the ranks of a world meet.
//!
//! One hub lives in the process of rank 0, or in the one process of a world of threads. Ranks of that process call it
//! directly; the others speak to it over a socket. All it does follows from three operations: an *exchange*, in which
//! every rank gives some bytes, and a file if it likes, and gets those of all; the *death* or *leaving* of a rank; and
//! the *verdict* on a fault.
//!
//! All state is behind one mutex, and whoever waits, waits on one condition variable. What must be told to other
//! processes is written under that mutex, so that messages leave in the order of the states they speak of, and before
//! any waiter of this process is woken: rank 0 may return from a collective and exit at once, and the others have their
//! result. Operations, which are foreign code, are only called with the mutex given back.

pub(crate) mod client;
mod deadline;
mod exchange;
mod files;
pub(crate) mod frame;
mod handshake;
pub(crate) mod inquiry;
pub(crate) mod message;
pub(crate) mod server;
pub(crate) mod watches;

use deadline::Deadline;
use exchange::Exchange;
use frame::Connection;
use inquiry::Inquiry;
use message::{Failure, FromHub};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use watches::Watches;

pub(crate) use exchange::{Gathered, Part};

#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    ranks: Vec<Slot>,
    exchanges: BTreeMap<u64, Exchange>,
    /// The fault of each operation that a verdict has been asked for.
    inquiries: HashMap<u64, Inquiry>,
    /// The number of the latest inquiry.
    inquiry: u64,
    gone: Gone,
}

/// Which ranks are gone for good, as far as it matters: the first to die, whose death may well be why others went
/// after it, and the first to leave.
#[derive(Debug, Clone, Copy, Default)]
struct Gone {
    died: Option<usize>,
    left: Option<usize>,
}

impl Gone {
    /// Why a collective that needs all ranks fails; nothing where none is gone.
    fn failure(self) -> Option<Failure> {
        let left = self.left.map(|rank| Failure::Left { rank });
        self.died.map(|rank| Failure::Died { rank }).or(left)
    }
}

#[derive(Debug)]
struct Slot {
    status: Status,
    link: Link,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It has not joined yet.
    Absent,
    Alive,
    Left,
    Dead,
}

#[derive(Debug, Clone)]
enum Link {
    None,
    /// In this process.
    Local(Arc<Watches>),
    /// In another.
    Remote(Arc<Connection>),
}

impl Hub {
    /// A hub of `size` ranks, none of which has joined.
    pub(crate) fn new(size: usize) -> Self {
        let slot = || Slot {
            status: Status::Absent,
            link: Link::None,
        };
        Self {
            state: Mutex::new(State {
                ranks: (0..size).map(|_| slot()).collect(),
                exchanges: BTreeMap::new(),
                inquiries: HashMap::new(),
                inquiry: 0,
                gone: Gone::default(),
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Deadline) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(state, until.left())
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Lets `rank`, a rank of this process, join.
    pub(crate) fn join_local(&self, rank: usize, watches: Arc<Watches>) {
        let mut state = self.lock();
        state.ranks[rank] = Slot {
            status: Status::Alive,
            link: Link::Local(watches),
        };
    }

    /// `rank` is dead: nothing that needs it can end any more, and everybody is told.
    pub(crate) fn died(&self, rank: usize) {
        let local = {
            let mut state = self.lock();
            if matches!(state.ranks[rank].status, Status::Left | Status::Dead) {
                return;
            }
            state.ranks[rank].status = Status::Dead;
            state.gone.died.get_or_insert(rank);
            state.fail_pending(&Failure::Died { rank }, |_| true);
            state.broadcast(&FromHub::Died { rank });
            state.unlink(rank);
            self.changed.notify_all();
            state.local()
        };
        for (_, watches) in local {
            watches.abort_all(rank);
        }
    }

    /// `rank` leaves in good order: what is in flight goes on, what still needs it fails.
    pub(crate) fn left(&self, rank: usize) {
        let mut state = self.lock();
        if matches!(state.ranks[rank].status, Status::Left | Status::Dead) {
            return;
        }
        state.ranks[rank].status = Status::Left;
        state.gone.left.get_or_insert(rank);
        state.fail_pending(&Failure::Left { rank }, |exchange| !exchange.has_come(rank));
        state.broadcast(&FromHub::Left { rank });
        state.unlink(rank);
        self.changed.notify_all();
    }
}

impl State {
    /// The ranks of this process.
    fn local(&self) -> Vec<(usize, Arc<Watches>)> {
        let ranks = self.ranks.iter().enumerate();
        ranks
            .filter_map(|(rank, slot)| match &slot.link {
                Link::Local(watches) => Some((rank, Arc::clone(watches))),
                Link::None | Link::Remote(_) => None,
            })
            .collect()
    }

    /// Sends to a rank of another process, if `rank` is one.
    ///
    /// What cannot be sent is not sent again: the connection is then closed, and its reader takes the rank for dead.
    fn send<M: Serialize>(&self, rank: usize, message: &M) {
        if let Link::Remote(connection) = &self.ranks[rank].link {
            let _ = connection.send(message, &[]);
        }
    }

    /// Gives up the connection to a rank that is gone.
    fn unlink(&mut self, rank: usize) {
        if let Link::Remote(_) = self.ranks[rank].link {
            self.ranks[rank].link = Link::None;
        }
    }

    fn broadcast(&self, message: &FromHub) {
        for (rank, slot) in self.ranks.iter().enumerate() {
            if slot.status == Status::Alive {
                self.send(rank, message);
            }
        }
    }
}
