//! Negative controls: each takes one rule away and sees what the rule is there to prevent. The same ranks, making the same
//! calls with the rule in place, are clean.

use crate::check::{assert_clean, assert_fails, explore};
use crate::engine::{Bad, Memory};
use crate::machine::Compare;
use crate::operations::*;
use crate::script::{BankFrom, Gate, Gathered, Operation, Rules, ValueFrom, World, Zeroing, build};

const RULES: fn() -> Rules = Rules::default;

/// `operation` in `world` is clean under the rules, and does `bad` under `removed`, both in `memory`.
fn control_in(memory: Memory, operation: Operation, world: &World, removed: Rules, bad: Bad) {
    let model = build(operation, world, &Rules::default());
    assert_clean("with the rule in place", &model, memory);
    let model = build(operation, world, &removed);
    assert_fails("with the rule removed", &model, memory, bad);
}

fn control(operation: Operation, world: &World, removed: Rules, bad: Bad) {
    control_in(Memory::Sequential, operation, world, removed, bad);
}

/// Two ranks, of which rank 0 owns the only tile; a ring of 7 that the calls run around.
fn one_owner() -> World {
    World::new(2, 9, &[0]).on(7, 1)
}

/// Two ranks that own one tile each.
fn two_owners() -> World {
    World::new(2, 9, &[0, 1]).on(7, 1)
}

mod value_and_bank {
    use super::*;

    /// MAX is odd, so the value's parity is not the bank: the last call of a lap and the first of the next would share one.
    #[test]
    fn bank_from_the_values_parity_reads_wrong_data_at_the_wrap() {
        let removed = Rules {
            bank: BankFrom::Value,
            ..RULES()
        };
        control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
        control(one_shot, &two_owners(), removed, Bad::WrongData);
        // Below the wrap the parity of the value serves as well as that of the index.
        let below = World::new(2, 7, &[0]).on(7, 1);
        assert_clean(
            "no wrap",
            &build(reduce_scatter, &below, &removed),
            Memory::Sequential,
        );
    }

    /// The value follows from the index in memory: from a launch argument, a graph replays the values it was captured with.
    #[test]
    fn value_captured_in_a_graph_reads_wrong_data() {
        for calls in [1, 2, 3] {
            let removed = Rules {
                value: ValueFrom::Capture(calls),
                ..RULES()
            };
            control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
        }
    }

    /// So does the bank: a captured graph of three calls uses banks 0 1 0, and again 0 1 0.
    #[test]
    fn bank_captured_in_a_graph_reads_wrong_data() {
        let removed = Rules {
            bank: BankFrom::Capture(3),
            ..RULES()
        };
        control(one_shot, &two_owners(), removed, Bad::WrongData);
        control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
    }

    /// Memory that one rank writes and another reads has two banks.
    #[test]
    fn one_bank_reads_wrong_data() {
        let removed = Rules {
            bank: BankFrom::One,
            ..RULES()
        };
        control(one_shot, &two_owners(), removed, Bad::WrongData);
        control(one_shot_pull, &two_owners(), removed, Bad::WrongData);
        control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
        control(all_gather_matmul, &one_owner(), removed, Bad::WrongData);
        control(
            atomic,
            &World::new(2, 6, &[0]).on(7, 1),
            removed,
            Bad::WrongData,
        );
    }
}

mod compare {
    use super::*;

    /// A gate's word may have moved past what the gate waits for, so it is compared by *reached*.
    #[test]
    fn equality_at_gates_deadlocks() {
        let removed = Rules {
            progress: Compare::Equal,
            ..RULES()
        };
        for operation in [
            one_shot as Operation,
            two_shot,
            reduce_scatter,
            matmul_all_gather,
        ] {
            control(operation, &two_owners(), removed, Bad::Deadlock);
        }
    }

    /// *Reached* goes around the ring with the values: a plain `>=` never holds for what was written after the wrap.
    #[test]
    fn at_least_deadlocks_at_the_wrap() {
        let removed = Rules {
            progress: Compare::AtLeast,
            ..RULES()
        };
        for operation in [
            one_shot as Operation,
            two_shot,
            reduce_scatter,
            matmul_all_gather,
        ] {
            control(operation, &two_owners(), removed, Bad::Deadlock);
            let below = World::new(2, 7, &[0, 1]).on(7, 1);
            assert_clean(
                "no wrap",
                &build(operation, &below, &removed),
                Memory::Sequential,
            );
        }
    }

