//! How much memory a job takes, so that the heap is made large enough and what cannot fit is refused.

use iris::ops::{DType, Tile};

use crate::cli::split::{Size, Split};

/// Room in the heap besides what is counted: alignment, words that speak for a whole rank.
const SLACK: usize = 16 << 20;
/// Bytes that a signal word and its neighbourhood take at most.
const WORD: usize = 64;
/// The smallest and the largest tile that are chosen where none is given.
const TILES: [usize; 2] = [32, 256];

/// What a job holds at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Footprint {
    pub(crate) split: Split,
    pub(crate) dtype: DType,
    pub(crate) tile: Option<Tile>,
    /// Sets of operands.
    pub(crate) slots: usize,
    /// Workspaces that hold memory at the same time.
    pub(crate) workspaces: usize,
}

impl Footprint {
    /// Bytes that the heap of each rank must have: generously, since what is never touched costs address space only.
    /// `None` where that is more than can be addressed.
    pub(crate) fn heap(&self) -> Option<usize> {
        let Size { m, n, k } = self.split.size;
        let world = self.split.world;
        let element = self.dtype.bytes();
        let largest = self.split.largest();
        let (low, high) = match self.tile {
            Some(tile) => (
                [tile.m.min(m), tile.n.min(n)],
                [tile.m.min(m), tile.n.min(n)],
            ),
            None => ([TILES[0].min(m), TILES[0].min(n)], [TILES[1], TILES[1]]),
        };
        // Tiles are counted with each owner's grid rounded up for itself.
        let tiles = m
            .div_ceil(low[0])
            .checked_add(world)?
            .checked_mul(n.div_ceil(low[1]))?;
        let words = product(&[2, world, tiles, WORD])?;
        let padded_rows = m.checked_add(high[0].checked_mul(world)?)?;
        let result = product(&[padded_rows, n.checked_add(high[1])?])?;
        let gathered = product(&[padded_rows, k.checked_add(world)?])?;
        // Two banks of every rank's partial tiles, of gathered pieces, and of f32 sums; a product that goes before.
        let staging = product(&[2, world, result, element])?
            .checked_add(product(&[2, world, gathered, element])?)?
            .checked_add(product(&[2, result, 4])?)?
            .checked_add(product(&[result, element])?)?;
        let workspace = staging.checked_add(words)?;
        let outputs = product(&[
            self.slots.checked_add(1)?,
            largest.c.len().checked_add(64)?,
            element,
        ])?;
        product(&[self.workspaces, workspace])?
            .checked_add(outputs)?
            .checked_add(SLACK)
    }

    /// Bytes that the job touches on the whole machine, roughly, with `copies` of the whole matrices.
    pub(crate) fn machine(&self, copies: usize) -> Option<usize> {
        let Size { m, n, k } = self.split.size;
        let world = self.split.world;
        let element = self.dtype.bytes();
        let largest = self.split.largest();
        let matrices = product(&[m, k])?
            .checked_add(product(&[k, n])?)?
            .checked_add(product(&[m, n])?)?;
        let given = product(&[copies, matrices, element])?;
        let reference = product(&[matrices.checked_add(product(&[m, n])?)?, size_of::<f64>()])?;
        let shares = [
            largest.a.len(),
            largest.b.len(),
            largest.c.len(),
            largest.c.len(),
        ];
        let rank = shares
            .iter()
            .try_fold(0usize, |sum, share| sum.checked_add(*share))?;
        let ranks = product(&[world, self.slots, rank, element])?;
        given.checked_add(reference)?.checked_add(ranks)
    }
}

fn product(factors: &[usize]) -> Option<usize> {
    factors
        .iter()
        .try_fold(1usize, |product, &factor| product.checked_mul(factor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Gather;
    use crate::cli::operation::Operation;

    fn footprint(m: usize, n: usize, k: usize, world: usize) -> Footprint {
        Footprint {
            split: Split {
                operation: Operation::MatmulAllReduce,
                gather: Gather::Rows,
                size: Size { m, n, k },
                world,
            },
            dtype: DType::F32,
            tile: None,
            slots: 2,
            workspaces: 1,
        }
    }

    #[test]
    fn a_heap_holds_the_staging_of_every_variant() {
        let (m, n, world) = (512, 768, 4);
        let heap = footprint(m, n, 64, world).heap().unwrap();
        assert!(heap > 2 * world * m * n * 4 + 3 * m * n * 4);
    }

    #[test]
    fn sizes_beyond_the_address_space_are_none() {
        assert_eq!(footprint(usize::MAX, 2, 2, 2).heap(), None);
        assert_eq!(footprint(1 << 40, 1 << 40, 1, 2).heap(), None);
        assert_eq!(footprint(1 << 40, 1 << 40, 1, 2).machine(2), None);
        assert!(footprint(100, 100, 100, 2).machine(2).unwrap() > 2 * 30_000 * 4);
    }
}
