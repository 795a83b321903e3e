//! Files that travel with a frame.
//!
//! The system passes files with a byte of the stream, at most [`GROUP`] with one, and whoever reads that byte gets them,
//! or loses them. Here they go with bytes of a frame's header, and only headers are read with room for files: what comes
//! with another byte the system closes again. Files that have been received are owned at once, so none is leaked
//! whatever is wrong with the frame.

use super::frame::HEADER;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

/// The most files that the system passes with one byte (Linux' `SCM_MAX_FD`).
pub(super) const GROUP: usize = 253;
/// The bytes that so many take beside the stream.
const SPACE: usize = rustix::cmsg_space!(ScmRights(GROUP));
/// Between two attempts to pass files while too many are under way.
const PAUSE: Duration = Duration::from_millis(1);

/// The files that came with a frame.
#[derive(Debug, Default)]
pub(crate) struct Files {
    files: Vec<OwnedFd>,
    /// The system withheld some that were sent.
    withheld: bool,
}

/// The other end sent other files than it said.
#[derive(Debug, thiserror::Error)]
#[error("{came} files came with a message that has {expected}")]
pub(crate) struct WrongFiles {
    expected: usize,
    came: usize,
}

/// The files of a frame, or why this process did not get all of them.
pub(crate) type Received = Result<Vec<OwnedFd>, String>;

impl Files {
    /// How many came.
    pub(super) fn came(&self) -> usize {
        self.files.len() + usize::from(self.withheld)
    }

    /// The `expected` files that the frame's message tells of.
    pub(crate) fn exactly(self, expected: usize) -> Result<Received, WrongFiles> {
        let got = self.files.len();
        match got.cmp(&expected) {
            std::cmp::Ordering::Less if self.withheld => Ok(Err(format!(
                "the system let this process have {got} of {expected} files, and {} may be open in it",
                limit()
            ))),
            std::cmp::Ordering::Equal if !self.withheld => Ok(Ok(self.files)),
            _ => Err(WrongFiles {
                expected,
                came: self.came(),
            }),
        }
    }
}

/// The most files that may be open in this process, in words.
fn limit() -> String {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or("any number".into(), |limit| format!("{limit} at most"))
}

/// Reads a frame's header, and the files that come with it, of which up to `most` are waited for. The header is shorter
/// at the end of the stream.
pub(super) fn read_header(
    stream: &UnixStream,
    header: &mut [u8; HEADER],
    most: usize,
) -> Result<(usize, Files), Errno> {
    let mut files = Files::default();
    let mut filled = 0;
    while filled < HEADER {
        // Room for as many as can come at once, so that what is withheld is only what this process may not have.
        let mut space = [MaybeUninit::uninit(); SPACE];
        let room = if most > 0 { SPACE } else { 0 };
        let mut ancillary = RecvAncillaryBuffer::new(&mut space[..room]);
        let got = match rustix::net::recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut header[filled..])],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(got) => got,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                files.files.extend(more);
            }
        }
        files.withheld |= got.flags.contains(ReturnFlags::CTRUNC);
        filled += got.bytes;
        if got.bytes == 0 || files.came() > most {
            break;
        }
    }
    Ok((filled, files))
}

/// Writes some of `bytes`, at least one, and passes `files` with the first; how many bytes were written.
///
/// The system lets a user have so many files under way and no more: it is asked again until `until`, since those that
/// are read from their sockets no longer count.
pub(super) fn write_some(
    stream: &UnixStream,
    bytes: &[u8],
    files: &[BorrowedFd<'_>],
    until: Instant,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(Errno::INVAL); // more than a group, as the system would say
    }
    loop {
        let bytes = [IoSlice::new(bytes)];
        match rustix::net::sendmsg(stream, &bytes, &mut ancillary, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(Errno::TOOMANYREFS) if Instant::now() < until => thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}
