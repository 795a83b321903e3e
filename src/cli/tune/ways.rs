//! The ways to carry out a call that are worth measuring.

use iris::kernels::device::fast::{Crews, may_stream};
use iris::kernels::host::Program;
use iris::ops::tuning::{Machine, TuningRow, grids, has_packets};
use iris::ops::{DType, Tile, Variant};

use crate::cli::args::Gather;
use crate::cli::bench::points::Point;
use crate::cli::operation::Operation;
use crate::cli::split::Size;

/// Packets are measured up to so many bytes of partial sums that a rank hands to all its peers together: more than is expected to be
/// best for them.
const PACKET_BYTES: usize = 4 << 20;
/// One-shot is, up to so many bytes of staging at a rank: a fourth of what `auto` takes at most.
const ONE_SHOT_BYTES: usize = 16 << 20;
/// 64-row tiles are, for so many rows at most.
const LOW_ROWS: usize = 256;

/// A way to carry out a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) variant: Variant,
    pub(super) packets: bool,
    pub(super) tile: Option<Tile>,
    /// Whether one kernel does all of it.
    pub(super) fused: bool,
    /// Whether its tiles are streamed.
    pub(super) streamed: bool,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let packets = if self.packets { " in packets" } else { "" };
        let before = if self.fused { "" } else { "a product, then " };
        write!(f, "{before}{}{packets}", self.variant)?;
        if let Some(tile) = self.tile {
            write!(f, ", {}x{}", tile.m, tile.n)?;
        }
        f.write_str(if self.streamed { ", streamed" } else { "" })
    }
}

/// What a backend has to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backend {
    /// Whether there are packets.
    pub(super) packets: bool,
    /// Where there are fast kernels of several tiles, the multiprocessors of a device.
    pub(super) multiprocessors: Option<usize>,
}

impl Backend {
    /// The ways that make sense for a call of all rows of a point.
    pub(super) fn ways(
        self,
        point: &Point,
        gather: Gather,
        ranks: usize,
        dtype: DType,
    ) -> Vec<Way> {
        let Size { m, n, .. } = point.size;
        // More than fits an integer is more than is measured.
        let bytes = |factor: usize| {
            [m, n, dtype.bytes()]
                .into_iter()
                .try_fold(factor, usize::checked_mul)
                .unwrap_or(usize::MAX)
        };
        // All of a rank's sums go to every peer; of a reduce-scatter's, each to its owner.
        let handed_out = match point.operation {
            Operation::MatmulReduceScatter => bytes(1),
            _ => bytes(ranks.saturating_sub(1).max(1)),
        };
        let has_packets = has_packets(point.operation.name(), gather.into(), m);
        // Rows of A are few where they go in packets, and go to peers.
        let gathers = point.operation == Operation::AllGatherMatmul;
        let few = match gathers {
            true => ranks > 1,
            false => handed_out <= PACKET_BYTES,
        };
        let few = self.packets && has_packets && few;
        // Each rank's part goes to its owner, and the sums to all.
        let some = self.packets && ranks > 1 && bytes(1) <= PACKET_BYTES;
        let small = bytes(2 * ranks) <= ONE_SHOT_BYTES;
        let variants = match point.operation {
            Operation::MatmulAllReduce => vec![
                (few, Variant::OneShot, true),
                (small, Variant::OneShot, false),
                (some, Variant::TwoShot, true),
                (true, Variant::TwoShot, false),
            ],
            _ => vec![(few, Variant::Auto, true), (true, Variant::Auto, false)],
        };
        let tiles = |packets| match self.multiprocessors {
            Some(multiprocessors) => tiles(point, packets, ranks, multiprocessors),
            None => vec![None],
        };
        let worth: Vec<_> = variants.into_iter().filter(|(worth, ..)| *worth).collect();
        let way = |&(_, variant, packets): &(bool, Variant, bool), tile, fused| Way {
            variant,
            packets,
            tile,
            fused,
            streamed: false,
        };
        let fused = worth
            .iter()
            .flat_map(|of| tiles(of.2).into_iter().map(move |tile| way(of, tile, true)));
        // With the tile that a product has by the sizes. What gathers first is always fused.
        let unfused = worth
            .iter()
            .filter(|_| !gathers)
            .map(|of| way(of, None, false));
        let streamed = fused.clone().filter(|way| {
            let can = |tile| may_stream(tile, m);
            gathers && way.tile.is_some_and(can)
        });
        let streamed = streamed.map(|way| Way {
            streamed: true,
            ..way
        });
        fused.chain(streamed).chain(unfused).collect()
    }
}

