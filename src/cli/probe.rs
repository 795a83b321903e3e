//! Trying what the ranks of a world need of the system.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Makes memory as the heap is made: anonymous, shared, of a size that nobody can change any more.
pub(crate) fn memfd() -> anyhow::Result<OwnedFd> {
    let memory = memfd_create(
        "iris-doctor",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )
    .context("memfd_create")?;
    ftruncate(&memory, 4096).context("ftruncate")?;
    fcntl_add_seals(
        &memory,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )
    .context("sealing")?;
    anyhow::ensure!(
        ftruncate(&memory, 0).is_err(),
        "sealed memory could be shrunk"
    );
    Ok(memory)
}

/// Passes a descriptor over a socket, and looks whether what arrives is the same file.
pub(crate) fn pass_descriptor() -> anyhow::Result<()> {
    let memory = memfd()?;
    let (here, there) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .context("socketpair")?;
    let files = [memory.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&files));
    rustix::net::sendmsg(
        &here,
        &[IoSlice::new(&[1])],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
    .context("sendmsg")?;
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(
        &there,
        &mut [IoSliceMut::new(&mut byte)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .context("recvmsg")?;
    let passed = ancillary
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        })
        .context("no descriptor arrived")?;
    let (sent, arrived) = (rustix::fs::fstat(&memory)?, rustix::fs::fstat(&passed)?);
    anyhow::ensure!(
        (sent.st_dev, sent.st_ino) == (arrived.st_dev, arrived.st_ino),
        "another file arrived than was sent"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_tries_works_here() {
        memfd().unwrap();
        pass_descriptor().unwrap();
    }
}
