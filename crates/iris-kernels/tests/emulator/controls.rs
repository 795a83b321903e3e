//! Negative controls: with one rule of the protocol removed, a case that is right with all of them is wrong, or ends in a fault.
//!
//! The cases stall one rank at one point, so that the others come to do what the rule forbids.

use crate::cases::MAX;
use crate::compile::{compiler, emulate};
use crate::kinds::{Kernel, OfCrews, kinds, kinds_of_two, program_of, with};
use iris_kernels::DType;
use iris_kernels::host::Program;
use iris_sync::{Phase, Rule};

/// The smallest ring that the rules allow: calls lap it soon.
const RING: u64 = 7;
/// How long a stalled rank stands still, in milliseconds: its peers make several calls meanwhile.
const STALL: u64 = 400;

struct Control {
    op: &'static str,
    rule: Rule,
    ring: u64,
    case: String,
    /// How the case ends without the rule: `wrong` data, or a `fault`, where a word is overwritten before it is seen.
    ends: &'static [&'static str],
}

fn stall(rank: u64, index: u64, phase: Phase) -> String {
    format!("stall={rank},{index},{},{STALL}", phase as u64)
}

fn run(control: &Control, kernel: &Kernel, removed: u64) -> String {
    let line = format!(
        "{} {} removed={removed} budget_ms={}",
        kernel.describe,
        control.case,
        if removed == 0 { 60_000 } else { 2_000 }
    );
    emulate(&[&kernel.path], &[line]).remove(0)
}

/// Right with all rules, and not without the one: with kernels of all kinds.
fn check(control: &Control) {
    if compiler().is_none() {
        return;
    }
    for kernel in kinds(program_of(control.op), control.ring) {
        let what = format!("{} {}", kernel.describe, control.case);
        let with_all = run(control, &kernel, 0);
        assert_eq!(with_all, "ok", "with all rules: {what}");
        let without = run(control, &kernel, 1 << control.rule as u32);
        assert!(
            control.ends.iter().any(|end| without.starts_with(end)),
            "without {:?}: {without}: {what}",
            control.rule
        );
    }
}

const RS: &str = "matmul_reduce_scatter";

#[test]
fn without_the_gate_a_bank_is_overwritten_while_its_owner_reads() {
    // Fewer rows than ranks: rank 2 reduces nothing, and so waits for nobody.
    check(&Control {
        op: RS,
        rule: Rule::Gate,
        ring: MAX,
        case: format!(
            "world=3 m=2,2,2,2,2,2 n=20 k=9 {}",
            stall(0, 2, Phase::Read)
        ),
        ends: &["wrong", "fault"],
    });
}

#[test]
fn a_gate_kept_by_writers_only_lets_the_others_lap_the_ring() {
    // Rank 2 has no rows of A and no columns of B: it neither writes nor reads.
    check(&Control {
        op: "all_gather_matmul_rows",
        rule: Rule::GateOfAll,
        ring: RING,
        case: format!(
            "world=3 m=2,2,2,2,2,2,2,2,2,2 n=2 k=9 {}",
            stall(0, 2, Phase::Begin)
        ),
        ends: &["fault", "wrong"],
    });
}

#[test]
fn without_entered_a_peer_stores_into_an_output_that_its_user_still_reads() {
    check(&Control {
        op: "matmul_all_gather",
        rule: Rule::Entered,
        ring: MAX,
        case: format!("world=2 m=40,40,40 n=20 k=9 user=0,0,{STALL}"),
        ends: &["wrong"],
    });
}

#[test]
fn equality_at_a_gate_misses_a_peer_that_has_moved_on() {
    // Rank 1 reduces nothing, and is at its gate of call 3 when rank 0 begins call 2.
    check(&Control {
        op: RS,
        rule: Rule::Reached,
        ring: MAX,
        case: format!("world=2 m=1,1,1,1 n=20 k=9 {}", stall(0, 1, Phase::Leave)),
        ends: &["fault"],
    });
}

#[test]
fn a_plain_comparison_at_a_gate_fails_at_the_wrap() {
    // Call 1 signals MAX, call 2 signals 1. As above.
    check(&Control {
        op: RS,
        rule: Rule::ReachedOnRing,
        ring: MAX,
        case: format!(
            "world=2 m=1,1,1,1 n=20 k=9 first={} {}",
            MAX - 1,
            stall(0, 1, Phase::Leave)
        ),
        ends: &["wrong", "fault"],
    });
}

#[test]
fn a_bank_from_the_value_is_shared_by_two_calls_at_the_wrap() {
    // Call 1 signals MAX, call 2 signals 1: both are odd.
    check(&Control {
        op: RS,
        rule: Rule::BankFromIndex,
        ring: MAX,
        case: format!(
            "world=3 m=2,2,2,2 n=20 k=9 first={} {}",
            MAX - 1,
            stall(0, 1, Phase::Read)
        ),
        ends: &["wrong", "fault"],
    });
}

