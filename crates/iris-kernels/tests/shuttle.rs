//! The programs' real code under shuttle: 3 to 8 ranks, random sequentially consistent interleavings of every access to a
//! word. `RUSTFLAGS="--cfg shuttle" cargo test -p iris-kernels --test shuttle`.
//!
//! Each control takes one rule out and must be seen to fail.
#![cfg(shuttle)]

mod common;

use common::{Arena, Case};
use iris_kernels::host::Program;
use iris_sync::{Polls, Ring, Rule, Rules, Word};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Polls before a wait is given up. Far more than any interleaving here needs.
const PATIENCE: Polls = Polls(20_000);

fn explore<W: Word>(case: Case, schedules: usize) {
    shuttle::check_random(
        move || {
            let arena = Arc::new(Arena::new::<f32, W>(case.clone()));
            let ranks: Vec<_> = (0..case.world)
                .map(|rank| {
                    let arena = Arc::clone(&arena);
                    shuttle::thread::spawn(move || {
                        arena
                            .run::<f32, W>(rank, PATIENCE, |call, right, got| {
                                assert_eq!(right, got, "call {call} of rank {rank}");
                            })
                            .unwrap();
                    })
                })
                .collect();
            for rank in ranks {
                rank.join().unwrap();
            }
        },
        schedules,
    );
}

fn must_fail<W: Word>(case: Case, rules: &[Rule], why: &str) {
    let mut broken = case.clone();
    // SAFETY: staging is raw memory that this test alone looks at; what it reads there is compared, and nothing else.
    broken.rules = unsafe { Rules::without(rules) };
    let outcome = catch_unwind(AssertUnwindSafe(|| explore::<W>(broken, 2_000)));
    assert!(
        outcome.is_err(),
        "{why}: {rules:?} was taken out, and nothing failed"
    );
    explore::<W>(case, 200);
}

/// More rows than ranks, fewer, one; the size varies from call to call.
const SIZES: [usize; 6] = [5, 1, 2, 7, 1, 6];

#[test]
fn three_ranks() {
    for program in Program::ALL {
        let mut case = Case::new(program, 3, &SIZES, 3, 4);
        explore::<Ring<7>>(case.clone(), 60);
        case.k = 2; // the last rank has no depth
        case.n = 2; // and no columns
        case.first = 6;
        explore::<Ring<7>>(case.clone(), 60);
        explore::<Ring<9>>(case, 30);
    }
}

#[test]
fn four_and_five_ranks() {
    for program in Program::ALL {
        for world in [4, 5] {
            explore::<Ring<7>>(Case::new(program, world, &SIZES[1..5], 3, 3), 25);
        }
    }
}

#[test]
fn eight_ranks() {
    for program in Program::ALL {
        explore::<Ring<7>>(Case::new(program, 8, &[3, 9, 1, 9], 2, 5), 8);
    }
}

/// One rank owns all rows; the others only send.
fn one_owner() -> Case {
    Case::new(Program::ReduceScatter, 3, &[1; 6], 2, 3)
}

#[test]
fn without_the_gate_a_bank_is_overwritten() {
    must_fail::<Ring<7>>(
        one_owner(),
        &[Rule::Gate],
        "writers run ahead of a slow owner",
    );
}

#[test]
fn with_a_gate_for_writers_only_an_idle_rank_runs_ahead_of_the_ring() {
    let mut case = one_owner();
    case.calls = vec![1; 14];
    case.k = 2; // rank 2 has neither depth nor rows
    must_fail::<Ring<7>>(case, &[Rule::GateOfAll], "an idle rank laps the ring");
}

#[test]
fn without_entered_an_output_is_overwritten_while_its_user_reads_it() {
    let case = Case::new(Program::MatmulAllGather, 3, &[1; 5], 2, 2);
    must_fail::<Ring<7>>(case, &[Rule::Entered], "the owner does not wait");
}

#[test]
fn equality_at_a_gate_misses_a_peer_that_went_on() {
    must_fail::<Ring<7>>(one_owner(), &[Rule::Reached], "the word has moved on");
}

#[test]
fn a_plain_compare_is_never_over_after_the_wrap() {
    let mut case = one_owner();
    case.calls = vec![1; 10];
    must_fail::<Ring<7>>(case, &[Rule::ReachedOnRing], "1 is not >= 7");
}

#[test]
fn banks_by_the_parity_of_the_value_collide_at_the_wrap() {
    let mut case = one_owner();
    case.calls = vec![1; 12];
    must_fail::<Ring<7>>(case, &[Rule::BankFromIndex], "7 and 1 are both odd");
}

#[test]
fn one_bank_is_overwritten() {
    let case = Case::new(Program::OneShot, 3, &[1; 5], 2, 3);
    must_fail::<Ring<7>>(case, &[Rule::TwoBanks], "a fast peer is a call ahead");
}

#[test]
fn a_frozen_value_believes_the_call_before() {
    let case = Case::new(Program::TwoShot, 3, &[2; 5], 2, 3);
    must_fail::<Ring<7>>(
        case,
        &[Rule::ValueFromIndex],
        "the words hold the value already",
    );
}

#[test]
fn without_gathered_an_output_has_holes() {
    let case = Case::new(Program::TwoShot, 3, &[5; 3], 3, 3);
    must_fail::<Ring<7>>(
        case,
        &[Rule::Gathered],
        "the user reads before the owners have stored",
    );
}

#[test]
fn a_ring_of_three_or_five_is_too_small() {
    // Rank 1 only sends: it may be three calls ahead of what the owner waits for at its gate.
    let mut case = one_owner();
    case.calls = vec![1; 16];
    let fails = |run: fn(Case, usize)| {
        let case = case.clone();
        catch_unwind(AssertUnwindSafe(|| run(case, 3_000))).is_err()
    };
    assert!(fails(explore::<Ring<3>>), "a ring of 3");
    assert!(fails(explore::<Ring<5>>), "a ring of 5");
    explore::<Ring<7>>(case, 300);
}

#[test]
fn words_left_unused_for_two_laps_are_believed_unless_cleared() {
    // Two tiles in the first call, one in the next 13, then two again: the second tile's word is 14 = 2 * 7 calls old. With
    // three ranks a sender can be held up between handing its second tile to one and to the other.
    let mut sizes = vec![4];
    sizes.extend([2; 13]);
    sizes.push(4);
    let case = Case::new(Program::OneShot, 3, &sizes, 2, 3);
    must_fail::<Ring<7>>(case, &[Rule::Clear], "a word from two laps ago");
}
