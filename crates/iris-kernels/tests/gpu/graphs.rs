//! Calls captured in graphs: what a call is follows from the index in device memory, so that a launch can be replayed.

use crate::harness::{Case, Ranks, Side, all_right};
use iris_heap::device::{DeviceError, Graph};
use iris_kernels::DType;
use iris_kernels::host::Program;
use iris_testkit::device::{Gpu, Gpus};
use std::time::Instant;

/// Rows of three calls of a graph, of three of another, and of calls between the graphs.
const ROWS: [usize; 8] = [300, 1, 129, 2, 64, 300, 7, 200];
const LAUNCHES: u64 = 1000;

/// Inputs, calls and checks of calls `first..first + 3`, captured; and how many elements one launch looks at.
fn capture(side: &mut Side<'_>, first: u64) -> Result<(Graph<Gpu>, u64), DeviceError> {
    let (stream, before) = (side.stream(), side.checked());
    let graph = stream.capture(|| (first..first + 3).try_for_each(|call| counted(side, call)))?;
    let checked = side.checked() - before;
    side.expect_checked(before);
    Ok((graph, checked))
}

/// A call whose inputs follow from the device's count.
fn counted(side: &mut Side<'_>, call: u64) -> Result<(), DeviceError> {
    side.call(call)?;
    side.advance()
}

/// Launches two graphs in turn, with single calls in between. Returns how many calls that is.
fn replay(side: &mut Side<'_>) -> Result<u64, DeviceError> {
    side.counted = true;
    let graphs = [capture(side, 0)?, capture(side, 3)?];
    // Making a graph may wait for the device, and so for kernels that wait for peers.
    side.meet();
    let mut calls = 0;
    for launch in 0..LAUNCHES {
        let (graph, checked) = &graphs[(launch / 3 % 2) as usize];
        // SAFETY: what was captured uses memory and modules that outlive the run, which ends with the stream empty.
        unsafe { graph.launch(side.stream()) }?;
        side.expect_checked(side.checked() + checked);
        calls += 3;
        if launch % 5 < 2 {
            counted(side, 6 + launch % 2)?;
            calls += 1;
        }
    }
    side.stream().synchronize()?;
    Ok(calls)
}

#[test]
fn two_graphs_and_single_calls_on_one_workspace() {
    let Some(gpus) = Gpus::take("graphs", 1) else {
        return;
    };
    let cases: Vec<_> = Program::ALL
        .into_iter()
        .zip(DType::ALL.into_iter().cycle())
        .map(|(program, dtype)| {
            let mut case = Case::new(program, dtype, &ROWS, 200, 33);
            case.first = i64::from(i32::MAX) - 3;
            case
        })
        .collect();
    let ranks = Ranks::new(&gpus, gpus.usual(), &cases);
    let since = Instant::now();
    let calls = LAUNCHES * 3 + LAUNCHES / 5 * 2;
    for case in &cases {
        let reports = ranks.run(case, |side| {
            assert_eq!(replay(side)?, calls);
            Ok(())
        });
        all_right(case, &reports, calls);
    }
    let each = since.elapsed().as_secs_f64() / (calls * cases.len() as u64) as f64;
    println!(
        "  {} ranks: {} cases of {calls} calls, {:.1} us a call with its inputs and its check",
        ranks.world(),
        cases.len(),
        each * 1e6
    );
}
