//! Frames: how messages travel over a stream socket.
//!
//! A frame is two little-endian `u32` lengths, of a JSON message and of the bytes that go with it, then both; and files,
//! which go with bytes of the lengths. The lengths are checked against limits before anything is allocated, and what is
//! allocated grows with what arrives.

use super::files::{Files, GROUP, read_header, write_some};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::net::SendFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The bytes of the two lengths.
pub(super) const HEADER: usize = 8;

/// The most bytes of a message and of its blob, and the most files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) message: usize,
    pub(crate) blob: usize,
    pub(crate) files: usize,
}

/// To the hub, from who is not yet known to be a rank.
pub(crate) const HANDSHAKE: Limits = Limits {
    message: 4096,
    blob: 0,
    files: 0,
};
/// To a rank that is not yet let in: the heap may come with it.
pub(crate) const WELCOME: Limits = Limits {
    files: 1,
    ..HANDSHAKE
};
/// From a rank to the hub: one payload, one file, and the longest report.
pub(crate) const TO_HUB: Limits = Limits {
    message: 1 << 20,
    blob: super::message::MAX_PAYLOAD,
    files: 1,
};
/// From the hub to a rank: payloads and files of all ranks, and the longest report.
pub(crate) const TO_RANK: Limits = Limits {
    message: 1 << 20,
    blob: super::message::MAX_PAYLOAD * crate::MAX_RANKS,
    files: crate::MAX_RANKS,
};

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the connection was closed")]
    Closed,
    #[error("the connection was closed within a frame")]
    Truncated,
    #[error("a frame of {message} + {blob} bytes is larger than {} + {} may be", .limits.message, .limits.blob)]
    TooLarge {
        message: usize,
        blob: usize,
        limits: Limits,
    },
    #[error("{files} files came with a frame that may have {}", .limits.files)]
    TooManyFiles { files: usize, limits: Limits },
    #[error("not a message: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a frame was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The system does not pass its files. Nothing has gone out, and other frames can be written.
    #[error("the system does not pass the files: {0}")]
    Files(io::Error),
    /// Half of it may have gone out, so the connection is closed.
    #[error(transparent)]
    Closed(#[from] io::Error),
}

/// A frame that was read.
#[derive(Debug)]
pub(crate) struct Frame<M> {
    pub(crate) message: M,
    pub(crate) blob: Vec<u8>,
    pub(crate) files: Files,
}

/// One end of a connection. Frames are written whole, by one thread at a time; only one thread reads.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    writing: Mutex<()>,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            writing: Mutex::new(()),
        }
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Closes both directions: the other end, and this end's reader, see the end of the stream.
    pub(crate) fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Writes a frame. Where that fails the connection is closed, since half a frame may have gone out.
    pub(crate) fn send<M: Serialize>(&self, message: &M, blob: &[u8]) -> io::Result<()> {
        self.send_frame(&encode(message, blob)?)
    }

    /// Writes a frame that has been [`encode`]d.
    pub(crate) fn send_frame(&self, frame: &[u8]) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.write_all(frame).inspect_err(|_| self.close())
    }

    /// Writes a frame that has been [`encode`]d, and passes `files` with it. Until `until` it is tried again where too
    /// many files are under way.
    pub(crate) fn send_frame_with_files(
        &self,
        frame: &[u8],
        files: &[BorrowedFd<'_>],
        until: Instant,
    ) -> Result<(), SendError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sent = 0;
        let mut groups = files.chunks(GROUP).peekable();
        while let Some(group) = groups.next() {
            // A byte of the header for each group, and the rest of the frame with the last.
            let end = match groups.peek() {
                Some(_) => sent + 1,
                None => frame.len(),
            };
            match write_some(&self.stream, &frame[sent..end], group, until) {
                Ok(some) => sent += some,
                // A timeout is the other end's doing, and not the files'.
                Err(error) if sent == 0 && error != Errno::AGAIN => {
                    return Err(SendError::Files(error.into()));
                }
                Err(error) => {
                    self.close();
                    return Err(SendError::Closed(error.into()));
                }
            }
        }
        self.write_all(&frame[sent..])
            .inspect_err(|_| self.close())?;
        Ok(())
    }

    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::net::send(&self.stream, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads a frame.
    pub(crate) fn receive<M: DeserializeOwned>(
        &self,
        limits: Limits,
    ) -> Result<Frame<M>, FrameError> {
        let mut header = [0; HEADER];
        let (got, files) =
            read_header(&self.stream, &mut header, limits.files).map_err(io::Error::from)?;
        if files.came() > limits.files {
            let files = files.came();
            return Err(FrameError::TooManyFiles { files, limits });
        }
        let (message, blob) = decode(&mut (&header[..got]).chain(&self.stream), limits)?;
        Ok(Frame {
            message,
            blob,
            files,
        })
    }
}

