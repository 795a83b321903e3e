//! A rank's end of its connection to the hub.

use super::deadline::Deadline;
use super::files::{Files, Received};
use super::frame::{Connection, Frame, SendError, TO_RANK, encode};
use super::handshake::attempt;
use super::inquiry::{JUDGED, alone};
use super::message::{Answer, Failure, FromHub, Given, ToHub, Withheld};
use super::server::{RETRY, UNREAD};
use super::watches::{Watches, inquire};
use super::{Gathered, Gone, Part};
use crate::WorldError;
use crate::fault::{Reason, Report, Verdict};
use crate::host::memory::Memory;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the hub is given, beyond what it takes itself, before it is held to be silent.
const GRACE: Duration = Duration::from_millis(200);
/// How long the hub is given to say who is missing from a collective.
const MISSING: Duration = Duration::from_secs(2);

/// A rank's end of its connection to the hub.
#[derive(Debug)]
pub(crate) struct Client {
    rank: usize,
    connection: Arc<Connection>,
    state: Mutex<State>,
    changed: Condvar,
    watches: Arc<Watches>,
}

#[derive(Debug, Default)]
struct State {
    /// The exchange that this rank is in: it takes part in one at a time.
    exchange: Option<u64>,
    /// Its outcome. The rank's own file is not among the files.
    outcome: Option<Result<Vec<Part>, Failure>>,
    /// The verdict on the latest fault of each operation, and its epoch.
    verdicts: HashMap<u64, (u64, Verdict)>,
    /// Who is gone, as the hub has told.
    gone: Gone,
    /// Rank 0 has said goodbye. Its process may serve as the hub for a while yet.
    hub_left: bool,
    /// The connection is gone: rank 0's process has ended.
    lost: bool,
    /// This rank has said goodbye, or is as good as dead.
    leaving: bool,
}

impl Client {
    /// Joins the world whose rank 0 listens at `name`, and maps its heap.
    pub(crate) fn join(
        name: &str,
        rank: usize,
        size: usize,
        timeout: Duration,
        watches: Arc<Watches>,
    ) -> Result<(Arc<Self>, Memory), WorldError> {
        let deadline = Deadline::after(timeout);
        let (connection, memory) = loop {
            let left = deadline.left();
            if let Some(joined) = attempt(name, rank, size, left)? {
                break joined;
            }
            if deadline.is_over() {
                return Err(WorldError::Timeout {
                    during: "rendezvous".into(),
                    waited: deadline.waited(),
                    missing: vec![0],
                });
            }
            thread::sleep(RETRY.min(left));
        };
        let client = Arc::new(Self {
            rank,
            connection: Arc::new(connection),
            state: Mutex::default(),
            changed: Condvar::new(),
            watches,
        });
        let listener = Arc::clone(&client);
        thread::Builder::new()
            .name(format!("iris-listener-{rank}"))
            .spawn(move || listener.listen())
            .map_err(WorldError::os("starting a rank's listener"))?;
        Ok((client, memory))
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

    /// Takes part in exchange `seq`, and waits for its outcome. `given` may be why the rank gives nothing: the exchange
    /// then fails for all.
    pub(crate) fn exchange(
        &self,
        seq: u64,
        collective: &str,
        given: Result<Part, Withheld>,
        timeout: Duration,
    ) -> Result<Gathered, Failure> {
        self.lock().exchange = Some(seq);
        let own = self.give(seq, collective, given);
        let outcome = self.outcome(seq, timeout);
        // What comes after this rank has given up is nobody's, and its files are closed.
        let mut state = self.lock();
        (state.exchange, state.outcome) = (None, None);
        drop(state);
        let mut parts = outcome?;
        if let Some(part) = parts.get_mut(self.rank) {
            part.file = own;
        }
        Ok(Arc::new(parts))
    }

    /// Sends what this rank gives to exchange `seq`; the file that it has given.
    fn give(
        &self,
        seq: u64,
        collective: &str,
        given: Result<Part, Withheld>,
    ) -> Option<Arc<OwnedFd>> {
        let message = |file| ToHub::Exchange {
            seq,
            collective: collective.to_owned(),
            file,
        };
        // What cannot be sent closes the connection, which the listener sees; but for a file that the system refuses.
        let why = match given {
            Ok(Part { bytes, file: None }) => {
                let _ = self.connection.send(&message(Given::Nothing), &bytes);
                return None;
            }
            Ok(Part {
                bytes,
                file: Some(file),
            }) => match self.give_file(&message(Given::File), &bytes, file.as_fd()) {
                Err(SendError::Files(error)) => Withheld::File {
                    reason: format!("passing it to rank 0's process: {error}"),
                },
                Ok(()) | Err(SendError::Closed(_)) => return Some(file),
            },
            Err(why) => why,
        };
        let _ = self.connection.send(&message(Given::Withheld(why)), &[]);
        None
    }

    fn give_file(
        &self,
        message: &ToHub,
        bytes: &[u8],
        file: BorrowedFd<'_>,
    ) -> Result<(), SendError> {
        let frame = encode(message, bytes)?;
        self.connection
            .send_frame_with_files(&frame, &[file], Instant::now() + UNREAD)
    }

    /// Waits for the outcome of exchange `seq`.
    fn outcome(&self, seq: u64, timeout: Duration) -> Result<Vec<Part>, Failure> {
        let whole = Deadline::after(timeout);
        let mut deadline = whole;
        let mut gave_up = false;
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.outcome.take() {
                return outcome;
            }
            if state.lost {
                let gone = state.gone.failure();
                return Err(gone.unwrap_or(Failure::Died { rank: 0 }));
            }
            if !deadline.is_over() {
                state = self.wait(state, deadline);
                continue;
            }
            let waited_ms = whole.waited().as_millis() as u64;
            if gave_up {
                // Not even the hub answers.
                let missing = vec![0];
                return Err(Failure::Timeout { waited_ms, missing });
            }
            // The hub knows who is missing, and tells all ranks the same.
            gave_up = true;
            deadline = Deadline::after(MISSING);
            drop(state);
            let _ = self.connection.send(&ToHub::GiveUp { seq, waited_ms }, &[]);
            state = self.lock();
        }
    }

