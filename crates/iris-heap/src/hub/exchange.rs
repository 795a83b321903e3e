//! Exchanges: every rank gives some bytes, and a file if it likes, and gets those of all.

use super::deadline::Deadline;
use super::frame::{Connection, SendError, encode};
use super::message::{Failure, FromHub, Withheld};
use super::server::UNREAD;
use super::{Hub, Link, State, Status};
use std::mem::take;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a rank gives to an exchange.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) bytes: Vec<u8>,
    pub(crate) file: Option<Arc<OwnedFd>>,
}

/// What an exchange gives to each rank: the parts of all, by rank.
pub(crate) type Gathered = Arc<Vec<Part>>;

/// A collective under way.
///
/// It is kept until every living rank has had its outcome, so that whoever comes late to one that has failed hears so.
/// One that has failed keeps no part: files are closed at once.
#[derive(Debug)]
pub(super) struct Exchange {
    collective: String,
    /// Who came first.
    first: usize,
    parts: Vec<Option<Part>>,
    outcome: Option<Result<Gathered, Failure>>,
    served: Vec<bool>,
}

/// A rank broke the order of exchanges: its connection cannot be trusted any further.
#[derive(Debug, thiserror::Error)]
#[error("exchange {seq} came twice")]
pub(super) struct OutOfTurn {
    seq: u64,
}

impl Exchange {
    pub(super) fn has_come(&self, rank: usize) -> bool {
        self.parts[rank].is_some()
    }

    fn fail(&mut self, failure: Failure) {
        self.outcome = Some(Err(failure));
        for part in self.parts.iter_mut().flatten() {
            *part = Part::default();
        }
    }
}

impl Hub {
    /// Takes part in exchange `seq`, and waits for its outcome. `given` may be why the rank gives nothing: the exchange
    /// then fails for all.
    pub(crate) fn exchange(
        &self,
        rank: usize,
        seq: u64,
        collective: &str,
        given: Result<Part, Withheld>,
        timeout: Duration,
    ) -> Result<Gathered, Failure> {
        let deadline = Deadline::after(timeout);
        let mut state = self.lock();
        if state.arrive(rank, seq, collective, given).is_err() {
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
            if deadline.is_over() {
                state.give_up(seq, deadline.waited());
                self.changed.notify_all();
            } else {
                state = self.wait(state, deadline);
            }
        }
    }

    /// `rank`, of another process, takes part in exchange `seq`; the outcome is sent to it.
    pub(super) fn exchange_remote(
        &self,
        rank: usize,
        seq: u64,
        collective: &str,
        given: Result<Part, Withheld>,
    ) -> Result<(), OutOfTurn> {
        let mut state = self.lock();
        let arrived = state.arrive(rank, seq, collective, given);
        self.changed.notify_all();
        arrived
    }

    /// A rank of another process has waited long enough for exchange `seq`.
    pub(super) fn give_up(&self, seq: u64, waited: Duration) {
        self.lock().give_up(seq, waited);
        self.changed.notify_all();
    }
}

