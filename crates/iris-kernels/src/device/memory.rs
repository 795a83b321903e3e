//! The symmetric memory that a program's kernels need, where it is other than on the host.

use crate::host::{GatherDim, Needs, Program, Shape};

/// Rows of a piece in which parts of A are sent, as in `hip/all_gather_matmul.hip`.
pub(super) const PIECE_ROWS: usize = 8;
/// A piece's rows are cut along their depth where there are few: into parts of no fewer depths, and no more pieces, than this.
const PIECE_DEPTHS: usize = 256;
const PIECES: usize = 128;

/// What the cell of a workspace's index holds for each call that has been completed: blocks add shares of it as they arrive, as
/// `hip/iris/words.h` has it.
pub const ALL_SHARES: u64 = 1 << 20;

/// How many calls have been completed, by what the cell of the index holds.
pub fn completed(cell: u64) -> u64 {
    cell / ALL_SHARES
}

/// What a program's kernels need for up to `m` rows.
pub fn needs(program: Program, m: usize, shape: Shape, world: usize) -> Needs {
    let Program::AllGatherMatmul(gather) = program else {
        return program.needs(m, shape, world);
    };
    // A itself, gathered: rows of it in slots, which are dealt out to the ranks for no other reason than that staging is counted so.
    let (rows, depth) = match gather {
        GatherDim::Rows => (m.div_ceil(world), shape.k),
        GatherDim::Columns => (m, shape.k.div_ceil(world)),
    };
    Needs {
        slots: m.div_ceil(world).div_ceil(PIECE_ROWS),
        words: words(rows.div_ceil(PIECE_ROWS), depth),
        slot_elements: PIECE_ROWS.saturating_mul(shape.k),
        ..Needs::default()
    }
}

/// The most pieces that a rank has whose part is up to `most` times PIECE_ROWS rows.
fn words(most: usize, depth: usize) -> usize {
    // Fewer rows have no more pieces: either one each, or less than PIECES in all.
    most.max(PIECES.min(most.saturating_mul(depth.div_ceil(PIECE_DEPTHS))))
}

/// Into how many parts the depth of pieces is cut, by the most rows and the depth that a rank has of A; and how deep each is, a multiple
/// of 8.
pub(super) fn parts(rows: u64, depth: u64) -> (u64, u64) {
    let strips = rows.div_ceil(PIECE_ROWS as u64);
    let most = PIECES as u64 / strips.clamp(1, PIECES as u64);
    let parts = depth.div_ceil(PIECE_DEPTHS as u64).clamp(1, most);
    (parts, depth.div_ceil(8).div_ceil(parts) * 8)
}

/// Bytes of a staging slot, by bytes of an element; `None` where no integer holds them.
pub fn slot_bytes(program: Program, needs: Needs, element: usize) -> Option<usize> {
    match program {
        // Rows of A, of whole chunks of 16 bytes.
        Program::AllGatherMatmul(_) => (needs.slot_elements / PIECE_ROWS)
            .checked_mul(element)?
            .checked_next_multiple_of(16)?
            .checked_mul(PIECE_ROWS),
        // Nothing is staged.
        Program::OneShotPackets
        | Program::TwoShotPackets
        | Program::ReduceScatterPackets
        | Program::AllGatherMatmulPackets => Some(0),
        _ => needs.slot_elements.checked_mul(element),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tile;

    fn pieces(strips: usize, depth: usize) -> usize {
        strips * parts((strips * PIECE_ROWS) as u64, depth as u64).0 as usize
    }

    #[test]
    fn parts_make_up_a_piece() {
        for (rows, depth) in [
            (0, 0),
            (1, 1),
            (1, 255),
            (4, 3584),
            (128, 3584),
            (1024, 3584),
            (9, 777),
            (5000, 100),
        ] {
            let (parts, part) = parts(rows, depth);
            assert!(parts >= 1 && part % 8 == 0, "{rows} {depth}");
            assert!(
                parts * part >= depth,
                "{rows} {depth}: {parts} parts of {part}"
            );
            assert!(
                parts * rows.div_ceil(8) <= rows.div_ceil(8).max(128),
                "{rows} {depth}"
            );
        }
        assert_eq!(parts(4, 3584), (14, 256));
        assert_eq!(parts(128, 3584), (8, 448));
        assert_eq!(parts(1024, 3584), (1, 3584));
    }

    #[test]
    fn there_are_words_for_the_pieces_of_every_number_of_rows() {
        for depth in [1, 511, 513, 4000, 100_000] {
            for most in [1, 2, 7, 100, 127, 128, 129, 300] {
                let have = words(most, depth);
                let want = (1..=most).map(|strips| pieces(strips, depth)).max();
                assert!(Some(have) >= want, "{most} {depth}: {have} of {want:?}");
                assert!(have <= most.max(PIECES));
            }
        }
    }

    #[test]
    fn all_of_a_fits_the_slots_of_all_ranks() {
        for gather in [GatherDim::Rows, GatherDim::Columns] {
            for (m, world) in [(1, 4), (3, 2), (17, 8), (4096, 3)] {
                let shape = Shape {
                    n: 5,
                    k: 33,
                    tile: Tile { m: 128, n: 64 },
                };
                let program = Program::AllGatherMatmul(gather);
                let needs = needs(program, m, shape, world);
                // Rows of 33 elements of 2 bytes take 80.
                assert_eq!(slot_bytes(program, needs, 2), Some(8 * 80));
                assert!(needs.slots * 8 * world >= m, "{needs:?}");
            }
        }
        let large = Needs {
            slot_elements: usize::MAX,
            ..Needs::default()
        };
        assert_eq!(slot_bytes(Program::TwoShot, large, 2), None);
    }
}