    /// The verdict on the fault of operation `id` that this rank reports.
    pub(crate) fn verdict(&self, id: u64, epoch: u64, own: Report) -> Verdict {
        let deadline = Deadline::after(JUDGED + GRACE);
        let ask = ToHub::Ask {
            id,
            epoch,
            own: own.clone(),
        };
        let _ = self.connection.send(&ask, &[]);
        let mut state = self.lock();
        loop {
            if let Some((of, verdict)) = state.verdicts.get(&id)
                && *of >= epoch
            {
                return verdict.clone();
            }
            let (culprit, reason) = match state.gone {
                _ if !state.lost && !deadline.is_over() => {
                    state = self.wait(state, deadline);
                    continue;
                }
                Gone {
                    died: Some(rank), ..
                } => (rank, Reason::Died),
                _ if !state.lost => (0, Reason::NoAnswer),
                // Rank 0 left in good order, and with it the one who could have said more.
                _ if own.wait.is_some_and(|wait| wait.peer != 0) => return alone(own),
                _ => (0, Reason::Left),
            };
            return Verdict {
                culprit,
                reason,
                report: own,
            };
        }
    }

    /// Forgets the fault of operation `id`, here and at the hub.
    pub(crate) fn clear_verdict(&self, id: u64) {
        self.lock().verdicts.remove(&id);
        let _ = self.connection.send(&ToHub::Clear { id }, &[]);
    }

    /// Leaves in good order.
    pub(crate) fn leave(&self) {
        if !std::mem::replace(&mut self.lock().leaving, true) {
            let _ = self.connection.send(&ToHub::Goodbye, &[]);
            self.connection.close();
        }
    }

    /// Leaves without a goodbye: to the others this rank is dead.
    pub(crate) fn die(&self) {
        if !std::mem::replace(&mut self.lock().leaving, true) {
            self.connection.close();
            self.watches.abort_all(self.rank);
        }
    }

    /// Hears what the hub says until the connection ends.
    fn listen(&self) {
        while let Ok(frame) = self.connection.receive(TO_RANK) {
            if !self.hear(frame) {
                break;
            }
        }
        self.connection.close();
        let mut state = self.lock();
        state.lost = true;
        let died = !state.hub_left && !state.leaving;
        if !state.hub_left {
            state.gone.died.get_or_insert(0);
        }
        self.changed.notify_all();
        drop(state);
        if died {
            self.watches.abort_all(0);
        }
    }