    /// ... and always holds for what was written before it.
    #[test]
    fn at_least_reads_wrong_data_at_the_wrap() {
        let removed = Rules {
            progress: Compare::AtLeast,
            ..RULES()
        };
        control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
    }

    /// The ring has at least 7 values: on a smaller one the half lap is shorter than the ranks' distance.
    #[test]
    fn rings_of_3_and_5_deadlock() {
        for ring in [3, 5] {
            let world = World::new(2, 9, &[0]).on(ring, 1);
            let model = build(reduce_scatter, &world, &RULES());
            assert_fails("a small ring", &model, Memory::Sequential, Bad::Deadlock);
        }
        assert_clean(
            "7",
            &build(reduce_scatter, &one_owner(), &RULES()),
            Memory::Sequential,
        );
    }
}

mod words {
    use super::*;

    /// Words that announce data are banked and awaited by equality: then a call that a rank left out in a fault is awaited
    /// until the budget ends, and never taken for its successor.
    #[test]
    fn a_word_without_a_bank_takes_a_left_out_call_for_its_successor() {
        let world = World {
            left_out: Some((1, 1)),
            ..World::new(2, 4, &[0, 1])
        };
        for operation in [one_shot as Operation, all_gather_matmul] {
            // Without the check of m, which would find the left-out call before.
            let rules = Rules {
                entered: false,
                ..RULES()
            };
            let outcome = explore(&build(operation, &world, &rules), Memory::Sequential);
            assert!(
                outcome.deadlock.is_some(),
                "the wait must not end: {outcome:?}"
            );
            assert_eq!(outcome.wrong, None);
            let removed = Rules {
                banked_words: false,
                announced: Compare::Reached,
                ..rules
            };
            let model = build(operation, &world, &removed);
            assert_fails(
                "not banked, reached",
                &model,
                Memory::Sequential,
                Bad::WrongData,
            );
        }
    }

    /// In banks, but awaited by *reached*: the word of the call after the next is in the same bank, and is believed.
    #[test]
    fn a_banked_word_awaited_by_reached_takes_a_left_out_call_for_its_successor() {
        let world = World {
            left_out: Some((1, 1)),
            ..World::new(2, 4, &[0])
        };
        let removed = Rules {
            announced: Compare::Reached,
            gate: Gate::None,
            ..RULES()
        };
        let model = build(reduce_scatter, &world, &removed);
        assert_fails(
            "banked, reached",
            &model,
            Memory::Sequential,
            Bad::WrongData,
        );
    }

    /// A writer clears the `ready` words that the bank's previous call used and this one does not: a tile that is unused
    /// for 2 MAX calls exactly finds its own word of that many calls ago, which has the same value and lies in the same bank.
    #[test]
    fn an_uncleared_ready_word_of_two_laps_ago_is_believed() {
        let removed = Rules {
            clear_ready: false,
            ..RULES()
        };
        let unused_for = |calls: usize, small: &[usize], large: &[usize]| {
            let mut world = World::new(2, calls + 1, small).on(7, 3);
            world.calls[0] = large.to_vec();
            world.calls[calls] = large.to_vec();
            world
        };
        for operation in [
            one_shot as Operation,
            two_shot,
            reduce_scatter,
            all_gather_matmul,
        ] {
            let world = unused_for(14, &[0], &[0, 0]);
            control(operation, &world, removed, Bad::WrongData);
            // No other distance brings value and bank back together.
            for calls in [7, 12, 13] {
                let world = unused_for(calls, &[0], &[0, 0]);
                assert_clean(
                    "not 14",
                    &build(operation, &world, &removed),
                    Memory::Sequential,
                );
            }
        }
    }

    /// Every rank pushes `gathered` in every call: else a rank that owns nothing until its value comes round again finds its
    /// word of a lap ago believed.
    #[test]
    fn gathered_by_owners_only_is_believed_a_lap_later() {
        let removed = Rules {
            gathered: Gathered::Owners,
            ..RULES()
        };
        let owned_again_after = |calls: usize| {
            let mut world = World::new(2, calls + 1, &[0]).on(7, 1);
            world.calls[0] = vec![0, 1];
            world.calls[calls] = vec![0, 1];
            world
        };
        for operation in [two_shot as Operation, matmul_all_gather] {
            control(operation, &owned_again_after(7), removed, Bad::WrongData);
            for calls in [6, 8] {
                let model = build(operation, &owned_again_after(calls), &removed);
                assert_clean("not 7", &model, Memory::Sequential);
            }
        }
    }

