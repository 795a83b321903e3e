//! Negative controls: with one rule of the protocol removed, what is right with all of them is wrong, or ends in a fault, within its
//! budget.
//!
//! One rank is held up at one point, inside a kernel of ours or in the user's next one, so that the others come to do what the rule
//! forbids. Worlds are lopsided: with fewer rows, columns or depth than ranks, somebody waits for nobody, and runs ahead.

use crate::harness::{Build, Case, Ranks, Report, Side, Stall, Stalls, all_right, describe};
use iris_heap::device::DeviceError;
use iris_kernels::DType;
use iris_kernels::device::FaultRecord;
use iris_kernels::host::{GatherDim, Program};
use iris_sync::{Phase, Rule};
use iris_testkit::device::{Gpus, budget};
use std::time::{Duration, Instant};

const MAX: i64 = i32::MAX as i64;
/// For how long who is held up stands still. Others make many calls meanwhile.
const STALL: Duration = Duration::from_millis(200);
/// How long a wait may last that a removed rule makes endless.
const BUDGET: Duration = Duration::from_secs(1);
/// What else a control may take: launches, and the rest of the calls.
const SLACK: Duration = Duration::from_secs(3);

const GATHER: Program = Program::AllGatherMatmul(GatherDim::Rows);

/// How a control ends without its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// No rank faults, and some result is not what it should be.
    Wrong,
    /// Some rank gives up.
    Fault,
}

/// What a rank's user has on the stream beside the calls.
#[derive(Clone, Copy)]
enum User {
    /// Nothing that is late.
    Prompt,
    /// Reads call 0's output late, on rank 0.
    ReadsLate,
    /// Writes the output late before call 1, on rank 0.
    WritesLate,
    /// Has a graph of one call that is launched again and again.
    Replays,
}

struct Control {
    rule: Rule,
    world: usize,
    case: Case,
    calls: u64,
    user: User,
    ends: &'static [End],
}

impl Control {
    /// Calls with so many rows each.
    fn new(rule: Rule, program: Program, world: usize, rows: &[usize], n: usize, k: usize) -> Self {
        let mut case = Case::new(program, DType::BF16, rows, n, k);
        case.build = Build::Controls;
        Self {
            rule,
            world,
            calls: rows.len() as u64,
            case,
            user: User::Prompt,
            ends: &[End::Wrong, End::Fault],
        }
    }

    fn stalled(mut self, rank: usize, index: u64, phase: Phase) -> Self {
        self.case.stalls = Stalls::One(Stall {
            rank,
            index,
            phase,
            duration: STALL,
        });
        self
    }

    fn first(mut self, first: i64) -> Self {
        self.case.first = first;
        self
    }

    fn small_ring(mut self) -> Self {
        self.case.build = Build::SmallRing;
        self
    }

    fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    fn ends(mut self, ends: &'static [End]) -> Self {
        self.ends = ends;
        self
    }

    fn body(&self, side: &mut Side<'_>) -> Result<(), DeviceError> {
        if matches!(self.user, User::Replays) {
            return replay(side, self.calls);
        }
        for call in 0..self.calls {
            let late = |side: &mut Side<'_>, late| {
                side.checks.stall = if late && side.rank == 0 {
                    STALL
                } else {
                    Duration::ZERO
                };
            };
            late(side, matches!(self.user, User::WritesLate) && call == 1);
            side.fill(call)?;
            side.launch(call)?;
            late(side, matches!(self.user, User::ReadsLate) && call == 0);
            side.check(call)?;
        }
        Ok(())
    }

    /// Right with all rules, and not without the one.
    fn check(&self, gpus: &Gpus) {
        let ranks = Ranks::new(
            gpus,
            gpus.place(self.world),
            std::slice::from_ref(&self.case),
        );
        let mut case = self.case.clone();
        case.budget = budget();
        let reports = ranks.run(&case, |side| self.body(side));
        all_right(&case, &reports, self.calls);

        case.budget = BUDGET;
        case.removed = vec![self.rule];
        let since = Instant::now();
        let reports = ranks.run(&case, |side| self.body(side));
        let took = since.elapsed();
        let name = format!(
            "{:?} on {:?}, {} ranks",
            self.rule, case.program, self.world
        );
        let end = ended(&reports);
        println!("  without {name}: {}", say(&reports));
        assert!(
            end.is_some_and(|end| self.ends.contains(&end)),
            "without {name}: {end:?}, not one of {:?}",
            self.ends
        );
        assert!(took < BUDGET + STALL + SLACK, "without {name}: {took:?}");
    }
}

