//! Calls that cannot be completed: every rank leaves in time, says why, and no kernel is left behind.

use crate::harness::{Build, Case, Ranks, Report, Stall, Stalls, TILE, describe};
use iris_kernels::DType;
use iris_kernels::host::Program;
use iris_sync::Phase;
use iris_testkit::device::{Gpus, budget};
use std::time::{Duration, Instant};

/// How long a wait may last that never ends.
const BUDGET: Duration = Duration::from_millis(300);
/// Within which all must have left, once somebody has given up.
const LEAVE: Duration = Duration::from_secs(2);

/// The causes of a fault, as records have them.
const ENDED: u64 = 0;
const ABORTED: u64 = 1;
const MISMATCH: u64 = 2;

fn cases(build: Build) -> Vec<Case> {
    Program::ALL
        .into_iter()
        .map(|program| {
            let mut case = Case::new(program, DType::BF16, &[200], 200, 33);
            case.build = build;
            case.budget = BUDGET;
            case
        })
        .collect()
}

/// Runs `check` for each program; afterwards the same memory serves for calls that are right.
fn each_program(test: &'static str, build: Build, check: impl Fn(&Ranks, &Case)) {
    let Some(gpus) = Gpus::take(test, 1) else {
        return;
    };
    let cases = cases(build);
    let ranks = Ranks::new(&gpus, gpus.usual(), &cases);
    for case in &cases {
        check(&ranks, case);
        let mut again = case.clone();
        again.budget = budget();
        again.stalls = Stalls::None;
        ranks.right(&again, 3);
    }
}

/// Whether a rank left its call with index `index` and told why.
fn left(report: &Report, rank: usize, index: u64) -> bool {
    report.fault.state == 1
        && report.fault.rank == rank as u64
        && report.fault.index == index
        && report.index == index
        && report.poisoned
}

fn say(reports: &[Report]) -> String {
    reports
        .iter()
        .map(|report| describe(&report.fault) + "\n")
        .collect()
}

/// All ranks but `missing` have left call `index`, each because it waited for `missing` for too long, or on behalf of one that had.
fn left_because_of(case: &Case, reports: &[Report], missing: usize, index: u64) {
    let said = || format!("{:?}: {}", case.program, say(reports));
    let mut named = false;
    for (rank, report) in reports.iter().enumerate() {
        if rank == missing {
            continue;
        }
        assert!(left(report, rank, index), "{}", said());
        let fault = &report.fault;
        let waited = fault.cause == ENDED && fault.waited == 1;
        named |= waited && fault.peer == missing as u64;
        assert!(waited || fault.cause == ABORTED, "{}", said());
    }
    assert!(named, "nobody names rank {missing}: {}", said());
}

#[test]
fn a_rank_that_never_calls_is_named() {
    each_program("faults::never_calls", Build::Plain, |ranks, case| {
        let missing = ranks.world() - 1;
        let since = Instant::now();
        let reports = ranks.run(case, |side| match side.rank == missing {
            true => Ok(()),
            false => side.launch(0),
        });
        assert!(
            since.elapsed() < BUDGET + LEAVE,
            "{case:?}: {:?}",
            since.elapsed()
        );
        left_because_of(case, &reports, missing, 0);
        // The one that never called has been asked to leave, and would.
        assert!(!reports[missing].poisoned);
    });
}

#[test]
fn calls_that_are_queued_behind_a_fault_leave_at_once() {
    const QUEUED: u64 = 1000;
    each_program("faults::queued", Build::Plain, |ranks, case| {
        let missing = ranks.world() - 1;
        let since = Instant::now();
        // The missing rank comes to make its calls after all, when the others have long left.
        let reports = ranks.run(case, |side| {
            let calls = if side.rank == missing {
                1..1
            } else {
                0..QUEUED
            };
            for call in calls {
                side.launch(call)?;
            }
            side.stream().synchronize()?;
            side.meet();
            side.launch(QUEUED)
        });
        assert!(
            since.elapsed() < BUDGET + LEAVE,
            "{case:?}: {:?}",
            since.elapsed()
        );
        left_because_of(case, &reports, missing, 0);
        let late = &reports[missing];
        assert!(
            left(late, missing, 0) && late.fault.cause == ABORTED,
            "{}",
            describe(&late.fault)
        );
    });
}

#[test]
fn ranks_that_call_with_different_rows_say_so() {
    each_program("faults::rows", Build::Plain, |ranks, case| {
        let other = ranks.world() - 1;
        let since = Instant::now();
        let reports = ranks.run(case, |side| {
            let mut args = side.args(0);
            if side.rank == other {
                args.m = 150;
                args = args.with_shares().gathering(case.program, TILE);
            }
            side.launch_with(&args)
        });
        assert!(since.elapsed() < BUDGET + LEAVE);
        let mut found = false;
        for (rank, report) in reports.iter().enumerate() {
            let fault = &report.fault;
            let rows = match rank == other {
                true => (150, 200),
                false => (200, 150),
            };
            let mismatch = fault.cause == MISMATCH && (fault.ours, fault.other) == rows;
            found |= mismatch;
            assert!(
                left(report, rank, 0) && (mismatch || fault.cause == ABORTED),
                "{:?}: {}",
                case.program,
                say(&reports)
            );
        }
        assert!(found, "{:?}: {}", case.program, say(&reports));
    });
}

#[test]
fn kernels_leave_when_the_host_asks() {
    each_program("faults::host", Build::Plain, |ranks, case| {
        let missing = ranks.world() - 1;
        let mut case = case.clone();
        case.budget = Duration::from_secs(60);
        let reports = ranks.run(&case, |side| {
            if side.rank == missing {
                return Ok(());
            }
            side.launch(0)?;
            std::thread::sleep(Duration::from_millis(100));
            assert!(!side.stream().is_idle()?, "{:?} waits", side.case.program);
            let since = Instant::now();
            side.ask_to_leave(missing);
            side.stream().synchronize()?;
            assert!(since.elapsed() < LEAVE, "{:?}", since.elapsed());
            Ok(())
        });
        for (rank, report) in reports.iter().enumerate().take(missing) {
            let fault = &report.fault;
            assert!(
                left(report, rank, 0) && fault.cause == ABORTED,
                "{}",
                describe(fault)
            );
            // Asked by its own host, or by a rank that was.
            assert_ne!(fault.other, rank as u64, "{}", describe(fault));
        }
    });
}

#[test]
fn a_rank_that_stands_still_in_a_call_is_named_and_leaves_too() {
    const STALL: Duration = Duration::from_millis(1000);
    each_program("faults::stands_still", Build::Stalls, |ranks, case| {
        let slow = ranks.world() - 1;
        let mut case = case.clone();
        case.stalls = Stalls::One(Stall {
            rank: slow,
            index: 1,
            phase: Phase::Begin,
            duration: STALL,
        });
        let since = Instant::now();
        let reports = ranks.run(&case, |side| (0..10).try_for_each(|call| side.launch(call)));
        assert!(since.elapsed() < STALL + LEAVE, "{:?}", since.elapsed());
        left_because_of(&case, &reports, slow, 1);
        // It has been handed all it needs for the call it is in, and may complete that.
        let late = &reports[slow];
        let index = late.fault.index;
        assert!(
            left(late, slow, index) && (1..=2).contains(&index) && late.fault.cause == ABORTED,
            "{}",
            describe(&late.fault)
        );
    });
}