impl State {
    fn arrive(
        &mut self,
        rank: usize,
        seq: u64,
        collective: &str,
        given: Result<Part, Withheld>,
    ) -> Result<(), OutOfTurn> {
        let size = self.ranks.len();
        let gone = self.gone.failure();
        let exchange = self.exchanges.entry(seq).or_insert_with(|| Exchange {
            collective: collective.to_owned(),
            first: rank,
            parts: (0..size).map(|_| None).collect(),
            outcome: gone.map(Err),
            served: vec![false; size],
        });
        if exchange.has_come(rank) || exchange.served[rank] {
            return Err(OutOfTurn { seq });
        }
        // Whoever comes to an exchange that has failed gives it nothing.
        exchange.parts[rank] = Some(Part::default());
        if exchange.outcome.is_none() {
            if exchange.collective != collective {
                exchange.fail(Failure::Mismatch {
                    rank,
                    theirs: collective.to_owned(),
                    other_rank: exchange.first,
                    ours: exchange.collective.clone(),
                });
            } else {
                match given {
                    Ok(part) => exchange.parts[rank] = Some(part),
                    Err(why) => exchange.fail(Failure::NotGiven { rank, why }),
                }
                if exchange.outcome.is_none() && exchange.parts.iter().all(Option::is_some) {
                    let parts = exchange.parts.iter_mut().flatten().map(take).collect();
                    exchange.outcome = Some(Ok(Arc::new(parts)));
                }
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
            exchange.fail(Failure::Timeout {
                waited_ms: waited.as_millis() as u64,
                missing: missing.map(|(rank, _)| rank).collect(),
            });
            self.serve(seq);
        }
    }

    /// Fails all exchanges under way that `which` holds for.
    pub(super) fn fail_pending(&mut self, failure: &Failure, which: impl Fn(&Exchange) -> bool) {
        for exchange in self.exchanges.values_mut() {
            if exchange.outcome.is_none() && which(exchange) {
                exchange.fail(failure.clone());
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
        // One patience for all: while files cannot be passed the hub stands still.
        let until = Instant::now() + UNREAD;
        for (rank, slot) in self.ranks.iter().enumerate() {
            if exchange.served[rank] || exchange.parts[rank].is_none() {
                continue;
            }
            if let Link::Remote(connection) = &slot.link {
                let frame = frame.get_or_insert_with(|| outcome_frame(seq, outcome));
                match frame {
                    Ok(frame) => deliver(connection, rank, seq, outcome, frame, until),
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
    pub(super) fn forget(&mut self, seq: u64) {
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

/// Sends an outcome to `rank`, with the files of all others.
///
/// Where the system does not pass them the rank is told so instead. What cannot be sent closes the connection, whose
/// reader takes the rank for dead.
fn deliver(
    connection: &Connection,
    rank: usize,
    seq: u64,
    outcome: &Result<Gathered, Failure>,
    frame: &[u8],
    until: Instant,
) {
    let parts = outcome.as_deref().map_or(&[][..], Vec::as_slice);
    let others = parts.iter().enumerate().filter(|&(from, _)| from != rank);
    let files: Vec<BorrowedFd<'_>> = others
        .filter_map(|(_, part)| Some(part.file.as_ref()?.as_fd()))
        .collect();
    if let Err(SendError::Files(error)) = connection.send_frame_with_files(frame, &files, until) {
        let failure = Failure::NotReceived {
            rank,
            reason: format!("passing them from rank 0's process: {error}"),
        };
        let _ = connection.send(&FromHub::Failed { seq, failure }, &[]);
    }
}

fn outcome_frame(seq: u64, outcome: &Result<Gathered, Failure>) -> std::io::Result<Vec<u8>> {
    match outcome {
        Ok(parts) => {
            let lens = parts.iter().map(|part| part.bytes.len()).collect();
            let files = parts.iter().enumerate();
            let files = files.filter(|(_, part)| part.file.is_some());
            let message = FromHub::Gathered {
                seq,
                lens,
                files: files.map(|(rank, _)| rank).collect(),
            };
            let bytes: Vec<&[u8]> = parts.iter().map(|part| &part.bytes[..]).collect();
            encode(&message, &bytes.concat())
        }
        Err(failure) => {
            let failure = failure.clone();
            encode(&FromHub::Failed { seq, failure }, &[])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_RANKS;
    use crate::host::memory::{Memory, whole_pages};
    use crate::hub::client::Client;
    use crate::hub::server::Server;
    use std::thread;

    /// More files than the system passes with one byte go to the one rank that is not in the hub's process.
    #[test]
    fn the_largest_world_passes_all_its_files() {
        let timeout = Duration::from_secs(20);
        let name = format!("iris-largest-{}", std::process::id());
        let last = MAX_RANKS - 1;
        let hub = Arc::new(Hub::new(MAX_RANKS));
        (0..last).for_each(|rank| hub.join_local(rank, Arc::default()));
        let memory = Arc::new(Memory::create(MAX_RANKS, whole_pages(1).unwrap()).unwrap());
        let _server = Server::start(&name, &hub, &memory, timeout).unwrap();
        let (client, _) = Client::join(&name, last, MAX_RANKS, timeout, Arc::default()).unwrap();
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let files: [_; 2] =
            std::array::from_fn(|_| Arc::new(rustix::fs::memfd_create("largest", flags).unwrap()));
        let of = |rank: usize| &files[rank.count_ones() as usize % 2];
        let part = |rank: usize| Part {
            bytes: vec![rank as u8; rank % 3],
            file: Some(Arc::clone(of(rank))),
        };
        let inode = |file: &Arc<OwnedFd>| rustix::fs::fstat(file).unwrap().st_ino;
        thread::scope(|scope| {
            for rank in 0..last {
                let (hub, part) = (&hub, &part);
                scope.spawn(move || hub.exchange(rank, 0, "x", Ok(part(rank)), timeout).unwrap());
            }
            let gathered = client.exchange(0, "x", Ok(part(last)), timeout).unwrap();
            assert_eq!(gathered.len(), MAX_RANKS);
            for (rank, got) in gathered.iter().enumerate() {
                assert_eq!(got.bytes, part(rank).bytes);
                let file = got.file.as_ref().unwrap();
                assert_eq!(inode(file), inode(of(rank)), "rank {rank}");
                assert_eq!(Arc::ptr_eq(file, of(rank)), rank == last);
            }
        });
        client.leave();
    }
}
