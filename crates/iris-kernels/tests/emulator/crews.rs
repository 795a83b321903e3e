//! Hopper's kernels, whose blocks consist of crews, with the emulator's copies, barriers and matrix instructions in place of Hopper's.

use crate::cases::{MAX, lines};
use crate::compile::{compiler, emulate};
use crate::kinds::{OfCrews, op_of};
use iris_kernels::DType;
use iris_kernels::host::{GatherDim, Program};

/// Runs a program with tiles of two sizes on all shapes.
fn check(program: Program, tiles: [(usize, usize); 2]) {
    if compiler().is_none() {
        return;
    }
    for (tile, dtype) in tiles.into_iter().zip([DType::BF16, DType::F16]) {
        let kernel = OfCrews::new(program, tile, dtype, MAX).compile();
        let lines = lines(&kernel.describe, op_of(program));
        let results = emulate(&[&kernel.path], &lines);
        assert_eq!(lines.len(), results.len());
        for (line, result) in lines.iter().zip(&results) {
            assert_eq!(result, "ok", "{line}");
        }
    }
}

#[test]
fn one_shot() {
    check(Program::OneShot, [(64, 128), (128, 64)]);
}

#[test]
fn one_shot_packets() {
    check(Program::OneShotPackets, [(64, 64), (64, 192)]);
}

#[test]
fn two_shot() {
    check(Program::TwoShot, [(64, 64), (128, 192)]);
}

#[test]
fn matmul_reduce_scatter() {
    check(Program::ReduceScatter, [(64, 128), (128, 128)]);
}

#[test]
fn matmul_reduce_scatter_packets() {
    check(Program::ReduceScatterPackets, [(64, 64), (128, 256)]);
}

#[test]
fn all_gather_matmul_of_rows() {
    check(
        Program::AllGatherMatmul(GatherDim::Rows),
        [(64, 64), (128, 128)],
    );
}

#[test]
fn all_gather_matmul_of_columns() {
    check(
        Program::AllGatherMatmul(GatherDim::Columns),
        [(64, 64), (128, 64)],
    );
}

#[test]
fn matmul_all_gather() {
    check(Program::MatmulAllGather, [(64, 256), (128, 128)]);
}
