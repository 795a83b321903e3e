//! The hub's door: where the processes of the other ranks come in.

use super::deadline::Deadline;
use super::frame::{Connection, Frame, HANDSHAKE, TO_HUB, encode};
use super::message::{FromHub, Given, MAGIC, ToHub, VERSION, Withheld};
use super::{Hub, Link, Part, Slot, Status};
use crate::WorldError;
use crate::host::memory::Memory;
use std::io;
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a process that connects is given to say who it is.
const HELLO: Duration = Duration::from_secs(5);
/// How long a rank's process may leave its end unread before it is taken for dead. Its listener always reads, and small
/// messages to a process that is stopped fit the socket's buffer.
pub(super) const UNREAD: Duration = Duration::from_secs(5);
/// Between two attempts at something that another process stands in the way of.
pub(super) const RETRY: Duration = Duration::from_millis(20);

/// Listens for the other ranks until it is dropped.
///
/// The socket's name is in the abstract namespace: it belongs to no file system, and is gone with the process.
#[derive(Debug)]
pub(crate) struct Server {
    listener: Arc<UnixListener>,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `name` for the other ranks of `hub`, and passes `memory` to them.
    pub(crate) fn start(
        name: &str,
        hub: &Arc<Hub>,
        memory: &Arc<Memory>,
        timeout: Duration,
    ) -> Result<Self, WorldError> {
        let listener = Arc::new(bind(name, timeout)?);
        let stopping = Arc::new(AtomicBool::new(false));
        let acceptor = {
            let (hub, memory) = (Arc::clone(hub), Arc::clone(memory));
            let (listener, stopping) = (Arc::clone(&listener), Arc::clone(&stopping));
            thread::Builder::new()
                .name("iris-rendezvous".into())
                .spawn(move || accept(&listener, &stopping, &hub, &memory))
                .map_err(WorldError::os("starting the rendezvous' thread"))?
        };
        Ok(Self {
            listener,
            stopping,
            acceptor: Some(acceptor),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // On Linux this wakes the thread that accepts, and nobody can connect any more.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn bind(name: &str, timeout: Duration) -> Result<UnixListener, WorldError> {
    let address = SocketAddr::from_abstract_name(name)
        .map_err(WorldError::os("naming the rendezvous' socket"))?;
    let deadline = Deadline::after(timeout);
    loop {
        match UnixListener::bind_addr(&address) {
            Ok(listener) => return Ok(listener),
            // Another world of the name is ending: the ranks of a job that is started again, say.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && !deadline.is_over() => {
                thread::sleep(RETRY);
            }
            Err(error) => return Err(WorldError::os("listening for the other ranks")(error)),
        }
    }
}

fn accept(listener: &UnixListener, stopping: &AtomicBool, hub: &Arc<Hub>, memory: &Arc<Memory>) {
    loop {
        let accepted = listener.accept();
        if stopping.load(Ordering::Acquire) {
            return;
        }
        match accepted {
            Ok((stream, _)) => {
                let (hub, memory) = (Arc::clone(hub), Arc::clone(memory));
                // A thread each: one that connects and says nothing keeps nobody else waiting. Where there can be no
                // thread the stream is closed, and the rank tries again.
                let _ = thread::Builder::new()
                    .name("iris-peer".into())
                    .spawn(move || serve(&hub, memory, stream));
            }
            // Out of descriptors, say, or the other end is gone already.
            Err(_) => thread::sleep(RETRY),
        }
    }
}

/// Lets a process in, if it is a rank of this world, and does what it asks for until it is gone.
fn serve(hub: &Arc<Hub>, memory: Arc<Memory>, stream: UnixStream) {
    let connection = Arc::new(Connection::new(stream));
    let admitted = admit(hub, &memory, &connection);
    drop(memory); // the heap is not kept mapped for as long as a connection lasts
    match admitted {
        Ok(rank) => {
            let _ = connection.stream().set_read_timeout(None);
            if listen(hub, &connection, rank) {
                hub.left(rank);
            } else {
                hub.died(rank);
            }
        }
        Err(reason) => {
            let _ = connection.send(&FromHub::Refused { reason }, &[]);
            // What else it sent would turn the closing into a reset, which might overtake the reason.
            let _ = connection.stream().shutdown(Shutdown::Write);
        }
    }
    connection.close();
}

/// The rank that has come in, or why it may not.
fn admit(hub: &Hub, memory: &Memory, connection: &Arc<Connection>) -> Result<usize, String> {
    let stream = connection.stream();
    let timeouts = stream
        .set_read_timeout(Some(HELLO))
        .and_then(|()| stream.set_write_timeout(Some(UNREAD)));
    timeouts.map_err(|error| error.to_string())?;
    let theirs = peer_user(stream).map_err(|error| error.to_string())?;
    let ours = rustix::process::geteuid().as_raw();
    if theirs != ours {
        return Err(format!(
            "this world belongs to user {ours}, and the process that wants to join to user {theirs}"
        ));
    }
    let hello = connection.receive::<ToHub>(HANDSHAKE);
    let hello = hello.map_err(|error| format!("no handshake: {error}"))?;
    let ToHub::Hello {
        magic,
        version,
        size,
        rank,
    } = hello.message
    else {
        return Err("the first message is no handshake".into());
    };
    if magic != MAGIC || version != VERSION {
        return Err(format!(
            "it speaks {magic:?} version {version}, and rank 0 speaks {MAGIC:?} version {VERSION}"
        ));
    }
    let mut state = hub.lock();
    let ours = state.ranks.len();
    if size != ours {
        return Err(format!(
            "rank {rank} was started for a world of {size} ranks, and rank 0 for one of {ours}"
        ));
    }
    let Some(slot) = state.ranks.get_mut(rank) else {
        return Err(format!("rank {rank} does not exist in a world of {ours}"));
    };
    if slot.status != Status::Absent {
        return Err(format!("rank {rank} has joined already"));
    }
    // Under the hub's lock, so that nothing is sent to the rank before this.
    let heap_bytes = memory.heap_bytes();
    let welcome = encode(&FromHub::Welcome { heap_bytes }, &[]);
    let welcome = welcome.map_err(|error| error.to_string())?;
    connection
        .send_frame_with_files(&welcome, &[memory.file()], Instant::now() + UNREAD)
        .map_err(|error| error.to_string())?;
    *slot = Slot {
        status: Status::Alive,
        link: Link::Remote(Arc::clone(connection)),
    };
    Ok(rank)
}

/// Does what a rank asks for until its connection ends; whether it said goodbye before.
fn listen(hub: &Arc<Hub>, connection: &Connection, rank: usize) -> bool {
    loop {
        let Ok(frame) = connection.receive(TO_HUB) else {
            return false;
        };
        let Frame {
            message,
            blob,
            files,
        } = frame;
        let gives = matches!(
            message,
            ToHub::Exchange {
                file: Given::File,
                ..
            }
        );
        let Ok(files) = files.exactly(usize::from(gives)) else {
            return false;
        };
        match message {
            ToHub::Exchange {
                seq,
                collective,
                file,
            } => {
                let given = match (file, files) {
                    (Given::Withheld(why), _) => Err(why),
                    (_, Err(reason)) => Err(Withheld::File {
                        reason: format!("rank 0's process did not get it: {reason}"),
                    }),
                    (Given::Nothing | Given::File, Ok(mut files)) => Ok(Part {
                        bytes: blob,
                        file: files.pop().map(Arc::new),
                    }),
                };
                if hub.exchange_remote(rank, seq, &collective, given).is_err() {
                    return false;
                }
            }
            ToHub::GiveUp { seq, waited_ms } => hub.give_up(seq, Duration::from_millis(waited_ms)),
            ToHub::Ask { id, epoch, own } => hub.verdict_remote(rank, id, epoch, own),
            ToHub::Answer { inquiry, answer } => hub.answer(rank, inquiry, answer),
            ToHub::Clear { id } => hub.clear_verdict(id),
            ToHub::Goodbye => return true,
            ToHub::Hello { .. } => return false,
        }
    }
}

/// The user at the other end of a connection, as the system vouches for.
pub(super) fn peer_user(stream: &UnixStream) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw())
}
