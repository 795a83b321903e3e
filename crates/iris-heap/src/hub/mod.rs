//! The hub: where the ranks of a world meet.
//!
//! One hub lives in the process of rank 0, or in the one process of a world of threads. Ranks of that process call it
//! directly; the others speak to it over a socket. All it does follows from three operations: an *exchange*, in which
//! every rank gives some bytes and gets those of all; the *death* or *leaving* of a rank; and the *verdict* on a fault.
//!
//! All state is behind one mutex, and whoever waits, waits on one condition variable. What must be told to other
//! processes is written under that mutex, so that messages leave in the order of the states they speak of, and before
//! any waiter of this process is woken: rank 0 may return from a collective and exit at once, and the others have their
//! result. Operations, which are foreign code, are only called with the mutex given back.

pub(crate) mod client;
pub(crate) mod frame;
pub(crate) mod inquiry;
pub(crate) mod message;
pub(crate) mod server;
pub(crate) mod watches;

use frame::{Connection, encode};
use inquiry::Inquiry;
use message::{Failure, FromHub};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use watches::Watches;

/// What an exchange gives to each rank: the payloads of all, by rank.
pub(crate) type Gathered = Arc<Vec<Vec<u8>>>;

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

/// A collective under way.
///
/// It is kept until every living rank has had its outcome, so that whoever comes late to one that has failed hears so.
#[derive(Debug)]
struct Exchange {
    collective: String,
    /// Who came first.
    first: usize,
    parts: Vec<Option<Vec<u8>>>,
    outcome: Option<Result<Gathered, Failure>>,
    served: Vec<bool>,
}

/// A rank broke the order of exchanges: its connection cannot be trusted any further.
#[derive(Debug, thiserror::Error)]
#[error("exchange {seq} came twice")]
pub(crate) struct OutOfTurn {
    seq: u64,
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

    fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Instant) -> MutexGuard<'a, State> {
        let left = until.saturating_duration_since(Instant::now());
        self.changed
            .wait_timeout(state, left)
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

    /// Takes part in exchange `seq`, and waits for its outcome.
    pub(crate) fn exchange(
        &self,
        rank: usize,
        seq: u64,
        collective: &str,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> Result<Gathered, Failure> {
        let begun = Instant::now();
        let mut state = self.lock();
        if state.arrive(rank, seq, collective, payload).is_err() {
            // This rank gave up on the exchange and somehow came again: to all others it is one that did not come.
            return Err(Failure::Timeout {
                waited_ms: 0,
                missing: vec![rank],
            });
        }
        self.changed.notify_all();
        loop {
            if let Some(outcome) = state.take(rank, seq) {
                return outcome;
            }
            if begun.elapsed() >= timeout {
                state.give_up(seq, begun.elapsed());
                self.changed.notify_all();
            } else {
                state = self.wait(state, begun + timeout);
            }
        }
    }

    /// `rank`, of another process, takes part in exchange `seq`; the outcome is sent to it.
    fn exchange_remote(
        &self,
        rank: usize,
        seq: u64,
        collective: &str,
        payload: Vec<u8>,
    ) -> Result<(), OutOfTurn> {
        let mut state = self.lock();
        let arrived = state.arrive(rank, seq, collective, payload);
        self.changed.notify_all();
        arrived
    }

    /// A rank of another process has waited long enough for exchange `seq`.
    fn give_up(&self, seq: u64, waited: Duration) {
        self.lock().give_up(seq, waited);
        self.changed.notify_all();
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
        state.fail_pending(&Failure::Left { rank }, |exchange| {
            exchange.parts[rank].is_none()
        });
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

    fn arrive(
        &mut self,
        rank: usize,
        seq: u64,
        collective: &str,
        payload: Vec<u8>,
    ) -> Result<(), OutOfTurn> {
        let size = self.ranks.len();
        let gone = self.gone.failure();
        let exchange = self.exchanges.entry(seq).or_insert_with(|| Exchange {
            collective: collective.to_owned(),
            first: rank,
            parts: vec![None; size],
            outcome: gone.map(Err),
            served: vec![false; size],
        });
        if exchange.parts[rank].is_some() || exchange.served[rank] {
            return Err(OutOfTurn { seq });
        }
        exchange.parts[rank] = Some(payload);
        if exchange.outcome.is_none() {
            if exchange.collective != collective {
                exchange.outcome = Some(Err(Failure::Mismatch {
                    rank,
                    theirs: collective.to_owned(),
                    other_rank: exchange.first,
                    ours: exchange.collective.clone(),
                }));
            } else if exchange.parts.iter().all(Option::is_some) {
                let parts = exchange.parts.iter().flatten().cloned().collect();
                exchange.outcome = Some(Ok(Arc::new(parts)));
            }
        }
        self.serve(seq);
        Ok(())
    }

    /// Fails exchange `seq`, if it is under way, because ranks are missing.
    fn give_up(&mut self, seq: u64, waited: Duration) {
        let Some(exchange) = self.exchanges.get_mut(&seq) else {
            return;
        };
        if exchange.outcome.is_none() {
            let parts = exchange.parts.iter().enumerate();
            let missing = parts.filter(|(_, part)| part.is_none());
            exchange.outcome = Some(Err(Failure::Timeout {
                waited_ms: waited.as_millis() as u64,
                missing: missing.map(|(rank, _)| rank).collect(),
            }));
            self.serve(seq);
        }
    }

    /// Fails all exchanges under way that `which` holds for.
    fn fail_pending(&mut self, failure: &Failure, which: impl Fn(&Exchange) -> bool) {
        for exchange in self.exchanges.values_mut() {
            if exchange.outcome.is_none() && which(exchange) {
                exchange.outcome = Some(Err(failure.clone()));
            }
        }
        let all: Vec<u64> = self.exchanges.keys().copied().collect();
        for seq in all {
            self.serve(seq);
        }
    }

    /// Sends the outcome of exchange `seq`, if there is one, to all ranks of other processes that have come to it.
    fn serve(&mut self, seq: u64) {
        let Some(exchange) = self.exchanges.get_mut(&seq) else {
            return;
        };
        let Some(outcome) = &exchange.outcome else {
            return;
        };
        let mut frame = None;
        for (rank, slot) in self.ranks.iter().enumerate() {
            if exchange.served[rank] || exchange.parts[rank].is_none() {
                continue;
            }
            if let Link::Remote(connection) = &slot.link {
                let frame = frame.get_or_insert_with(|| outcome_frame(seq, outcome));
                match frame {
                    Ok(frame) => drop(connection.send_frame(frame)),
                    Err(_) => connection.close(),
                }
                exchange.served[rank] = true;
            }
        }
        self.forget(seq);
    }

    /// The outcome of exchange `seq` for `rank`, a rank of this process.
    fn take(&mut self, rank: usize, seq: u64) -> Option<Result<Gathered, Failure>> {
        let Some(exchange) = self.exchanges.get_mut(&seq) else {
            // Only a rank that is gone is not waited for, and this one was declared so by another of its threads.
            return Some(Err(Failure::Died { rank }));
        };
        let outcome = exchange.outcome.clone()?;
        exchange.served[rank] = true;
        self.forget(seq);
        Some(outcome)
    }

    /// Drops exchange `seq` once nobody can ask for it any more.
    fn forget(&mut self, seq: u64) {
        let done = self.exchanges.get(&seq).is_some_and(|exchange| {
            let mut ranks = self.ranks.iter().zip(&exchange.served);
            exchange.outcome.is_some()
                && ranks.all(|(slot, &served)| {
                    served || matches!(slot.status, Status::Dead | Status::Left)
                })
        });
        if done {
            self.exchanges.remove(&seq);
        }
    }
}

fn outcome_frame(seq: u64, outcome: &Result<Gathered, Failure>) -> std::io::Result<Vec<u8>> {
    match outcome {
        Ok(parts) => {
            let lens = parts.iter().map(Vec::len).collect();
            encode(&FromHub::Gathered { seq, lens }, &parts.concat())
        }
        Err(failure) => {
            let failure = failure.clone();
            encode(&FromHub::Failed { seq, failure }, &[])
        }
    }
}