    /// Whether to go on listening.
    fn hear(&self, frame: Frame<FromHub>) -> bool {
        let Frame {
            message,
            blob,
            files,
        } = frame;
        if let FromHub::Gathered {
            seq,
            lens,
            files: from,
        } = message
        {
            let outcome = gathered(self.rank, &blob, &lens, files, &from);
            return outcome.map(|outcome| self.heard(seq, outcome)).is_some();
        }
        if files.exactly(0).is_err() {
            return false;
        }
        match message {
            FromHub::Failed { seq, failure } => self.heard(seq, Err(failure)),
            FromHub::Died { rank } => {
                self.lock().gone.died.get_or_insert(rank);
                self.watches.abort_all(rank);
            }
            FromHub::Left { rank } => {
                let mut state = self.lock();
                state.gone.left.get_or_insert(rank);
                state.hub_left |= rank == 0;
            }
            FromHub::Inquire { inquiry, id, by } => self.inquired(inquiry, id, by),
            FromHub::Judged { id, epoch, verdict } => {
                self.lock().verdicts.insert(id, (epoch, verdict));
                self.changed.notify_all();
            }
            FromHub::Gathered { .. } | FromHub::Welcome { .. } | FromHub::Refused { .. } => {
                return false;
            }
        }
        true
    }

    /// Exchange `seq` has come to an outcome.
    fn heard(&self, seq: u64, outcome: Result<Vec<Part>, Failure>) {
        let mut state = self.lock();
        if state.exchange == Some(seq) {
            state.outcome = Some(outcome);
            self.changed.notify_all();
        }
    }

    /// Asks this rank's operation what it is doing, on a thread of its own: the listener must go on hearing of deaths.
    fn inquired(&self, inquiry: u64, id: u64, by: usize) {
        // Made here, where messages are heard in their order: a reset that comes later ends it.
        let rank = vec![(self.rank, self.watches.ticket(id))];
        let connection = Arc::clone(&self.connection);
        let _ = thread::Builder::new()
            .name("iris-inquiry".into())
            .spawn(move || {
                inquire(rank, by, |_, answer: Answer| {
                    let _ = connection.send(&ToHub::Answer { inquiry, answer }, &[]);
                });
            });
    }
}

/// What an exchange has given to `rank`: the parts that make up `blob`, and the files of the ranks `from`. `None` where
/// the lengths, the ranks or the files make no sense.
fn gathered(
    rank: usize,
    blob: &[u8],
    lens: &[usize],
    files: Files,
    from: &[usize],
) -> Option<Result<Vec<Part>, Failure>> {
    let mut parts = split(blob, lens)?;
    let ascending = from.windows(2).all(|pair| pair[0] < pair[1]);
    if !ascending || from.last().is_some_and(|&last| last >= parts.len()) {
        return None;
    }
    let others: Vec<usize> = from.iter().copied().filter(|&from| from != rank).collect();
    let received: Received = files.exactly(others.len()).ok()?;
    Some(match received {
        Ok(files) => {
            for (from, file) in others.into_iter().zip(files) {
                parts[from].file = Some(Arc::new(file));
            }
            Ok(parts)
        }
        Err(reason) => Err(Failure::NotReceived { rank, reason }),
    })
}

/// The parts of a blob; `None` where the lengths are not those of its parts.
fn split(mut blob: &[u8], lens: &[usize]) -> Option<Vec<Part>> {
    let mut parts = Vec::with_capacity(lens.len());
    for &len in lens {
        let (bytes, rest) = blob.split_at_checked(len)?;
        let bytes = bytes.to_vec();
        parts.push(Part { bytes, file: None });
        blob = rest;
    }
    blob.is_empty().then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_not_taken_apart() {
        let none = || Files::default();
        let parts = gathered(0, b"abc", &[1, 0, 2], none(), &[])
            .unwrap()
            .unwrap();
        let bytes: Vec<&[u8]> = parts.iter().map(|part| &part.bytes[..]).collect();
        assert_eq!(bytes, [&b"a"[..], b"", b"bc"]);
        // A file of the receiver's own does not come.
        assert!(gathered(2, b"", &[0; 3], none(), &[2]).unwrap().is_ok());
        let nonsense: [(&[usize], &[usize]); 6] = [
            (&[1, 1], &[]),
            (&[4], &[]),
            (&[usize::MAX, 4], &[]),
            (&[3, 0], &[1]),
            (&[3, 0], &[0, 0]),
            (&[3, 0], &[2]),
        ];
        for (lens, from) in nonsense {
            assert!(gathered(0, b"abc", lens, none(), from).is_none());
        }
    }
}
