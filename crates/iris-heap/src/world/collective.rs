//! Collectives on the host, for set-up: each is one exchange.

use super::{Port, World};
use crate::backend::Backend;
use crate::error::WorldError;
use crate::hub::Gathered;
use crate::hub::message::MAX_PAYLOAD;
use bytemuck::Pod;
use std::any::type_name;
use std::sync::PoisonError;

impl<B: Backend> World<B> {
    /// Gives `payload` to all ranks, and gets those of all. `collective` says what for; it must be the same on all.
    pub(super) fn exchange(
        &self,
        collective: &str,
        payload: Vec<u8>,
    ) -> Result<Gathered, WorldError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(WorldError::PayloadTooLarge {
                during: collective.to_owned(),
                bytes: payload.len(),
                limit: MAX_PAYLOAD,
            });
        }
        let inner = &*self.member;
        let mut turn = inner.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // A turn is used up even by a collective that fails, on all ranks alike.
        let seq = *turn;
        *turn += 1;
        let outcome = match &inner.port {
            Port::Local(hub, _) => {
                hub.exchange(inner.rank, seq, collective, payload, inner.timeout)
            }
            Port::Remote(client) => client.exchange(seq, collective, &payload, inner.timeout),
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
    /// Those of [`World::barrier`], and more bytes than can be given.
    pub fn all_gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, WorldError> {
        let gathered = self.exchange("all_gather_bytes", bytes.to_vec())?;
        Ok(gathered.to_vec())
    }

    /// The value that each rank gives, by rank. Collective; all must give the same type.
    ///
    /// # Errors
    /// Those of [`World::all_gather_bytes`].
    pub fn all_gather<T: Pod>(&self, value: T) -> Result<Vec<T>, WorldError> {
        let collective = format!("all_gather of {}", type_name::<T>());
        let bytes = bytemuck::bytes_of(&value).to_vec();
        let gathered = self.exchange(&collective, bytes)?;
        gathered.iter().map(|bytes| value_of(bytes)).collect()
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
        let bytes = gathered.get(root).ok_or(WorldError::NoSuchRank {
            rank: root,
            size: self.size(),
        })?;
        value_of(bytes)
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
        match gathered.iter().enumerate().find(|(_, said)| !said.is_empty()) {
            None => Ok(value),
            Some((rank, said)) => Err(WorldError::RankFailed {
                rank,
                during: what.to_owned(),
                error: String::from_utf8_lossy(said).into_owned(),
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
            .map(|bytes| serde_json::from_slice(bytes).map_err(malformed))
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
