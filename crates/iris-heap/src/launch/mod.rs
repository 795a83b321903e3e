//! How a process learns which rank of which world it is.

mod environment;
mod spawn;

pub use spawn::{Processes, spawn};

use crate::MAX_RANKS;

/// The longest name of a socket in the abstract namespace, less a margin.
const MAX_NAME: usize = 100;

/// One rank's place in a world of processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    rank: usize,
    size: usize,
    rendezvous: String,
    launcher: Launcher,
}

/// Who started a rank's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launcher {
    /// A program of ours, by [`spawn`], or whoever else sets `IRIS_RANK`, `IRIS_WORLD_SIZE` and `IRIS_RENDEZVOUS`.
    Iris,
    /// `torchrun`.
    Torchrun,
    /// `mpirun` of OpenMPI.
    OpenMpi,
    /// `srun`.
    Srun,
}

/// Why a process cannot tell which rank it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// Some of a launcher's variables are set, and one is missing.
    #[error("{set} is set, and {missing} is not")]
    Missing {
        /// A variable that is set.
        set: &'static str,
        /// The variable that is missing.
        missing: &'static str,
    },
    /// A variable's value makes no sense.
    #[error("{variable} is {value:?}, and must be {expected}")]
    Invalid {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// The ranks are on more than one host, which is not supported yet.
    #[error("the ranks are on more than one host ({hosts}); all must be on one")]
    MoreHosts {
        /// What the environment tells of the hosts.
        hosts: String,
    },
    /// A world cannot have this many ranks.
    #[error("{ranks} ranks were asked for, and a world has from 1 to {MAX_RANKS}")]
    Size {
        /// The ranks asked for.
        ranks: usize,
    },
    /// A rank that the world does not have.
    #[error("rank {rank} does not exist in a world of {size}")]
    Rank {
        /// The rank.
        rank: usize,
        /// The world's ranks.
        size: usize,
    },
    /// A rank's process could not be started.
    #[error("starting rank {rank} ({program}): {source}")]
    Spawn {
        /// The rank.
        rank: usize,
        /// What was to be run.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Launch {
    /// Rank `rank` of `size` that meet at `rendezvous`, a name that must be the same for them and no other world of this
    /// user.
    ///
    /// # Errors
    /// Where there can be no such rank or world.
    pub fn new(
        rank: usize,
        size: usize,
        rendezvous: impl Into<String>,
    ) -> Result<Self, LaunchError> {
        if !(1..=MAX_RANKS).contains(&size) {
            return Err(LaunchError::Size { ranks: size });
        }
        if rank >= size {
            return Err(LaunchError::Rank { rank, size });
        }
        Ok(Self {
            rank,
            size,
            rendezvous: rendezvous.into(),
            launcher: Launcher::Iris,
        })
    }

    /// This process's rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What the ranks' meeting place is called.
    pub fn rendezvous(&self) -> &str {
        &self.rendezvous
    }

    /// Who started the process.
    pub fn launcher(&self) -> Launcher {
        self.launcher
    }

    /// The name of the rendezvous' socket: the user's, so that no other user's job has it by chance, and short enough.
    pub(crate) fn socket_name(&self) -> String {
        let user = rustix::process::geteuid().as_raw();
        let name = format!("iris-{user}-{}", self.rendezvous);
        if name.len() <= MAX_NAME {
            return name;
        }
        // FNV-1a, twice with different beginnings: all ranks must come to the same name, whatever they were built with.
        let hash = |basis: u64| {
            let bytes = self.rendezvous.bytes();
            bytes.fold(basis, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
            })
        };
        let (one, two) = (hash(0xcbf2_9ce4_8422_2325), hash(0x6c62_272e_07bb_0142));
        format!("iris-{user}-{one:016x}{two:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_worlds_that_cannot_be_are_errors() {
        assert!(matches!(
            Launch::new(0, 0, "x"),
            Err(LaunchError::Size { ranks: 0 })
        ));
        assert!(matches!(
            Launch::new(0, 257, "x"),
            Err(LaunchError::Size { ranks: 257 })
        ));
        assert!(matches!(
            Launch::new(4, 4, "x"),
            Err(LaunchError::Rank { rank: 4, size: 4 })
        ));
    }

    #[test]
    fn long_rendezvous_have_short_names_of_their_own() {
        let name = |rendezvous: String| Launch::new(0, 1, rendezvous).unwrap().socket_name();
        assert!(name("abc".into()).ends_with("-abc"));
        let (one, two) = (name("x".repeat(500)), name("x".repeat(501)));
        assert!(one.len() <= MAX_NAME && two.len() <= MAX_NAME);
        assert_ne!(one, two);
    }
}