#[test]
fn one_bank_is_overwritten_while_its_owner_reads() {
    check(&Control {
        op: RS,
        rule: Rule::TwoBanks,
        ring: MAX,
        case: format!("world=3 m=2,2,2,2 n=20 k=9 {}", stall(0, 1, Phase::Read)),
        ends: &["wrong", "fault"],
    });
}

#[test]
fn a_frozen_value_makes_a_call_believe_the_words_of_earlier_ones() {
    check(&Control {
        op: RS,
        rule: Rule::ValueFromIndex,
        ring: MAX,
        case: format!("world=2 m=3,3,3,3 n=20 k=9 {}", stall(1, 2, Phase::Ready)),
        ends: &["wrong", "fault"],
    });
}

#[test]
fn a_word_that_is_not_cleared_is_believed_two_laps_later() {
    // Calls 0 and 14 have one value, and one bank, and alone use more than one tile. Rank 0 has a block for each of them.
    let small = ",3".repeat(13);
    check(&Control {
        op: RS,
        rule: Rule::Clear,
        ring: RING,
        case: format!(
            "world=2 m=130{small},130 n=20 k=9 blocks=3,1 {}",
            stall(1, 14, Phase::Ready)
        ),
        ends: &["wrong"],
    });
}

/// Operations whose tiles, or whose sums too, travel in packets.
const PACKETS: [&str; 2] = ["one_shot_packets", "two_shot_packets"];

#[test]
fn packets_that_are_not_cleared_are_believed_two_laps_later() {
    // As above. Calls 2 and 7, of values 3 and 1, clear what call 0 used of bank 0, and of bank 1.
    let small = ",3".repeat(13);
    for (op, first) in PACKETS
        .iter()
        .flat_map(|op| [1, 2, 4].map(|first| (op, first)))
    {
        check(&Control {
            op,
            rule: Rule::Clear,
            ring: RING,
            case: format!(
                "world=2 m=130{small},130 n=20 k=9 blocks=3,1 first={first} {}",
                stall(1, 14, Phase::Gate)
            ),
            ends: &["wrong"],
        });
    }
}

#[test]
fn a_packet_that_is_not_whole_is_believed_before_its_data_are_there() {
    for op in PACKETS {
        check(&Control {
            op,
            rule: Rule::Whole,
            ring: MAX,
            case: format!("world=2 m=3,3 n=20 k=9 {}", stall(1, 1, Phase::Ready)),
            ends: &["wrong"],
        });
    }
}

/// Where flags lie may not depend on how wide a tile is: calls of other tiles find data there.
#[test]
fn a_row_of_packets_that_depends_on_the_tile_is_refused() {
    if compiler().is_none() {
        return;
    }
    let kernel = OfCrews::new(Program::OneShotPackets, (64, 128), DType::BF16, MAX);
    let changed = with(
        kernel.text(),
        "constexpr u32 GRANULE = ACROSS < 8 ? ACROSS : 8;",
        "constexpr u32 GRANULE = ACROSS;",
    );
    let compiles = |text: &str| std::panic::catch_unwind(|| kernel.compile_as(text)).is_ok();
    assert!(compiles(kernel.text()));
    assert!(!compiles(&changed));
}

#[test]
fn a_frozen_value_makes_a_call_believe_the_packets_of_earlier_ones() {
    for op in PACKETS {
        check(&Control {
            op,
            rule: Rule::ValueFromIndex,
            ring: MAX,
            case: format!("world=2 m=3,3,3,3 n=20 k=9 {}", stall(1, 2, Phase::Gate)),
            ends: &["wrong", "fault"],
        });
    }
}

#[test]
fn without_gathered_a_user_reads_an_output_with_holes() {
    check(&Control {
        op: "two_shot",
        rule: Rule::Gathered,
        ring: MAX,
        case: format!("world=2 m=70,70 n=20 k=9 {}", stall(1, 0, Phase::Read)),
        ends: &["wrong"],
    });
}

/// `auto` mixes calls with owners with calls that have none. After a lap of those, `gathered` must not be there already.
#[test]
fn gathered_that_is_not_swept_is_believed_a_lap_later() {
    if compiler().is_none() {
        return;
    }
    for few in ["one_shot", "one_shot_packets", "two_shot_packets"] {
        for [large, small] in kinds_of_two([program_of("two_shot"), program_of(few)], RING) {
            // Calls 0 and 7 have one value. In the second rank 0 is late with what it owns.
            let run = |first: u64, removed: u64| {
                let line = format!(
                    "{} op_of_few={few} few=5 world=3 m=70,1,2,3,4,5,1,70 n=34 k=7 first={first} blocks=2,1,3 removed={removed} \
                     budget_ms=60000 {}",
                    large.describe,
                    stall(0, 7, Phase::Read)
                );
                emulate(&[&large.path, &small.path], &[line]).remove(0)
            };
            for first in [1, 3, 6] {
                assert_eq!(run(first, 0), "ok", "{few} from {first}");
                let without = run(first, 1 << Rule::Clear as u32);
                assert!(
                    without.starts_with("wrong"),
                    "{few} from {first}: {without}"
                );
            }
        }
    }
}
