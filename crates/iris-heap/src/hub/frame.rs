//! Frames: how messages travel over a stream socket.
//!
//! A frame is two little-endian `u32` lengths, of a JSON message and of the bytes that go with it, then both. The lengths
//! are checked against limits before anything is allocated, and what is allocated grows with what arrives.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

const HEADER: usize = 8;

/// The most bytes of a message and of its blob.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) message: usize,
    pub(crate) blob: usize,
}

/// Before the other end is known to be a rank.
pub(crate) const HANDSHAKE: Limits = Limits {
    message: 4096,
    blob: 0,
};
/// Between ranks: 256 payloads of the largest size, and the longest report.
pub(crate) const MEMBERS: Limits = Limits {
    message: 1 << 20,
    blob: super::message::MAX_PAYLOAD * crate::MAX_RANKS,
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
    #[error("not a message: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
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

    /// Writes a frame, and passes a file with it.
    pub(crate) fn send_with_file<M: Serialize>(
        &self,
        message: &M,
        file: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let frame = encode(message, &[])?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let files = [file];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&files));
        let sent = rustix::net::sendmsg(
            &self.stream,
            &[IoSlice::new(&frame)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        self.write_all(&frame[sent..]).inspect_err(|_| self.close())
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
    ) -> Result<(M, Vec<u8>), FrameError> {
        decode(&mut &self.stream, limits)
    }

    /// Reads a frame without a blob, and the file that comes with it, if one does.
    pub(crate) fn receive_with_file<M: DeserializeOwned>(
        &self,
        limits: Limits,
    ) -> Result<(M, Option<OwnedFd>), FrameError> {
        // Ancillary data comes with the first byte of the frame that it was sent with.
        let mut first = [0u8; HEADER];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            match rustix::net::recvmsg(
                self.stream.as_fd(),
                &mut [IoSliceMut::new(&mut first)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Ok(got) => break got.bytes,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(FrameError::Io(error.into())),
            }
        };
        let mut file = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                file = file.or(files.into_iter().next());
            }
        }
        let (message, _) = decode(&mut (&first[..got]).chain(&self.stream), limits)?;
        Ok((message, file))
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
    use std::os::fd::AsFd;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let message = FromHub::Gathered {
            seq: 3,
            lens: vec![1, 2],
        };
        let frame = encode(&message, b"abc").unwrap();
        let (read, blob): (FromHub, _) = decode(&mut &frame[..], MEMBERS).unwrap();
        assert_eq!((read, &blob[..]), (message, &b"abc"[..]));
    }

    #[test]
    fn a_file_comes_with_its_frame() {
        let (a, b) = UnixStream::pair().unwrap();
        let (a, b) = (Connection::new(a), Connection::new(b));
        let welcome = FromHub::Welcome { heap_bytes: 4096 };
        a.send_with_file(&welcome, std::io::stdin().as_fd())
            .unwrap();
        a.send(&FromHub::Left { rank: 1 }, &[]).unwrap();
        let (message, file) = b.receive_with_file::<FromHub>(HANDSHAKE).unwrap();
        assert_eq!(message, welcome);
        assert!(file.is_some());
        let (message, file) = b.receive_with_file::<FromHub>(HANDSHAKE).unwrap();
        assert_eq!(message, FromHub::Left { rank: 1 });
        assert!(file.is_none());
    }

    #[test]
    fn a_huge_length_is_refused_before_anything_is_read() {
        let frame = [0xff; 8];
        let error = decode::<FromHub>(&mut &frame[..], MEMBERS).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }), "{error}");
    }

    proptest! {
        /// Whatever comes in, decoding ends, and every proper prefix of a frame is an error.
        #[test]
        fn garbage_and_truncation_are_errors(bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 0usize..100) {
            prop_assert!(decode::<FromHub>(&mut &bytes[..], HANDSHAKE).is_err());
            let frame = encode(&FromHub::Died { rank: 1 }, b"blob").unwrap();
            let cut = cut % frame.len();
            prop_assert!(decode::<FromHub>(&mut &frame[..cut], MEMBERS).is_err());
        }
    }
}