    /// ... and to a peer only after it has seen that peer's `entered`: else it overwrites the word of the call before, which
    /// its peer, waiting for equality, has not seen yet.
    #[test]
    fn gathered_pushed_before_entered_is_seen_deadlocks() {
        let removed = Rules {
            gathered: Gathered::AllUnseen,
            ..RULES()
        };
        let world = World::new(2, 4, &[]).on(7, 1).varying(&[&[0, 1], &[0]]);
        for operation in [two_shot as Operation, matmul_all_gather] {
            control(operation, &world, removed, Bad::Deadlock);
        }
    }

    /// The caller's m lies in one of four copies beside `entered`: with two, a reader may find the m of a call two later.
    /// Three would do.
    #[test]
    fn two_copies_of_m_hold_that_of_a_peer_two_calls_ahead() {
        for ranks in [2, 3] {
            let world = World::new(ranks, 7, &[0]).on(7, 5);
            for copies in [1, 2] {
                let removed = Rules {
                    size_copies: copies,
                    ..RULES()
                };
                control(reduce_scatter, &world, removed, Bad::WrongData);
            }
            for copies in [3, 4] {
                let rules = Rules {
                    size_copies: copies,
                    ..RULES()
                };
                for operation in [one_shot as Operation, two_shot, reduce_scatter, atomic] {
                    let model = build(operation, &world, &rules);
                    assert_clean("enough copies", &model, Memory::Sequential);
                }
            }
        }
    }

    /// Every rank says `done` in every call: where sizes vary, a gate may wait for a rank that read nothing two calls ago.
    #[test]
    fn done_by_readers_only_deadlocks_where_sizes_vary() {
        let removed = Rules {
            done_by_all: false,
            ..RULES()
        };
        let world = World::new(2, 5, &[]).varying(&[&[0], &[0], &[0, 1], &[0, 1], &[0, 1]]);
        control(reduce_scatter, &world, removed, Bad::Deadlock);
        control(two_shot, &world, removed, Bad::Deadlock);
    }

    /// A signal is a release store.
    #[test]
    fn a_signal_that_is_no_release_reads_wrong_data() {
        let removed = Rules {
            release: false,
            ..RULES()
        };
        let world = World::new(2, 2, &[0, 1]).on(7, 7);
        for operation in [
            one_shot as Operation,
            one_shot_pull,
            two_shot,
            reduce_scatter,
            all_gather_matmul,
            all_gather_matmul_pull,
            matmul_all_gather,
            atomic,
            barrier,
        ] {
            control_in(Memory::Relaxed, operation, &world, removed, Bad::WrongData);
        }
        let world = World::new(2, 2, &[0]).on(7, 7);
        control_in(Memory::Relaxed, spinlock, &world, removed, Bad::WrongData);
    }
}

mod gates {
    use super::*;

    /// Whoever writes a bank waits until its previous readers are through.
    #[test]
    fn no_gate_reads_wrong_data() {
        let removed = Rules {
            gate: Gate::None,
            ..RULES()
        };
        control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
        control(all_gather_matmul, &one_owner(), removed, Bad::WrongData);
    }

    /// Every rank waits at the gate, also one that neither writes nor reads: else it runs ahead of the ring, and what it
    /// says lies half a lap away from what its peers wait for.
    #[test]
    fn a_gate_for_writers_only_deadlocks() {
        let removed = Rules {
            gate: Gate::Writers,
            ..RULES()
        };
        let world = World::new(3, 9, &[0]).on(7, 1).without_depth(2);
        control(reduce_scatter, &world, removed, Bad::Deadlock);
    }

    /// At index 0 and 1 there is no gate: nobody ever says `done` of the calls before.
    #[test]
    fn a_gate_at_index_0_and_1_deadlocks() {
        let removed = Rules {
            gate: Gate::FromTheStart,
            ..RULES()
        };
        for first in [1, 4, 7] {
            let world = World::new(2, 2, &[0, 1]).on(7, first);
            control(one_shot, &world, removed, Bad::Deadlock);
        }
    }

    /// Whether there is a gate follows from the index. From the value, a counter that starts below the wrap has a gate too
    /// early, ...
    #[test]
    fn a_gate_from_the_value_deadlocks_where_the_counter_starts_high() {
        let removed = Rules {
            gate: Gate::ByValue,
            ..RULES()
        };
        control(
            one_shot,
            &World::new(2, 4, &[0, 1]).on(7, 6),
            removed,
            Bad::Deadlock,
        );
    }

