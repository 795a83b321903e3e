//! A rank's end of its connection to the hub.

use super::frame::{Connection, FrameError, HANDSHAKE, MEMBERS};
use super::inquiry::{JUDGED, alone};
use super::message::{Answer, Failure, FromHub, MAGIC, ToHub, VERSION};
use super::server::{RETRY, UNREAD, peer_user};
use super::watches::{Watches, inquire};
use super::{Gathered, Gone};
use crate::WorldError;
use crate::fault::{Reason, Report, Verdict};
use crate::host::memory::Memory;
use std::collections::HashMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
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
    /// Outcomes of collectives that nobody has fetched yet.
    outcomes: HashMap<u64, Result<Gathered, Failure>>,
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
        let begun = Instant::now();
        let (connection, memory) = loop {
            let left = timeout.saturating_sub(begun.elapsed());
            if let Some(joined) = attempt(name, rank, size, left)? {
                break joined;
            }
            if begun.elapsed() >= timeout {
                return Err(WorldError::Timeout {
                    during: "rendezvous".into(),
                    waited: begun.elapsed(),
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

    fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Instant) -> MutexGuard<'a, State> {
        let left = until.saturating_duration_since(Instant::now());
        self.changed
            .wait_timeout(state, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Takes part in exchange `seq`, and waits for its outcome.
    pub(crate) fn exchange(
        &self,
        seq: u64,
        collective: &str,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Gathered, Failure> {
        let begun = Instant::now();
        let message = ToHub::Exchange {
            seq,
            collective: collective.to_owned(),
        };
        // What cannot be sent closes the connection, which the listener sees.
        let _ = self.connection.send(&message, payload);
        let mut deadline = begun + timeout;
        let mut gave_up = false;
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.outcomes.remove(&seq) {
                return outcome;
            }
            if state.lost {
                let gone = state.gone.failure();
                return Err(gone.unwrap_or(Failure::Died { rank: 0 }));
            }
            if Instant::now() < deadline {
                state = self.wait(state, deadline);
                continue;
            }
            let waited_ms = begun.elapsed().as_millis() as u64;
            if gave_up {
                // Not even the hub answers.
                let missing = vec![0];
                return Err(Failure::Timeout { waited_ms, missing });
            }
            // The hub knows who is missing, and tells all ranks the same.
            gave_up = true;
            deadline = Instant::now() + MISSING;
            drop(state);
            let _ = self.connection.send(&ToHub::GiveUp { seq, waited_ms }, &[]);
            state = self.lock();
        }
    }

    /// The verdict on the fault of operation `id` that this rank reports.
    pub(crate) fn verdict(&self, id: u64, epoch: u64, own: Report) -> Verdict {
        let deadline = Instant::now() + JUDGED + GRACE;
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
                _ if !state.lost && Instant::now() < deadline => {
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
        while let Ok((message, blob)) = self.connection.receive(MEMBERS) {
            if !self.hear(message, &blob) {
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
    fn hear(&self, message: FromHub, blob: &[u8]) -> bool {
        match message {
            FromHub::Gathered { seq, lens } => {
                let Some(parts) = split(blob, &lens) else {
                    return false;
                };
                self.lock().outcomes.insert(seq, Ok(Arc::new(parts)));
                self.changed.notify_all();
            }
            FromHub::Failed { seq, failure } => {
                self.lock().outcomes.insert(seq, Err(failure));
                self.changed.notify_all();
            }
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
            FromHub::Welcome { .. } | FromHub::Refused { .. } => return false,
        }
        true
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

/// Tries to join once; `None` where it is worth trying again.
fn attempt(
    name: &str,
    rank: usize,
    size: usize,
    left: Duration,
) -> Result<Option<(Connection, Memory)>, WorldError> {
    let address = SocketAddr::from_abstract_name(name)
        .map_err(WorldError::os("naming the rendezvous' socket"))?;
    let Ok(stream) = UnixStream::connect_addr(&address) else {
        return Ok(None); // rank 0 does not listen yet
    };
    let theirs = peer_user(&stream).map_err(WorldError::os("asking who rank 0 belongs to"))?;
    let ours = rustix::process::geteuid().as_raw();
    if theirs != ours {
        return Err(WorldError::OtherUser { theirs, ours });
    }
    stream
        .set_read_timeout(Some(left.max(RETRY)))
        .and_then(|()| stream.set_write_timeout(Some(UNREAD)))
        .map_err(WorldError::os("setting up the connection to rank 0"))?;
    let connection = Connection::new(stream);
    let hello = ToHub::Hello {
        magic: MAGIC.to_owned(),
        version: VERSION,
        size,
        rank,
    };
    let _ = connection.send(&hello, &[]); // whatever went wrong, the answer tells
    match connection.receive_with_file(HANDSHAKE) {
        Ok((FromHub::Welcome { heap_bytes }, Some(file))) => {
            let memory = Memory::open(file, size, heap_bytes)?;
            connection
                .stream()
                .set_read_timeout(None)
                .map_err(WorldError::os("setting up the connection to rank 0"))?;
            Ok(Some((connection, memory)))
        }
        Ok((FromHub::Refused { reason }, _)) => Err(WorldError::Refused { reason }),
        Ok((other, _)) => Err(WorldError::Protocol {
            detail: format!("its answer to the handshake is {other:?}"),
        }),
        // It ended just now, or has not begun: its successor may come.
        Err(FrameError::Closed | FrameError::Truncated | FrameError::Io(_)) => Ok(None),
        Err(error) => Err(WorldError::Protocol {
            detail: error.to_string(),
        }),
    }
}

/// The parts of a blob; `None` where the lengths are not those of its parts.
fn split(mut blob: &[u8], lens: &[usize]) -> Option<Vec<Vec<u8>>> {
    let mut parts = Vec::with_capacity(lens.len());
    for &len in lens {
        let (part, rest) = blob.split_at_checked(len)?;
        parts.push(part.to_vec());
        blob = rest;
    }
    blob.is_empty().then_some(parts)
}
