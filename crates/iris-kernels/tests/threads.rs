//! Every program on threads, against exact references: small integers are summed without rounding in every order.

mod common;

use common::{Arena, Case};
use half::{bf16, f16};
use iris_kernels::Element;
use iris_kernels::host::Program;
use iris_sync::{Patience, Word};
use std::time::Duration;

fn run<T: Element, W: Word>(case: Case) {
    let arena = Arena::new::<T, W>(case.clone());
    std::thread::scope(|scope| {
        for rank in 0..case.world {
            let (arena, case) = (&arena, &case);
            scope.spawn(move || {
                let patience = Patience::new(Duration::from_secs(30), case.world);
                arena
                    .run::<T, W>(rank, patience, |call, right, got| {
                        assert_eq!(
                            right,
                            got,
                            "{:?} {} W={} call {call} m={} n={} k={} rank {rank}",
                            case.program,
                            T::DTYPE,
                            case.world,
                            case.calls[call],
                            case.n,
                            case.k
                        );
                    })
                    .unwrap();
            });
        }
    });
}

#[test]
fn every_program_is_right_on_ragged_shapes() {
    for program in Program::ALL {
        for world in [1, 2, 3, 4, 5, 8] {
            for (n, k) in [(1, 1), (7, 2), (5, 13), (11, 3)] {
                let case = Case::new(program, world, &[1, 7, 3, 13, 2, 5, 5, 1, 13], n, k);
                run::<f32, i32>(case.clone());
                run::<f16, i32>(case.clone());
                run::<bf16, i32>(case);
            }
        }
    }
}

#[test]
fn every_program_crosses_the_wrap() {
    for program in Program::ALL {
        for first in [i32::MAX as i64 - 3, 1] {
            let mut case = Case::new(program, 3, &[5, 1, 9, 2, 9, 9, 1, 1, 9, 4], 5, 4);
            case.first = first;
            run::<f32, i32>(case);
        }
        let mut case = Case::new(program, 3, &[5, 1, 9].repeat(100), 5, 4);
        case.first = 120;
        run::<f32, i8>(case);
    }
}
