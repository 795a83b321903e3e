//! Every program, in every dtype, on ragged and on large shapes, with fewer and with more ranks than GPUs.

use crate::harness::{Case, Form, Ranks, takes_given};
use iris_kernels::DType;
use iris_kernels::host::Program;
use iris_testkit::RAGGED;
use iris_testkit::device::Gpus;

/// (n, k) beside rows from less than a tile to two of them.
const TILES: [(usize, usize); 6] = [(1, 1), (7, 2), (129, 40), (300, 17), (64, 1), (256, 64)];
const ROWS: [usize; 9] = [1, 200, 3, 130, 2, 128, 200, 1, 65];

/// (m, n, k) of each rank's product.
const LARGE: [(usize, usize, usize); 4] = [
    (16, 8192, 3584),
    (2048, 8192, 3584),
    (8192, 8192, 1024),
    (333, 777, 129),
];
/// Elements that are checked of a result.
const SAMPLES: usize = 20_000;

fn every_program(
    test: &'static str,
    large: bool,
    cases: impl Fn(Program, DType, usize) -> Vec<Case>,
) {
    let Some(gpus) = Gpus::take(test, 1) else {
        return;
    };
    for placement in gpus.worlds() {
        let world = placement.world();
        let dtypes = DType::ALL.map(|dtype| vec![dtype]);
        // Large worlds have memory for one dtype at a time.
        let groups = if large {
            dtypes.to_vec()
        } else {
            vec![DType::ALL.to_vec()]
        };
        for group in groups {
            let cases: Vec<_> = group
                .iter()
                .flat_map(|&dtype| Program::ALL.map(|program| cases(program, dtype, world)))
                .flatten()
                .collect();
            let since = std::time::Instant::now();
            let ranks = Ranks::new(&gpus, placement.clone(), &cases);
            let ready = since.elapsed();
            for case in &cases {
                ranks.right(case, case.rows.len() as u64);
            }
            println!(
                "  {world} ranks, {} a GPU, {group:?}: {} cases; {:.1} s to prepare, {:.1} s",
                placement.each,
                cases.len(),
                ready.as_secs_f64(),
                since.elapsed().as_secs_f64()
            );
        }
    }
}

#[test]
fn small() {
    every_program("shapes::small", false, |program, dtype, _| {
        let calls = |(at, (m, n, k)): (usize, (usize, usize, usize))| {
            let mut case = Case::new(program, dtype, &[m, m.div_ceil(2), 1, m, m], n, k);
            case.form = Form::number(at);
            case.seed = at as u64;
            case.first = [1, i64::from(i32::MAX) - 3, i64::from(i32::MAX)][at % 3];
            case
        };
        RAGGED.into_iter().enumerate().map(calls).collect()
    });
}

#[test]
fn tiles() {
    every_program("shapes::tiles", false, |program, dtype, world| {
        let mut cases = Vec::new();
        for (at, (n, k)) in TILES.into_iter().enumerate() {
            let mut case = Case::new(program, dtype, &ROWS, n, k);
            case.form = Form::number(at * 5 + 3);
            case.seed = at as u64;
            case.first = i64::from(i32::MAX) - 3;
            case.blocks = vec![0, 1, 3, 0, 7];
            cases.push(case.clone());
            // The collective alone; as much depth as ranks, so that every rank takes part.
            if takes_given(program) {
                case.k = world;
                case.form.given = true;
                cases.push(case);
            }
        }
        cases
    });
}

/// A few calls of every program: for tools that slow kernels down.
#[test]
fn few() {
    every_program("shapes::few", false, |program, dtype, _| {
        let mut case = Case::new(program, dtype, &[150, 1], 139, 35);
        case.form = Form::number(2);
        case.blocks = vec![3];
        vec![case]
    });
}

/// The whole problem in which each rank's product is of this size.
fn whole(
    program: Program,
    world: usize,
    (m, n, k): (usize, usize, usize),
) -> (usize, usize, usize) {
    match program {
        Program::AllGatherMatmul(_) => (m, n * world, k),
        Program::MatmulAllGather => (m * world, n, k),
        _ => (m, n, k * world),
    }
}

#[test]
fn large() {
    every_program("shapes::large", true, |program, dtype, world| {
        LARGE
            .into_iter()
            .enumerate()
            .map(|(at, sizes)| {
                let (m, n, k) = whole(program, world, sizes);
                let mut case = Case::new(program, dtype, &[m, m / 2 + 1, m], n, k);
                case.form = Form::number(at % 2);
                case.samples = SAMPLES;
                case
            })
            .collect()
    });
}
