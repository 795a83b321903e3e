//! Calls enqueued back to back on one workspace, as fast as the driver takes them, a GPU held up in the midst of a call now and then,
//! the counter started just below the wrap.

use crate::harness::{Build, Case, Form, Ranks, Stalls, all_right};
use iris_kernels::DType;
use iris_kernels::host::Program;
use iris_testkit::device::{Gpus, Placement};
use std::time::{Duration, Instant};

/// Rows that differ from call to call, fewer than ranks among them.
const ROWS: [usize; 11] = [40, 1, 300, 129, 2, 300, 128, 7, 64, 1, 3];

/// The calls in place of 10,000.
const CALLS: &str = "IRIS_TEST_CALLS";

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for program in Program::ALL {
        for (at, dtype) in DType::ALL.into_iter().enumerate() {
            let mut case = Case::new(program, dtype, &ROWS, 200, 33);
            case.first = i64::from(i32::MAX) - 3;
            case.build = Build::Stalls;
            case.stalls = Stalls::Random {
                seed: cases.len() as u64,
                one_in: 20,
                longest: Duration::from_micros(200),
            };
            case.form = Form {
                bias: true,
                bounced: at == 1,
                ..Form::default()
            };
            case.blocks = vec![0, 5, 0, 1, 12];
            cases.push(case);
        }
    }
    cases
}

fn back_to_back(gpus: &Gpus, placement: Placement, calls: u64) {
    let cases = cases();
    let ranks = Ranks::new(gpus, placement, &cases);
    let since = Instant::now();
    for case in &cases {
        ranks.right(case, calls);
    }
    let each = since.elapsed().as_secs_f64() / (cases.len() as u64 * calls) as f64;
    println!(
        "  {} ranks, {} a GPU: {} cases of {calls} calls, {:.1} us a call with its inputs and its check",
        ranks.world(),
        ranks.placement.each,
        cases.len(),
        each * 1e6
    );
}

#[test]
fn five_calls() {
    if let Some(gpus) = Gpus::take("reuse::five_calls", 1) {
        for placement in gpus.worlds() {
            back_to_back(&gpus, placement, 5);
        }
    }
}

#[test]
fn ten_thousand_calls() {
    let Some(gpus) = Gpus::take("reuse::ten_thousand_calls", 2) else {
        return;
    };
    let calls = std::env::var(CALLS)
        .ok()
        .and_then(|calls| calls.parse().ok())
        .unwrap_or(10_000);
    back_to_back(&gpus, gpus.usual(), calls);
}

#[test]
fn a_thousand_calls_of_ranks_that_share_gpus() {
    let Some(gpus) = Gpus::take("reuse::a_thousand_calls_shared", 1) else {
        return;
    };
    for placement in gpus.worlds() {
        if placement.is_shared() {
            back_to_back(&gpus, placement, 1000);
        }
    }
}

/// Grids of ranks that share a GPU run side by side whichever way they are launched.
#[test]
fn ranks_that_share_a_gpu_may_launch_cooperatively() {
    let Some(gpus) = Gpus::take("reuse::cooperative", 1) else {
        return;
    };
    let mut case = Case::new(Program::OneShot, DType::BF16, &ROWS, 200, 33);
    case.budget = Duration::from_secs(2);
    let placement = gpus.place(2 * gpus.devices().len());
    let ranks = Ranks::new(&gpus, placement, std::slice::from_ref(&case));
    let reports = ranks.run(&case, |side| {
        side.cooperative = true;
        (0..20).try_for_each(|call| side.call(call))
    });
    all_right(&case, &reports, 20);
}