/// A call captured once and launched `calls` times.
fn replay(side: &mut Side<'_>, calls: u64) -> Result<(), DeviceError> {
    side.counted = true;
    let stream = side.stream();
    let graph = stream.capture(|| {
        side.fill(0)?;
        side.launch(0)?;
        side.check(0)?;
        side.advance()
    })?;
    side.expect_checked(side.checked() * calls);
    side.meet();
    for _ in 0..calls {
        // SAFETY: what was captured uses memory and modules that outlive the run, which ends with the stream empty.
        unsafe { graph.launch(stream) }?;
    }
    stream.synchronize()
}

fn faulted(report: &Report) -> bool {
    report.fault != FaultRecord::default()
}

/// How the ranks ended, if anything was amiss.
fn ended(reports: &[Report]) -> Option<End> {
    if reports.iter().any(faulted) {
        Some(End::Fault)
    } else {
        let wrong = reports.iter().any(|report| report.found.wrong > 0);
        wrong.then_some(End::Wrong)
    }
}

fn say(reports: &[Report]) -> String {
    // Who gave up by itself says more than who was asked to.
    const ABORTED: u64 = 1;
    let mut faults: Vec<_> = reports.iter().filter(|report| faulted(report)).collect();
    faults.sort_by_key(|report| report.fault.cause == ABORTED);
    if let Some(report) = faults.first() {
        return describe(&report.fault);
    }
    let wrong = reports.iter().enumerate().find_map(|(rank, report)| {
        let found = report.found.right(report.checked);
        found.err().map(|error| format!("rank {rank}: {error}"))
    });
    wrong.unwrap_or_else(|| "nothing is amiss".to_owned())
}

fn controls(test: &'static str, controls: Vec<Control>) {
    let Some(gpus) = Gpus::take(test, 1) else {
        return;
    };
    let cases: Vec<_> = controls
        .iter()
        .map(|control| control.case.clone())
        .collect();
    crate::harness::compile(&gpus, &cases);
    for control in controls {
        control.check(&gpus);
    }
}

#[test]
fn without_the_gate_a_bank_is_overwritten_while_its_owner_reads() {
    // The last rank reduces nothing, has no columns, and so waits for nobody.
    let owner = |control: Control| control.stalled(0, 2, Phase::Read);
    controls(
        "controls::gate",
        vec![
            owner(Control::new(
                Rule::Gate,
                Program::ReduceScatter,
                2,
                &[1; 6],
                20,
                9,
            )),
            owner(Control::new(
                Rule::Gate,
                Program::ReduceScatter,
                3,
                &[2; 6],
                20,
                9,
            )),
            owner(Control::new(Rule::Gate, GATHER, 2, &[2; 6], 1, 9)),
        ],
    );
}

#[test]
fn without_a_gate_of_its_own_who_has_nothing_to_do_laps_the_ring() {
    // The last rank has no rows, and no columns or no depth: it neither writes nor reads.
    let mut all = Vec::new();
    for rule in [Rule::Gate, Rule::GateOfAll] {
        for (program, world, m, n, k) in [
            (GATHER, 2, 1, 1, 9),
            (GATHER, 3, 2, 2, 9),
            (Program::ReduceScatter, 2, 1, 20, 1),
        ] {
            all.push(
                Control::new(rule, program, world, &[m; 10], n, k)
                    .small_ring()
                    .stalled(0, 2, Phase::Begin),
            );
        }
    }
    controls("controls::gate_of_all", all);
}

