//! How matrices are split among ranks, and products into tiles.

use core::ops::Range;

/// The part of `total` that falls to `rank`: `min(total, r*c) .. min(total, (r+1)*c)` with `c = ceil(total/world)`.
///
/// All parts but the last non-empty one are of one size; later ranks may have nothing.
///
/// ```
/// use iris_kernels::shard;
/// assert_eq!(shard(10, 4, 0), 0..3);
/// assert_eq!(shard(10, 4, 3), 9..10);
/// assert_eq!(shard(3, 4, 3), 3..3);
/// ```
pub fn shard(total: usize, world: usize, rank: usize) -> Range<usize> {
    let size = total.div_ceil(world);
    total.min(rank.saturating_mul(size))..total.min((rank + 1).saturating_mul(size))
}

/// The size of a tile of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Rows.
    pub m: usize,
    /// Columns.
    pub n: usize,
}

impl Tile {
    /// A tile for a product of `m` by `n` of which each of `owners` ranks reduces a part: no larger than leaves every owner
    /// four tiles, so that handing over tiles overlaps with making them, but at most 512 and not below 32 a side. The product
    /// packs its operands anew for each tile, so that larger tiles multiply faster.
    pub fn choose(m: usize, n: usize, owners: usize) -> Self {
        const LARGEST: usize = 512;
        const SMALLEST: usize = 32;
        let mut tile = Self {
            m: LARGEST.min(m.max(1)),
            n: LARGEST.min(n.max(1)),
        };
        while Grid::new(m, n, tile).len() < 4 * owners && tile.m.max(tile.n) > SMALLEST {
            if tile.m > tile.n {
                tile.m = tile.m.div_ceil(2);
            } else {
                tile.n = tile.n.div_ceil(2);
            }
        }
        tile
    }

    /// Elements of a whole tile.
    pub fn len(self) -> usize {
        self.m * self.n
    }

    /// Whether it has no elements; a tile that is used always has.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// One tile's place in a matrix. At the lower and right edge it may be smaller than a whole tile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its rows.
    pub rows: Range<usize>,
    /// Its columns.
    pub cols: Range<usize>,
}

/// The tiles that cover a matrix, numbered row by row.
///
/// A tile's number does not depend on how many rows there are, only on the columns; fewer rows use a prefix of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    rows: usize,
    cols: usize,
    tile: Tile,
}

impl Grid {
    /// The tiles of a `rows` by `cols` matrix.
    pub fn new(rows: usize, cols: usize, tile: Tile) -> Self {
        Self { rows, cols, tile }
    }

    /// How many tiles lie side by side.
    pub fn across(&self) -> usize {
        self.cols.div_ceil(self.tile.n)
    }

    /// How many tiles there are.
    pub fn len(&self) -> usize {
        self.rows.div_ceil(self.tile.m) * self.across()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tiles in groups of up to `size` that lie side by side, row by row. They are multiplied at once, since the product
    /// packs its operands anew each time.
    pub fn groups(&self, size: usize) -> Groups {
        Groups {
            across: self.across(),
            size: size.max(1),
            rows: self.rows.div_ceil(self.tile.m),
        }
    }

    /// The place of tile `index`.
    pub fn block(&self, index: usize) -> Block {
        let row = index / self.across() * self.tile.m;
        let col = index % self.across() * self.tile.n;
        Block {
            rows: row..self.rows.min(row + self.tile.m),
            cols: col..self.cols.min(col + self.tile.n),
        }
    }
}

/// The groups of a grid, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    across: usize,
    size: usize,
    rows: usize,
}

impl Groups {
    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.rows * self.across.div_ceil(self.size)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tiles of group `index`.
    pub fn tiles(&self, index: usize) -> Range<usize> {
        let in_row = self.across.div_ceil(self.size);
        let (row, first) = (index / in_row, index % in_row * self.size);
        let start = row * self.across;
        start + first..start + self.across.min(first + self.size)
    }
}

/// How the tiles of a grid are dealt out to owners: tile `t` to rank `t mod W`, as its `t / W`-th.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deal {
    /// The number of ranks.
    pub world: usize,
}

impl Deal {
    /// The rank that reduces tile `t`.
    pub fn owner(self, tile: usize) -> usize {
        tile % self.world
    }

    /// Which of its owner's tiles `t` is.
    pub fn slot(self, tile: usize) -> usize {
        tile / self.world
    }

    /// How many of `tiles` tiles fall to `rank`.
    pub fn count(self, tiles: usize, rank: usize) -> usize {
        (tiles + self.world - 1 - rank) / self.world
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_everything_once() {
        for total in 0..40 {
            for world in 1..9 {
                let mut next = 0;
                for rank in 0..world {
                    let part = shard(total, world, rank);
                    assert_eq!(part.start, next.min(total));
                    assert!(part.len() <= total.div_ceil(world));
                    next = part.end;
                }
                assert_eq!(next, total);
            }
        }
    }

    #[test]
    fn tiles_cover_every_element_once_and_keep_their_numbers() {
        for (rows, cols) in [(1, 1), (5, 7), (8, 8), (3, 13)] {
            let tile = Tile { m: 3, n: 4 };
            let grid = Grid::new(rows, cols, tile);
            let mut seen = vec![0; rows * cols];
            for index in 0..grid.len() {
                let block = grid.block(index);
                for row in block.rows.clone() {
                    for col in block.cols.clone() {
                        seen[row * cols + col] += 1;
                    }
                }
                let more = Grid::new(rows + 10, cols, tile).block(index);
                assert_eq!((more.rows.start, more.cols), (block.rows.start, block.cols));
            }
            assert!(seen.iter().all(|&times| times == 1));
        }
    }

    #[test]
    fn groups_have_every_tile_once_and_side_by_side() {
        for (rows, cols) in [(1, 1), (5, 7), (8, 30), (3, 13)] {
            let grid = Grid::new(rows, cols, Tile { m: 3, n: 4 });
            for size in 1..6 {
                let groups = grid.groups(size);
                let tiles: Vec<_> = (0..groups.len()).flat_map(|at| groups.tiles(at)).collect();
                assert!(tiles.into_iter().eq(0..grid.len()));
                for at in 0..groups.len() {
                    let tiles = groups.tiles(at);
                    let row = grid.block(tiles.start).rows;
                    assert!(
                        tiles.len() <= size && tiles.into_iter().all(|t| grid.block(t).rows == row)
                    );
                }
            }
        }
    }

    #[test]
    fn the_deal_counts_what_it_deals() {
        for tiles in 0..20 {
            for world in 1..6 {
                let deal = Deal { world };
                for rank in 0..world {
                    let owned: Vec<_> = (0..tiles).filter(|&t| deal.owner(t) == rank).collect();
                    assert_eq!(owned.len(), deal.count(tiles, rank));
                    for (slot, &tile) in owned.iter().enumerate() {
                        assert_eq!(deal.slot(tile), slot);
                    }
                }
            }
        }
    }

    #[test]
    fn every_owner_has_four_tiles_where_the_product_is_large_enough() {
        for (m, n, world) in [(1024, 1024, 2), (512, 384, 4), (100, 4096, 8)] {
            let tile = Tile::choose(m, n, world);
            assert!(
                Grid::new(m, n, tile).len() >= 4 * world,
                "{m} {n} {world}: {tile:?}"
            );
        }
        assert_eq!(Tile::choose(1, 1, 8), Tile { m: 1, n: 1 });
    }
}
