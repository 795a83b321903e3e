//! Where each of a workspace's words lies, as plain arithmetic.
//!
//! Every rank holds one copy of all of them. A word is written by one rank and awaited by the rank in whose memory it lies,
//! so *place `entered(2)` at rank 1* is the word by which rank 2 tells rank 1 that it has entered.

use crate::fault::WordKind;

/// The copies of what a rank announces of its call. A peer that reads it is at most two calls behind the writer, so with
/// four copies what it reads belongs to its own call; with two, the call after next may already have overwritten it.
const ANNOUNCED: usize = 4;

/// The number of words and cells a workspace needs at each rank, and the place of each.
///
/// *Words* are signals ([`Word`](crate::Word)); *cells* are 64-bit integers: the call index, the poison flag, what peers
/// announced, and how much of each bank this rank used last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    world: usize,
    tiles: usize,
    locks: usize,
}

impl Layout {
    /// For `world` ranks, up to `tiles` tiles that any one rank hands to any one other, and `locks` spin locks a rank.
    pub const fn new(world: usize, tiles: usize, locks: usize) -> Self {
        Self {
            world,
            tiles,
            locks,
        }
    }

    /// The number of ranks.
    pub const fn world(&self) -> usize {
        self.world
    }

    /// The number of `ready` words a source has in each bank.
    pub const fn tiles(&self) -> usize {
        self.tiles
    }

    /// The number of spin locks at each rank.
    pub const fn locks(&self) -> usize {
        self.locks
    }

    /// How many words a rank holds.
    pub const fn words(&self) -> usize {
        self.world * (5 + 2 * self.tiles) + self.locks
    }

    /// How many cells a rank holds.
    pub const fn cells(&self) -> usize {
        2 + 2 * self.world + ANNOUNCED * self.world * Announcement::CELLS
    }

    /// The place of an unbanked word of `source`.
    ///
    /// # Panics
    /// For kinds that are banked or are no words of a source: a mistake in the protocol's own code.
    pub(crate) fn word(&self, kind: WordKind, source: usize) -> usize {
        debug_assert!(source < self.world);
        let row = match kind {
            WordKind::Entered | WordKind::Barrier => 0,
            WordKind::Gathered => 1,
            WordKind::Ready | WordKind::Added | WordKind::Lock => {
                unreachable!("`{kind}` is not an unbanked word")
            }
        };
        row * self.world + source
    }

    pub(crate) fn abort(&self, source: usize) -> usize {
        2 * self.world + source
    }

    pub(crate) fn added(&self, bank: usize, source: usize) -> usize {
        (3 + bank) * self.world + source
    }

    pub(crate) fn ready(&self, bank: usize, source: usize, tile: usize) -> usize {
        debug_assert!(tile < self.tiles, "tile {tile} of {}", self.tiles);
        5 * self.world + (bank * self.world + source) * self.tiles + tile
    }

    pub(crate) fn lock(&self, lock: usize) -> usize {
        debug_assert!(lock < self.locks, "lock {lock} of {}", self.locks);
        self.world * (5 + 2 * self.tiles) + lock
    }

    pub(crate) const fn index_cell(&self) -> usize {
        0
    }

    pub(crate) const fn poison_cell(&self) -> usize {
        1
    }

    /// How many `ready` words this rank used at `peer` in the latest call of `bank`.
    pub(crate) fn used_cell(&self, bank: usize, peer: usize) -> usize {
        2 + bank * self.world + peer
    }

    pub(crate) fn announced_cell(&self, index: u64, source: usize) -> usize {
        let copy = (index % ANNOUNCED as u64) as usize;
        2 + 2 * self.world + (copy * self.world + source) * Announcement::CELLS
    }
}

/// What a rank tells its peers of a call beside `entered`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Announcement {
    /// The rows of this call. All ranks must say the same.
    pub m: u64,
    /// Where in the rank's symmetric heap its output begins, in bytes: whoever stores into it looks here, so ranks need
    /// not use the same buffer.
    pub output: u64,
    /// The distance of two rows of that output, in elements.
    pub stride: u64,
}

impl Announcement {
    pub(crate) const CELLS: usize = 3;

    pub(crate) fn to_cells(self) -> [u64; Self::CELLS] {
        [self.m, self.output, self.stride]
    }

    pub(crate) fn from_cells([m, output, stride]: [u64; Self::CELLS]) -> Self {
        Self { m, output, stride }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::vec::Vec;

    #[test]
    fn no_two_words_share_a_place_and_all_lie_inside() {
        for (world, tiles, locks) in [(1, 1, 0), (2, 3, 5), (3, 0, 1), (5, 7, 0)] {
            let layout = Layout::new(world, tiles, locks);
            let mut places = Vec::new();
            for source in 0..world {
                for kind in [WordKind::Entered, WordKind::Gathered] {
                    places.push(layout.word(kind, source));
                }
                places.push(layout.abort(source));
                for bank in 0..2 {
                    places.push(layout.added(bank, source));
                    places.extend((0..tiles).map(|tile| layout.ready(bank, source, tile)));
                }
            }
            places.extend((0..locks).map(|lock| layout.lock(lock)));
            assert_eq!(places.len(), layout.words());
            assert!(places.iter().all(|&place| place < layout.words()));
            assert_eq!(places.iter().collect::<HashSet<_>>().len(), places.len());

            let mut cells = Vec::from([layout.index_cell(), layout.poison_cell()]);
            for source in 0..world {
                cells.extend((0..2).map(|bank| layout.used_cell(bank, source)));
                for index in 8..12 {
                    let first = layout.announced_cell(index, source);
                    cells.extend(first..first + Announcement::CELLS);
                }
            }
            assert_eq!(cells.len(), layout.cells());
            assert!(cells.iter().all(|&cell| cell < layout.cells()));
            assert_eq!(cells.iter().collect::<HashSet<_>>().len(), cells.len());
        }
    }
}
