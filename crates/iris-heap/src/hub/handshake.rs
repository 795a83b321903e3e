//! How a rank of another process asks to be let in.

use super::frame::{Connection, Frame, FrameError, WELCOME};
use super::message::{FromHub, MAGIC, ToHub, VERSION};
use super::server::{RETRY, UNREAD, peer_user};
use crate::WorldError;
use crate::host::memory::Memory;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

/// Tries to join once; `None` where it is worth trying again.
pub(super) fn attempt(
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
    match connection.receive(WELCOME) {
        Ok(frame) => {
            let (heap_bytes, file) = welcomed(rank, frame)?;
            let memory = Memory::open(file, size, heap_bytes)?;
            connection
                .stream()
                .set_read_timeout(None)
                .map_err(WorldError::os("setting up the connection to rank 0"))?;
            Ok(Some((connection, memory)))
        }
        // It ended just now, or has not begun: its successor may come.
        Err(FrameError::Closed | FrameError::Truncated | FrameError::Io(_)) => Ok(None),
        Err(error) => Err(WorldError::Protocol {
            detail: error.to_string(),
        }),
    }
}

/// The size and the file of the heap, if that is what rank 0 has answered.
fn welcomed(rank: usize, frame: Frame<FromHub>) -> Result<(usize, OwnedFd), WorldError> {
    let heap_bytes = match frame.message {
        FromHub::Welcome { heap_bytes } => heap_bytes,
        FromHub::Refused { reason } => return Err(WorldError::Refused { reason }),
        other => {
            return Err(WorldError::Protocol {
                detail: format!("its answer to the handshake is {other:?}"),
            });
        }
    };
    let wrong = |error: String| WorldError::Protocol { detail: error };
    let received = frame
        .files
        .exactly(1)
        .map_err(|error| wrong(error.to_string()))?;
    let during = "rendezvous".to_owned();
    let received = received.map_err(|reason| WorldError::FilesNotReceived {
        rank,
        during,
        reason,
    })?;
    let file = received.into_iter().next();
    let file = file.ok_or_else(|| wrong("the heap's memory did not come".into()))?;
    Ok((heap_bytes, file))
}
