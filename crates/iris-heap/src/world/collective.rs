//! Collectives on the host, for set-up: each is one exchange.

use super::{Port, World};
use crate::backend::Backend;
use crate::error::WorldError;
use crate::hub::message::{MAX_PAYLOAD, Withheld};
use crate::hub::{Gathered, Part};
use bytemuck::Pod;
use std::any::type_name;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};

impl<B: Backend> World<B> {
    /// Gives `payload` to all ranks, and gets those of all. `collective` says what for; it must be the same on all.
    pub(super) fn exchange(
        &self,
        collective: &str,
        payload: Vec<u8>,
    ) -> Result<Gathered, WorldError> {
        self.exchange_with_file(collective, payload, Ok(None))
    }

    /// As [`World::exchange`], with a file. All fail where one cannot give its own, or has too large a payload.
    fn exchange_with_file(
        &self,
        collective: &str,
        payload: Vec<u8>,
        file: io::Result<Option<Arc<OwnedFd>>>,
    ) -> Result<Gathered, WorldError> {
        let bytes = payload.len();
        let given = match file {
            _ if bytes > MAX_PAYLOAD => Err(Withheld::TooLarge { bytes }),
            Ok(file) => Ok(Part {
                bytes: payload,
                file,
            }),
            Err(error) => Err(Withheld::File {
                reason: format!("duplicating it: {error}"),
            }),
        };
        let inner = &*self.member;
        let mut turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // A turn is used up even by a collective that fails, on all ranks alike: whoever cannot give what it should comes to
        // the others all the same, and says so.
        let seq = *turn;
        *turn += 1;
        let outcome = match &inner.port {
            Port::Local(hub, _) => hub.exchange(inner.rank, seq, collective, given, inner.timeout),
            Port::Remote(client) => client.exchange(seq, collective, given, inner.timeout),
        };
        outcome.map_err(|failure| failure.into_error(collective))
    }

    /// Waits until all ranks have come. Collective.
    ///
    /// # Errors
    /// Where a rank has died or left, does not come in time, or calls another collective.
    pub fn barrier(&self) -> Result<(), WorldError> {
        self.exchange("barrier", Vec::new()).map(drop)
    }

    /// The bytes that each rank gives, by rank. Collective; a rank may give up to 1 MiB, and another length than others.
    ///
    /// # Errors
    /// Those of [`World::barrier`]; [`WorldError::PayloadTooLarge`], the same on all ranks, where one gives more bytes than it may.
    pub fn all_gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, WorldError> {
        let gathered = self.exchange("all_gather_bytes", bytes.to_vec())?;
        Ok(gathered.iter().map(|part| part.bytes.clone()).collect())
    }

