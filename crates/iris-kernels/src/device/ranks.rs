//! What a kernel of the user's own needs to know of its world: the twin of `hip/iris/ranks.h`.

use super::MAX_RANKS;

/// The ranks of a world, as a field of a kernel's argument, where the source has `iris::Ranks`.
///
/// Addresses are those of one device: every rank makes its own.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranks {
    heap: [u64; MAX_RANKS],
    world: u64,
    rank: u64,
}

const _: () = assert!(size_of::<Ranks>() == 8 * (MAX_RANKS + 2));

/// Numbers of which there can be no [`Ranks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableRanks {
    /// More ranks than a kernel's argument has room for.
    #[error("the world has {ranks} ranks, and a kernel's argument has room for {MAX_RANKS}")]
    TooMany {
        /// How many.
        ranks: usize,
    },
    /// A rank that the world does not have.
    #[error("rank {rank} is not one of the {ranks} ranks of its world")]
    NoSuchRank {
        /// The rank.
        rank: usize,
        /// How many there are.
        ranks: usize,
    },
}

impl Ranks {
    /// Those of a world in which this rank is `rank`, and kernels of this rank's device see the symmetric heaps of all ranks at
    /// `bases`: `world.rank()` and `world.bases()`, with a world of `iris_heap` that is on devices.
    ///
    /// # Errors
    /// [`UnusableRanks`], where there are more than [`MAX_RANKS`], or `rank` is none of them.
    pub fn new(rank: usize, bases: &[u64]) -> Result<Self, UnusableRanks> {
        let ranks = bases.len();
        if ranks > MAX_RANKS {
            return Err(UnusableRanks::TooMany { ranks });
        }
        if rank >= ranks {
            return Err(UnusableRanks::NoSuchRank { rank, ranks });
        }
        let mut heap = [0; MAX_RANKS];
        heap[..ranks].copy_from_slice(bases);
        Ok(Self {
            heap,
            world: ranks as u64,
            rank: rank as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_world_or_refused() {
        let bases: Vec<u64> = (1..=16).map(|base| base << 32).collect();
        let ranks = Ranks::new(2, &bases[..3]).unwrap();
        assert_eq!((ranks.rank, ranks.world), (2, 3));
        assert_eq!(ranks.heap[..4], [1 << 32, 2 << 32, 3 << 32, 0]);
        assert_eq!(Ranks::new(15, &bases).unwrap().heap[..], bases);
        assert_eq!(
            Ranks::new(3, &bases[..3]),
            Err(UnusableRanks::NoSuchRank { rank: 3, ranks: 3 })
        );
        assert_eq!(
            Ranks::new(0, &[0; 17]),
            Err(UnusableRanks::TooMany { ranks: 17 })
        );
        assert!(Ranks::new(0, &[]).is_err());
    }
}