    /// ... and one that comes round has none when it needs one;
    #[test]
    fn a_gate_from_the_value_reads_wrong_data_after_the_wrap() {
        let removed = Rules {
            gate: Gate::ByValue,
            ..RULES()
        };
        control(
            reduce_scatter,
            &World::new(2, 11, &[0]).on(7, 1),
            removed,
            Bad::WrongData,
        );
    }

    /// ... a word that is still 0 may also mean that a peer has not even finished its first call.
    #[test]
    fn a_gate_that_zero_opens_reads_wrong_data() {
        let removed = Rules {
            gate: Gate::ByZeroWord,
            ..RULES()
        };
        control(reduce_scatter, &one_owner(), removed, Bad::WrongData);
    }
}

mod outputs_and_inputs {
    use super::*;

    /// Nobody stores into another rank's output before having seen its `entered`: its user may still read the last call's.
    #[test]
    fn storing_before_entered_overwrites_what_the_user_reads() {
        let removed = Rules {
            entered: false,
            ..RULES()
        };
        control(matmul_all_gather, &two_owners(), removed, Bad::WrongData);
        let nothing_awaited = World::new(2, 3, &[0]).on(7, 1).without_depth(1);
        control(two_shot, &nothing_awaited, removed, Bad::WrongData);
        // Where the owner waits for a contribution of that rank in the same call, that is implied.
        let model = build(
            two_shot,
            &two_owners(),
            &Rules {
                gathered: Gathered::Owners,
                ..removed
            },
        );
        assert_clean("implied", &model, Memory::Sequential);
    }

    /// Whoever lets peers pull from user memory waits for their `done` of this call: the user may overwrite it next.
    #[test]
    fn pulled_inputs_without_an_exit_wait_are_overwritten() {
        let removed = Rules {
            exit_wait: false,
            ..RULES()
        };
        control(
            all_gather_matmul_pull,
            &two_owners(),
            removed,
            Bad::WrongData,
        );
        control(
            all_gather_matmul_pull,
            &one_owner(),
            removed,
            Bad::WrongData,
        );
    }

    /// A rank produces all its tiles before it waits for one to reduce.
    #[test]
    fn interleaved_produce_and_wait_deadlocks() {
        let removed = Rules {
            produce_first: false,
            ..RULES()
        };
        control(two_shot, &World::new(2, 1, &[0, 1]), removed, Bad::Deadlock);
        control(
            two_shot,
            &World::new(3, 1, &[0, 1, 2]),
            removed,
            Bad::Deadlock,
        );
    }
}

mod accumulators {
    use super::*;

    fn world() -> World {
        World::new(2, 6, &[0]).on(7, 4)
    }

    /// Accumulators are zeroed by their reader, behind itself. Zeroed by the own kernel as it begins, they lose what a fast
    /// peer has added already; ...
    #[test]
    fn zeroing_in_the_own_kernel_loses_a_fast_peers_additions() {
        assert_clean(
            "atomic",
            &build(atomic, &world(), &RULES()),
            Memory::Sequential,
        );
        let removed = Rules {
            zeroing: Zeroing::OwnKernel,
            ..RULES()
        };
        let model = build(atomic_into_output, &world(), &removed);
        assert_fails("own kernel", &model, Memory::Sequential, Bad::WrongData);
    }

    /// ... so they do where a memset on the own stream zeroes them.
    #[test]
    fn zeroing_by_memset_loses_a_fast_peers_additions() {
        assert_clean(
            "atomic",
            &build(atomic, &world(), &RULES()),
            Memory::Sequential,
        );
        let removed = Rules {
            zeroing: Zeroing::Memset,
            ..RULES()
        };
        let model = build(atomic_into_output, &world(), &removed);
        assert_fails("memset", &model, Memory::Sequential, Bad::WrongData);
    }

    /// Before the first addition to a bank its reader has said `cleared`.
    #[test]
    fn adding_before_cleared_loses_additions() {
        let removed = Rules {
            await_cleared: false,
            ..RULES()
        };
        control(atomic_at_owner, &world(), removed, Bad::WrongData);
        control(spinlock_at_owner, &world(), removed, Bad::WrongData);
        // Implied where every rank awaits every other's additions in every call: those of the next follow the clearing.
        assert_clean(
            "implied",
            &build(atomic, &world(), &removed),
            Memory::Sequential,
        );
    }

    /// What is not one atomic step needs the lock.
    #[test]
    fn adding_without_the_lock_loses_additions() {
        let removed = Rules {
            locked: false,
            ..RULES()
        };
        control(spinlock, &World::new(2, 2, &[0]), removed, Bad::WrongData);
    }
}