/// The tiles of the fast kernels that suit a point: none lower than its rows ask for, nor much higher; none that leave most
/// multiprocessors without one where others do not; and of 192 columns only where the multiprocessor that makes most of them makes
/// fewer columns so than with 128 or 256, which multiply faster, by a twentieth.
fn tiles(point: &Point, packets: bool, ranks: usize, multiprocessors: usize) -> Vec<Option<Tile>> {
    let Size { m, n, .. } = point.size;
    let Some(grids) = grids(point.operation.name(), packets, [m, n], ranks) else {
        return vec![None];
    };
    let suit = [64, 128].into_iter().filter(|&m| match m {
        64 => grids.rows <= LOW_ROWS,
        _ => grids.rows > 64,
    });
    let busy = |tile| grids.tiles(tile).min(multiprocessors);
    let columns = |m, n| grids.tiles(Tile { m, n }).div_ceil(multiprocessors) * n;
    let fill_better = |m| 20 * columns(m, 192) < 19 * columns(m, 128).min(columns(m, 256));
    let all: Vec<_> = suit
        .flat_map(|m| [64, 128, 192, 256].map(|n| Tile { m, n }))
        .filter(|&Tile { m, n }| n != 192 || fill_better(m))
        .filter(|&tile| {
            let unpacks = packets && point.operation == Operation::AllGatherMatmul;
            match unpacks {
                true => Crews::of_program(Program::AllGatherMatmulPackets, tile).is_some(),
                false => Crews::of(tile).is_some(),
            }
        })
        .collect();
    let most = all.iter().map(|&tile| busy(tile)).max().unwrap_or(0);
    all.into_iter()
        .filter(|&tile| 5 * busy(tile) >= 2 * most)
        .map(Some)
        .collect()
}

