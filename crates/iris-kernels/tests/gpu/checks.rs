//! The checks themselves: that devices draw the numbers that the host does, and that what is wrong is found.

use crate::harness::{Case, Ranks};
use half::{bf16, f16};
use iris_heap::device::Memory;
use iris_kernels::host::Program;
use iris_kernels::{DType, Element};
use iris_testkit::device::{Content, Expected, Gpus, Numbers, Part, check::element};

const ROWS: usize = 37;
const COLS: usize = 29;
const DEPTH: usize = 21;

fn part(address: u64, cols: usize) -> Part {
    Part {
        address,
        rows: ROWS as u64,
        cols: cols as u64,
        row_stride: cols as u64 + 2,
        col_stride: 1,
        row0: 3,
        col0: 5,
    }
}

fn check<T: Element>(gpus: &Gpus) {
    let case = Case::new(Program::OneShot, T::DTYPE, &[1], 1, 1);
    let ranks = Ranks::new(gpus, gpus.place(1), std::slice::from_ref(&case));
    let (checks, stream) = (ranks.checks(0, &case), &ranks.memories[0].stream);
    let verdict = &ranks.memories[0].verdict;
    let numbers = Numbers::exact(7, DEPTH);
    let len = ROWS * (COLS + 2);
    let memory = Memory::new(&gpus.devices()[0], len * size_of::<T>()).unwrap();
    let mut host = vec![T::NAN; len];

    // What is drawn there is what is drawn here, and gaps are left alone.
    stream.fill(&memory, 0, memory.len(), 0xff).unwrap();
    let matrix = part(memory.address(), COLS);
    let job = (matrix, 100, Content::Integers(1));
    // SAFETY: the part lies in `memory`, which lives until the end.
    unsafe { checks.fill(stream, &numbers, &[job]) }.unwrap();
    stream
        .read(&memory, 0, bytemuck::cast_slice_mut(&mut host))
        .unwrap();
    for (at, value) in host.iter().enumerate() {
        let (row, col) = (at / (COLS + 2), at % (COLS + 2));
        if col < COLS {
            let expected: T = element(&numbers, 1, (row + 3) * 100 + col + 5);
            assert_eq!(*value, expected, "row {row}, column {col}");
        } else {
            assert!(
                value.to_f32().is_nan(),
                "row {row}, column {col} is outside"
            );
        }
    }

    // A product made here is right there; with one element wrong, that one is found; and so is a sum of matrices.
    let product = |row: usize, col: usize| -> i32 {
        let (row, col) = (row + 3, col + 5);
        let sum: i32 = (0..DEPTH)
            .map(|at| numbers.integer(1, row * DEPTH + at) * numbers.integer(2, at * 100 + col))
            .sum();
        sum + numbers.integer(3, col)
    };
    let matrices = |row: usize, col: usize| -> i32 {
        let place = (row + 3) * 100 + col + 5;
        (16..19).map(|tensor| numbers.integer(tensor, place)).sum()
    };
    let expected = Expected {
        part: matrix,
        n: 100,
        k: DEPTH,
        matrices: 0,
        a: 1,
        b: 2,
        bias: 3,
        samples: 0,
    };
    let sum = Expected {
        matrices: 3,
        a: 16,
        bias: 0,
        ..expected
    };
    let sampled = Expected {
        samples: 5000,
        ..expected
    };
    for (expected, value) in [
        (expected, &product as &dyn Fn(usize, usize) -> i32),
        (sum, &matrices),
        (sampled, &product),
    ] {
        for wrong in [None, Some((0, 0)), Some((ROWS - 1, COLS - 1))] {
            for (at, element) in host.iter_mut().enumerate() {
                let (row, col) = (at / (COLS + 2), at % (COLS + 2));
                let off = if wrong == Some((row, col)) { 1 } else { 0 };
                *element = T::from_f32((value(row, col) + off) as f32);
            }
            stream
                .write(&memory, 0, bytemuck::cast_slice(&host))
                .unwrap();
            verdict.clear(stream).unwrap();
            // SAFETY: as above.
            let checked = unsafe { checks.check(stream, &numbers, &expected, verdict) }.unwrap();
            let found = verdict.read(stream).unwrap();
            match wrong {
                None => assert_eq!(found.right(checked), Ok(())),
                Some((row, col)) => {
                    assert!(found.right(checked).is_err(), "{found:?}");
                    assert!(expected.samples != 0 || found.wrong == 1, "{found:?}");
                    assert_eq!((found.row, found.col), (row as u64 + 3, col as u64 + 5));
                }
            }
            assert!(found.right(checked + 1).is_err());
        }
    }

    // The digest tells any two results apart that differ in a bit or in their order.
    let mut digests = Vec::new();
    for change in 0..3 {
        let mut host: Vec<T> = (0..len).map(|at| element(&numbers, 1, at)).collect();
        match change {
            0 => {}
            1 => host[COLS - 1] = T::from_f32(100.0),
            _ => host.reverse(),
        }
        stream
            .write(&memory, 0, bytemuck::cast_slice(&host))
            .unwrap();
        verdict.clear(stream).unwrap();
        // SAFETY: as above.
        unsafe { checks.digest(stream, matrix, verdict) }.unwrap();
        digests.push(verdict.read(stream).unwrap().digest);
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 3);
}

#[test]
fn devices_draw_what_the_host_draws_and_find_what_is_wrong() {
    if let Some(gpus) = Gpus::take("checks", 1) {
        check::<f32>(&gpus);
        check::<f16>(&gpus);
        check::<bf16>(&gpus);
    }
}

/// Holds one result of each program against products made on the host: whoever fills and checks alike could be wrong alike.
#[test]
fn results_are_right_by_the_hosts_own_numbers() {
    let Some(gpus) = Gpus::take("by_the_hosts_numbers", 1) else {
        return;
    };
    let (m, n, k) = (131, 137, 45);
    let cases: Vec<_> = Program::ALL
        .into_iter()
        .map(|program| Case::new(program, DType::F32, &[m], n, k))
        .collect();
    let ranks = Ranks::new(&gpus, gpus.usual(), &cases);
    for case in &cases {
        ranks.run(case, |side| {
            side.call(0)?;
            let (part, numbers) = (side.result(0), side.numbers(0));
            let memories = side.memories();
            let mut got = vec![f32::NAN; (part.rows * part.row_stride) as usize];
            let bytes = bytemuck::cast_slice_mut(&mut got);
            if case.program.stores_to_peers() {
                let at = part.address - memories.heap.address();
                memories.stream.read(&memories.heap, at as usize, bytes)?;
            } else {
                let at = part.address - memories.arena.address();
                memories.stream.read(&memories.arena, at as usize, bytes)?;
            }
            for row in 0..part.rows as usize {
                for col in 0..part.cols as usize {
                    let (i, j) = (row + part.row0 as usize, col + part.col0 as usize);
                    let sum: i32 = (0..k)
                        .map(|at| numbers.integer(1, i * k + at) * numbers.integer(2, at * n + j))
                        .sum();
                    let expected = (sum + numbers.integer(3, j)) as f32;
                    let got = got[row * part.row_stride as usize + col];
                    assert_eq!(got, expected, "{:?}: row {i}, column {j}", case.program);
                }
            }
            Ok(())
        });
    }
}