    /// The bytes and the file that each rank gives, by rank: memory to be shared between processes, say, and what it is.
    /// Collective; `what` must be the same on all. A rank may give up to 1 MiB, and a file or none.
    ///
    /// What a rank gets are duplicates, of its own file as well, closed on exec: they are the same open files, with one
    /// position for all. Ranks of one process share one duplicate. Either every rank gets all files or none does.
    ///
    /// ```
    /// use iris_heap::{World, WorldConfig};
    /// use std::io::{Read, Write};
    /// use std::os::fd::AsFd;
    ///
    /// World::threads(2, &WorldConfig::default(), |world| {
    ///     let (mut inbox, mine) = std::io::pipe()?;
    ///     let all = world.exchange_files("inboxes", &[], Some(mine.as_fd()))?;
    ///     let other = all[1 - world.rank()].1.as_ref().expect("both give one");
    ///     std::fs::File::from(other.try_clone()?).write_all(&[world.rank() as u8])?;
    ///     let mut from = [0];
    ///     inbox.read_exact(&mut from)?;
    ///     assert_eq!(usize::from(from[0]), 1 - world.rank());
    ///     Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// })?
    /// .into_iter()
    /// .collect::<Result<(), _>>()?;
    /// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    /// ```
    ///
    /// # Errors
    /// [`WorldError::FileNotGiven`] and [`WorldError::FilesNotReceived`], the same on all ranks, where a file cannot be
    /// passed from or to a rank: too many are open in its process, or under way between those of its user. Those of
    /// [`World::all_gather_bytes`].
    #[allow(clippy::type_complexity)] // a pair a rank, which a name would only hide
    pub fn exchange_files(
        &self,
        what: &str,
        bytes: &[u8],
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Vec<(Vec<u8>, Option<Arc<OwnedFd>>)>, WorldError> {
        let collective = format!("exchange_files of {what}");
        let own = file.map(|file| file.try_clone_to_owned().map(Arc::new));
        let outcome = self.exchange_with_file(&collective, bytes.to_vec(), own.transpose());
        let refusal = match &outcome {
            Ok(_) => Vec::new(),
            Err(WorldError::FilesNotReceived { reason, .. }) => reason.as_bytes().to_vec(),
            Err(_) => return outcome.map(|_| Vec::new()),
        };
        // Only a rank itself knows that it got no file. It tells the others, who may not go on without it.
        let refusals = self.exchange(&format!("{collective}, receipt"), refusal)?;
        for (rank, refusal) in refusals.iter().enumerate() {
            if !refusal.bytes.is_empty() {
                return Err(WorldError::FilesNotReceived {
                    rank,
                    during: collective,
                    reason: String::from_utf8_lossy(&refusal.bytes).into_owned(),
                });
            }
        }
        let gathered = outcome?;
        let parts = gathered.iter();
        Ok(parts
            .map(|part| (part.bytes.clone(), part.file.clone()))
            .collect())
    }

    /// The value that each rank gives, by rank. Collective; all must give the same type.
    ///
    /// # Errors
    /// Those of [`World::all_gather_bytes`].
    pub fn all_gather<T: Pod>(&self, value: T) -> Result<Vec<T>, WorldError> {
        let collective = format!("all_gather of {}", type_name::<T>());
        let bytes = bytemuck::bytes_of(&value).to_vec();
        let gathered = self.exchange(&collective, bytes)?;
        gathered.iter().map(|part| value_of(&part.bytes)).collect()
    }

    /// The value that rank `root` gives. Collective; all must name the same root and type.
    ///
    /// # Errors
    /// Those of [`World::all_gather_bytes`], and a root that does not exist.
    pub fn broadcast<T: Pod>(&self, root: usize, value: T) -> Result<T, WorldError> {
        let bytes = if self.rank() == root {
            bytemuck::bytes_of(&value).to_vec()
        } else {
            Vec::new()
        };
        // A root that does not exist is seen after the exchange, so that ranks which differ in it all hear so.
        let collective = format!("broadcast of {} from rank {root}", type_name::<T>());
        let gathered = self.exchange(&collective, bytes)?;
        let part = gathered.get(root).ok_or(WorldError::NoSuchRank {
            rank: root,
            size: self.size(),
        })?;
        value_of(&part.bytes)
    }

    /// What `own` is, where it is no error on any rank. Collective: it ends what ranks did by themselves, so that none goes on
    /// where another could not.
    ///
    /// # Errors
    /// This rank's own error; [`WorldError::RankFailed`] where another rank has one; those of [`World::barrier`].
    pub fn all_succeed<T, E: From<WorldError> + std::fmt::Display>(
        &self,
        what: &str,
        own: Result<T, E>,
    ) -> Result<T, E> {
        let said = own.as_ref().err().map(E::to_string).unwrap_or_default();
        let mut said = said.into_bytes();
        said.truncate(MAX_PAYLOAD);
        let gathered = self.exchange(&format!("end of {what}"), said)?;
        let value = own?;
        let mut said = gathered.iter().enumerate();
        match said.find(|(_, said)| !said.bytes.is_empty()) {
            None => Ok(value),
            Some((rank, said)) => Err(WorldError::RankFailed {
                rank,
                during: what.to_owned(),
                error: String::from_utf8_lossy(&said.bytes).into_owned(),
            }
            .into()),
        }
    }

    /// Makes sure that all ranks give the same values to the fields of `what`. Collective.
    ///
    /// # Errors
    /// [`WorldError::Disagreement`], the same on all ranks, with the first field that differs and the lowest rank whose
    /// value is not that of rank 0; and those of [`World::barrier`].
    pub fn agree(&self, what: &str, fields: &[(&str, String)]) -> Result<(), WorldError> {
        self.agree_as(&format!("agreement on {what}"), what, fields)
    }

    /// The first collective of a world of processes.
    pub(super) fn rendezvous(&self, heap_bytes: usize) -> Result<(), WorldError> {
        let fields = [("heap_bytes", heap_bytes.to_string())];
        self.agree_as("rendezvous", "the world", &fields)
    }

    fn agree_as(
        &self,
        collective: &str,
        what: &str,
        fields: &[(&str, String)],
    ) -> Result<(), WorldError> {
        // Names are compared as well as values, by their place in the list.
        let (names, values): (Vec<&str>, Vec<&String>) =
            fields.iter().map(|(name, value)| (*name, value)).unzip();
        let payload = serde_json::to_vec(&(names, values)).map_err(malformed)?;
        let gathered = self.exchange(collective, payload)?;
        let all = gathered
            .iter()
            .map(|part| serde_json::from_slice(&part.bytes).map_err(malformed))
            .collect::<Result<Vec<(Vec<String>, Vec<String>)>, _>>()?;
        let (names, values) = &all[0];
        let disagreement = |rank, field: &str, theirs: String, ours: String| {
            Err(WorldError::Disagreement {
                what: what.to_owned(),
                field: field.to_owned(),
                rank,
                theirs,
                other_rank: 0,
                ours,
            })
        };
        for (rank, (theirs, _)) in all.iter().enumerate() {
            if theirs != names {
                return disagreement(rank, "fields", theirs.join(", "), names.join(", "));
            }
        }
        for (at, (name, ours)) in names.iter().zip(values).enumerate() {
            for (rank, (_, theirs)) in all.iter().enumerate() {
                match theirs.get(at) {
                    Some(theirs) if theirs == ours => {}
                    theirs => {
                        let theirs = theirs.cloned().unwrap_or_default();
                        return disagreement(rank, name, theirs, ours.clone());
                    }
                }
            }
        }
        Ok(())
    }
}

fn malformed(error: serde_json::Error) -> WorldError {
    WorldError::Protocol {
        detail: format!("a collective's payload is malformed: {error}"),
    }
}

fn value_of<T: Pod>(bytes: &[u8]) -> Result<T, WorldError> {
    bytemuck::try_pod_read_unaligned(bytes).map_err(|error| WorldError::Protocol {
        detail: format!("a value of {} bytes was given: {error}", bytes.len()),
    })
}