/// A frame's bytes.
pub(crate) fn encode<M: Serialize>(message: &M, blob: &[u8]) -> io::Result<Vec<u8>> {
    let too_large = |_| io::Error::new(io::ErrorKind::InvalidInput, "a frame beyond 4 GiB");
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, message)?;
    let message = u32::try_from(frame.len() - HEADER).map_err(too_large)?;
    let blob_len = u32::try_from(blob.len()).map_err(too_large)?;
    frame[..4].copy_from_slice(&message.to_le_bytes());
    frame[4..HEADER].copy_from_slice(&blob_len.to_le_bytes());
    frame.extend_from_slice(blob);
    Ok(frame)
}

/// Reads a frame's bytes.
pub(crate) fn decode<M: DeserializeOwned>(
    from: &mut impl Read,
    limits: Limits,
) -> Result<(M, Vec<u8>), FrameError> {
    let header = read(from, HEADER)?;
    if header.is_empty() {
        return Err(FrameError::Closed);
    }
    let length = |at: usize| -> Result<usize, FrameError> {
        let bytes = header.get(at..at + 4).ok_or(FrameError::Truncated)?;
        let bytes = <[u8; 4]>::try_from(bytes).map_err(|_| FrameError::Truncated)?;
        Ok(u32::from_le_bytes(bytes) as usize)
    };
    let (message, blob) = (length(0)?, length(4)?);
    if message > limits.message || blob > limits.blob {
        return Err(FrameError::TooLarge {
            message,
            blob,
            limits,
        });
    }
    let json = read(from, message)?;
    let bytes = read(from, blob)?;
    if json.len() < message || bytes.len() < blob {
        return Err(FrameError::Truncated);
    }
    Ok((serde_json::from_slice(&json)?, bytes))
}

