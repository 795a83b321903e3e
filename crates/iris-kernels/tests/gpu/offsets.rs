//! Results with more than 2^31 elements, staged in more than 2^32 bytes.

use crate::harness::{Case, Form, Plan, Ranks, all_right};
use iris_kernels::DType;
use iris_kernels::host::Program;
use iris_testkit::device::{Expected, Gpus, Part};
use iris_testkit::skipped;

const M: usize = 65_536;
const N: usize = 40_960;
const SAMPLES: usize = 200_000;
/// Both banks, and the first once more.
const CALLS: u64 = 3;

#[test]
fn results_of_more_elements_than_32_bits_count() {
    let Some(gpus) = Gpus::take("offsets", 1) else {
        return;
    };
    let placement = gpus.usual();
    for program in [Program::TwoShot, Program::ReduceScatter] {
        let mut case = Case::new(program, DType::BF16, &[M], N, 16 * placement.world());
        case.samples = SAMPLES;
        case.form = Form {
            bias: true,
            ..Form::default()
        };
        let plan = Plan::new(&case, placement.world());
        let needed = placement.each as u64 * (plan.bytes + plan.arena) as u64;
        let there = gpus.devices()[0].info().memory;
        if needed > there / 10 * 9 {
            let why = format!("it needs {needed} bytes of {there}");
            skipped(&format!("offsets of {program:?}"), why);
            continue;
        }
        let ranks = Ranks::new(&gpus, placement.clone(), std::slice::from_ref(&case));
        let reports = ranks.run(&case, |side| {
            for call in 0..CALLS {
                side.call(call)?;
                // The last tile, all of it.
                let whole = side.result(call);
                let (rows, cols) = (whole.rows.min(128), whole.cols.min(128));
                let (row, col) = (whole.rows - rows, whole.cols - cols);
                let element = case.dtype.bytes() as u64;
                let last = Expected {
                    part: Part {
                        address: whole.address + (row * whole.row_stride + col) * element,
                        rows,
                        cols,
                        row0: whole.row0 + row,
                        col0: whole.col0 + col,
                        ..whole
                    },
                    samples: 0,
                    ..side.expected(call)
                };
                side.check_as(call, &last)?;
            }
            Ok(())
        });
        all_right(&case, &reports, CALLS);
        println!(
            "  {program:?}, {} ranks: {} bytes a rank",
            ranks.world(),
            plan.bytes + plan.arena
        );
    }
}