/// The row that says to go a way at a point; how long it takes is not known yet.
pub(super) fn row(
    way: Way,
    point: &Point,
    gather: Gather,
    ranks: usize,
    dtype: DType,
    machine: &Machine,
) -> TuningRow {
    let Size { m, n, k } = point.size;
    let gathers = point.operation == Operation::AllGatherMatmul;
    TuningRow {
        device: machine.device.clone(),
        ranks,
        op: point.operation.name(),
        gather: gathers.then_some(gather.into()),
        dtype,
        compiler: machine.compiler.clone(),
        m,
        n,
        k,
        variant: way.variant,
        packets: way.packets,
        tile: way.tile,
        fused: way.fused,
        streamed: gathers.then_some(way.streamed),
        us: f64::INFINITY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOPPER: Backend = Backend {
        packets: true,
        multiprocessors: Some(132),
    };

    fn ways(backend: Backend, operation: Operation, m: usize) -> Vec<String> {
        let size = Size {
            m,
            n: 8192,
            k: 7168,
        };
        let ways = backend.ways(&Point { operation, size }, Gather::Rows, 2, DType::BF16);
        ways.iter().map(Way::to_string).collect()
    }

    #[test]
    fn what_makes_no_sense_is_not_measured() {
        let of = |m| ways(HOPPER, Operation::MatmulAllReduce, m);
        assert_eq!(
            of(16),
            [
                "one_shot in packets, 64x64",
                "one_shot in packets, 64x128",
                "one_shot, 64x64",
                "one_shot, 64x128",
                "two_shot in packets, 64x64",
                "two_shot in packets, 64x128",
                "two_shot, 64x64",
                "two_shot, 64x128",
                "a product, then one_shot in packets",
                "a product, then one_shot",
                "a product, then two_shot in packets",
                "a product, then two_shot",
            ]
        );
        assert_eq!(of(128).len(), 4 * 6, "{:?}", of(128));
        assert!(!of(128).contains(&"two_shot, 128x256".to_owned()));
        assert_eq!(
            of(8192),
            [
                "two_shot, 128x64",
                "two_shot, 128x128",
                "two_shot, 128x256",
                "a product, then two_shot"
            ]
        );
        // Few rows are those of one grid in packets, and of one for each owner otherwise.
        let scatter = ways(HOPPER, Operation::MatmulReduceScatter, 16);
        assert_eq!(
            scatter,
            [
                "auto in packets, 64x64",
                "auto in packets, 64x128",
                "auto, 64x64",
                "auto, 64x128",
                "auto, 64x256",
                "a product, then auto in packets",
                "a product, then auto"
            ]
        );
        let scatter = ways(HOPPER, Operation::MatmulReduceScatter, 8192);
        assert_eq!(
            scatter,
            [
                "auto, 128x64",
                "auto, 128x128",
                "auto, 128x256",
                "a product, then auto"
            ]
        );
    }

    fn gathers(m: usize, n: usize) -> Vec<String> {
        let size = Size { m, n, k: 8192 };
        let point = Point {
            operation: Operation::AllGatherMatmul,
            size,
        };
        let ways = HOPPER.ways(&point, Gather::Rows, 2, DType::BF16);
        ways.iter().map(Way::to_string).collect()
    }

    #[test]
    fn tiles_are_streamed_where_all_rows_of_them_are_gone_through_together() {
        assert_eq!(
            gathers(16, 16384),
            [
                "auto in packets, 64x64",
                "auto in packets, 64x128",
                "auto, 64x64",
                "auto, 64x128",
                "auto in packets, 64x64, streamed",
                "auto in packets, 64x128, streamed",
                "auto, 64x64, streamed",
                "auto, 64x128, streamed"
            ]
        );
        // Of more columns a wider tile is measured, but in packets, which are for few rows, and for peers.
        let wide = gathers(16, 65536);
        assert!(wide.contains(&"auto, 64x256".to_owned()));
        assert!(!wide.iter().any(|way| way.contains("packets, 64x256")));
        let alone = Point {
            operation: Operation::AllGatherMatmul,
            size: Size {
                m: 16,
                n: 16384,
                k: 8192,
            },
        };
        let alone = HOPPER.ways(&alone, Gather::Rows, 1, DType::BF16);
        assert!(alone.iter().all(|way| !way.packets));
        assert!(
            gathers(17, 16384)
                .iter()
                .all(|way| !way.contains("packets"))
        );
        let streamed = |m| gathers(m, 16384).iter().any(|way| way.contains("streamed"));
        assert!(streamed(1024) && !streamed(1025));
        let scattered = ways(HOPPER, Operation::MatmulReduceScatter, 16);
        assert!(scattered.iter().all(|way| !way.contains("streamed")));
    }

    #[test]
    fn tiles_of_192_columns_are_measured_where_they_fill_the_multiprocessors_better() {
        let of = |m, n| {
            let mut ways = gathers(m, n);
            ways.retain(|way| !way.contains("streamed"));
            ways
        };
        assert_eq!(
            of(512, 10240),
            [
                "auto, 128x64",
                "auto, 128x128",
                "auto, 128x192",
                "auto, 128x256"
            ]
        );
        assert_eq!(of(512, 16384).len(), 3);
    }

    #[test]
    fn elsewhere_the_tile_is_left_as_it_is() {
        let host = Backend {
            packets: false,
            multiprocessors: None,
        };
        let of = |operation, m| {
            let mut ways = ways(host, operation, m);
            ways.retain(|way| !way.starts_with("a product"));
            ways
        };
        assert_eq!(of(Operation::MatmulAllReduce, 16), ["one_shot", "two_shot"]);
        assert_eq!(of(Operation::MatmulAllReduce, 8192), ["two_shot"]);
        assert_eq!(of(Operation::AllGatherMatmul, 16), ["auto"]);
        let portable = Backend {
            packets: true,
            ..host
        };
        assert_eq!(
            ways(portable, Operation::MatmulAllReduce, 16)[..4],
            [
                "one_shot in packets",
                "one_shot",
                "two_shot in packets",
                "two_shot"
            ]
        );
        let few = ways(portable, Operation::AllGatherMatmul, 16);
        assert_eq!(few, ["auto in packets", "auto"]);
        assert_eq!(ways(portable, Operation::AllGatherMatmul, 17), ["auto"]);
        let vast = Size {
            m: usize::MAX,
            n: 3,
            k: 1,
        };
        let point = Point {
            operation: Operation::MatmulAllReduce,
            size: vast,
        };
        assert_eq!(portable.ways(&point, Gather::Rows, 2, DType::F32).len(), 2);
    }
}