/// Up to `len` bytes: fewer at the end of the stream.
fn read(from: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::message::FromHub;
    use proptest::prelude::*;
    use rustix::fd::AsFd;
    use std::io::PipeReader;
    use std::time::Duration;

    fn pair() -> (Connection, Connection) {
        let (a, b) = UnixStream::pair().unwrap();
        (Connection::new(a), Connection::new(b))
    }

    fn left(rank: usize) -> Vec<u8> {
        encode(&FromHub::Left { rank }, b"blob").unwrap()
    }

    fn send(to: &Connection, frame: &[u8], files: &[BorrowedFd<'_>]) -> Result<(), SendError> {
        to.send_frame_with_files(frame, files, Instant::now() + Duration::from_secs(5))
    }

    /// Passes the writing end of a pipe `count` times; the reading end tells when all are closed.
    fn send_pipe(to: &Connection, frame: &[u8], count: usize) -> PipeReader {
        let (reader, writer) = std::io::pipe().unwrap();
        send(to, frame, &vec![writer.as_fd(); count]).unwrap();
        reader
    }

    fn inode(file: impl AsFd) -> u64 {
        rustix::fs::fstat(file).unwrap().st_ino
    }

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let message = FromHub::Gathered {
            seq: 3,
            lens: vec![1, 2],
            files: vec![1],
        };
        let frame = encode(&message, b"abc").unwrap();
        let (read, blob): (FromHub, _) = decode(&mut &frame[..], TO_RANK).unwrap();
        assert_eq!((read, &blob[..]), (message, &b"abc"[..]));
    }

    #[test]
    fn files_come_with_their_frame_and_in_order() {
        let (a, b) = pair();
        let pipes = [std::io::pipe().unwrap(), std::io::pipe().unwrap()];
        let files = pipes.each_ref().map(|(_, writer)| writer.as_fd());
        let order = |count| (0..count).map(|at: usize| files[at.count_ones() as usize % 2]);
        // 253 go with one byte; the largest world passes 255. The frames lie in the socket together.
        let counts = [0, 1, 0, 0, GROUP, 2, GROUP + 1, 255, 0, 3];
        for (rank, &count) in counts.iter().enumerate() {
            send(&a, &left(rank), &order(count).collect::<Vec<_>>()).unwrap();
        }
        for (rank, &count) in counts.iter().enumerate() {
            let frame = b.receive::<FromHub>(TO_RANK).unwrap();
            assert_eq!(frame.message, FromHub::Left { rank });
            assert_eq!(frame.blob, b"blob");
            let got = frame.files.exactly(count).unwrap().unwrap();
            for (got, sent) in got.iter().zip(order(count)) {
                assert_eq!(inode(got), inode(sent));
                let flags = rustix::io::fcntl_getfd(got).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            }
        }
    }

    #[test]
    fn files_that_should_not_be_are_an_error_and_are_closed() {
        let without_blob = encode(&FromHub::Left { rank: 1 }, &[]).unwrap();
        for (limits, count) in [(HANDSHAKE, 1), (TO_HUB, 2), (TO_HUB, GROUP), (TO_RANK, 510)] {
            let (a, b) = pair();
            let mut reader = send_pipe(&a, &without_blob, count);
            let error = b.receive::<FromHub>(limits).unwrap_err();
            assert!(matches!(error, FrameError::TooManyFiles { .. }), "{error}");
            drop((a, b)); // and with it those that have not been read
            assert_eq!(reader.read(&mut [0]).unwrap(), 0, "all are closed");
        }
        let (a, b) = pair();
        let mut reader = send_pipe(&a, &left(1), 2);
        let files = b.receive::<FromHub>(TO_RANK).unwrap().files;
        let error = files.exactly(1).unwrap_err();
        assert_eq!(error.to_string(), "2 files came with a message that has 1");
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    /// Files that come with a byte behind the header are nobody's.
    #[test]
    fn files_within_a_frame_are_closed() {
        let (a, b) = pair();
        let frame = left(1);
        a.write_all(&frame[..HEADER + 3]).unwrap();
        let mut reader = send_pipe(&a, &frame[HEADER + 3..], 1);
        let read = b.receive::<FromHub>(TO_RANK).unwrap();
        assert_eq!(read.message, FromHub::Left { rank: 1 });
        read.files.exactly(0).unwrap().unwrap();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_header_may_come_in_pieces() {
        let (a, b) = pair();
        let frame = left(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for byte in &frame {
                    a.write_all(&[*byte]).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let read = b.receive::<FromHub>(TO_RANK).unwrap();
            assert_eq!(read.message, FromHub::Left { rank: 1 });
        });
        a.write_all(&frame[..5]).unwrap();
        drop(a);
        let error = b.receive::<FromHub>(TO_RANK).unwrap_err();
        assert!(matches!(error, FrameError::Truncated), "{error}");
        let error = b.receive::<FromHub>(TO_RANK).unwrap_err();
        assert!(matches!(error, FrameError::Closed), "{error}");
    }

    #[test]
    fn a_huge_length_is_refused_before_anything_is_read() {
        let frame = [0xff; 8];
        let error = decode::<FromHub>(&mut &frame[..], TO_RANK).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
    }

    proptest! {
        /// Whatever comes in, decoding ends, and every proper prefix of a frame is an error.
        #[test]
        fn garbage_and_truncation_are_errors(bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 0usize..100) {
            prop_assert!(decode::<FromHub>(&mut &bytes[..], HANDSHAKE).is_err());
            let frame = encode(&FromHub::Died { rank: 1 }, b"blob").unwrap();
            let cut = cut % frame.len();
            prop_assert!(decode::<FromHub>(&mut &frame[..cut], TO_RANK).is_err());
        }
    }
}