#[test]
fn without_entered_a_peer_stores_into_an_output_that_its_user_has() {
    let control = |user| {
        Control::new(Rule::Entered, Program::MatmulAllGather, 2, &[40; 3], 20, 9)
            .user(user)
            .ends(&[End::Wrong])
    };
    controls(
        "controls::entered",
        vec![control(User::ReadsLate), control(User::WritesLate)],
    );
}

#[test]
fn equality_at_a_gate_misses_a_peer_that_has_moved_on() {
    // Rank 1 reduces nothing, and is at its gate of call 3 when rank 0 begins call 2.
    controls(
        "controls::reached",
        vec![
            Control::new(Rule::Reached, Program::ReduceScatter, 2, &[1; 4], 20, 9)
                .stalled(0, 1, Phase::Leave)
                .ends(&[End::Fault]),
        ],
    );
}

#[test]
fn a_plain_comparison_at_a_gate_fails_at_the_wrap() {
    // Call 1 signals MAX, call 2 signals 1. As above.
    controls(
        "controls::reached_on_ring",
        vec![
            Control::new(
                Rule::ReachedOnRing,
                Program::ReduceScatter,
                2,
                &[1; 4],
                20,
                9,
            )
            .first(MAX - 1)
            .stalled(0, 1, Phase::Leave)
            .ends(&[End::Fault]),
        ],
    );
}

#[test]
fn a_bank_from_the_value_is_shared_by_two_calls_at_the_wrap() {
    // Call 1 signals MAX, call 2 signals 1: both are odd.
    let control = |rule, world, rows: &[usize]| {
        Control::new(rule, Program::ReduceScatter, world, rows, 20, 9)
            .first(MAX - 1)
            .stalled(0, 1, Phase::Read)
    };
    controls(
        "controls::banks",
        vec![
            control(Rule::BankFromIndex, 2, &[1; 4]),
            control(Rule::BankFromIndex, 3, &[2; 4]),
            control(Rule::TwoBanks, 2, &[1; 4]),
        ],
    );
}

#[test]
fn a_value_that_is_passed_by_the_host_is_frozen_in_a_graph() {
    controls(
        "controls::value_from_index",
        vec![
            Control::new(
                Rule::ValueFromIndex,
                Program::ReduceScatter,
                2,
                &[3; 6],
                20,
                9,
            )
            .stalled(1, 2, Phase::Ready)
            .user(User::Replays),
        ],
    );
}

#[test]
fn a_word_that_is_not_cleared_is_believed_two_laps_later() {
    // Calls 0 and 14 have one value, and one bank, and alone use two tiles. Who makes the second is late with its data.
    let mut rows = [3; 15];
    rows[0] = 300;
    rows[14] = 300;
    controls(
        "controls::clear",
        vec![
            Control::new(Rule::Clear, Program::ReduceScatter, 2, &rows, 20, 9)
                .small_ring()
                .stalled(1, 14, Phase::Gate)
                .ends(&[End::Wrong]),
            Control::new(Rule::Clear, Program::OneShotPackets, 2, &rows, 20, 9)
                .small_ring()
                .stalled(1, 14, Phase::Gate)
                .ends(&[End::Wrong]),
        ],
    );
}

#[test]
fn a_packet_that_is_not_whole_is_believed_before_its_data_are_there() {
    controls(
        "controls::whole",
        vec![
            Control::new(Rule::Whole, Program::OneShotPackets, 2, &[3; 2], 20, 9)
                .stalled(1, 1, Phase::Ready)
                .ends(&[End::Wrong]),
        ],
    );
}

#[test]
fn without_gathered_a_user_reads_an_output_with_holes() {
    controls(
        "controls::gathered",
        vec![
            Control::new(Rule::Gathered, Program::TwoShot, 2, &[300; 2], 20, 9)
                .stalled(1, 0, Phase::Read)
                .ends(&[End::Wrong]),
        ],
    );
}
