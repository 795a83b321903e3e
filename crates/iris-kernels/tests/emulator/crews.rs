//! Hopper's kernels, whose blocks consist of crews, with the emulator's copies, barriers and matrix instructions in place of Hopper's.

use crate::cases::lines;
use crate::compile::{compiler, emulate, own};
use iris_kernels::device::compile::Request;
use iris_kernels::device::fast::Crews;
use iris_kernels::host::{GatherDim, Program};
use iris_kernels::{DType, Tile};
use std::path::PathBuf;

/// A kernel as the host has it compiled, and what a case must say of it.
struct Kernel {
    text: String,
    definitions: Vec<String>,
    describe: String,
}

impl Kernel {
    fn of(program: Program, (m, n): (usize, usize), dtype: DType) -> Self {
        let tile = Tile { m, n };
        let crews = Crews::of_program(program, tile).expect("there are fast kernels of it");
        let architecture = "sm_90a".parse().expect("it is known");
        let request = crews.request(Request::program(program, dtype, tile, architecture));
        let op = program.kernel().1.trim_start_matches("iris_");
        Self {
            text: request.source().text().to_owned(),
            definitions: request.definitions().to_vec(),
            describe: format!(
                "op={op} dtype={dtype} lanes=32 threads={} tile={m},{n} crews={}",
                crews.threads(),
                crews.shared()
            ),
        }
    }

    fn compile(&self) -> PathBuf {
        let definitions: Vec<_> = self
            .definitions
            .iter()
            .filter_map(|it| it.split_once('='))
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        own("crews", &self.text, 32, &definitions)
    }
}

/// Runs a program with tiles of two sizes on all shapes.
fn check(program: Program) {
    if compiler().is_none() {
        return;
    }
    for (tile, dtype) in [((64, 64), DType::BF16), ((128, 128), DType::F16)] {
        let kernel = Kernel::of(program, tile, dtype);
        let op = program.kernel().1.trim_start_matches("iris_");
        let lines = lines(&kernel.describe, op);
        let results = emulate(&[&kernel.compile()], &lines);
        assert_eq!(lines.len(), results.len());
        for (line, result) in lines.iter().zip(&results) {
            assert_eq!(result, "ok", "{line}");
        }
    }
}

#[test]
fn one_shot_packets() {
    check(Program::OneShotPackets);
}

#[test]
fn two_shot() {
    check(Program::TwoShot);
}

#[test]
fn matmul_reduce_scatter() {
    check(Program::ReduceScatter);
}

#[test]
fn matmul_reduce_scatter_packets() {
    check(Program::ReduceScatterPackets);
}

#[test]
fn all_gather_matmul_of_rows() {
    check(Program::AllGatherMatmul(GatherDim::Rows));
}

#[test]
fn all_gather_matmul_of_columns() {
    check(Program::AllGatherMatmul(GatherDim::Columns));
}

#[test]
fn matmul_all_gather() {
    check(Program::MatmulAllGather);
}
