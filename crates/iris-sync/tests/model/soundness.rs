//! The models' own tests: the two memories do what they say, the reduced search says what the plain one says, and a search
//! that is cut off is seen.

use crate::blocks::{Arrival, launches, two_blocks};
use crate::engine::{Bad, Memory, Outcome, Search};
use crate::epochs::{Reset, epochs};
use crate::machine::{Cells, Compare, Model, Op};
use crate::operations::*;
use crate::script::{Operation, build};
use crate::world::{Arithmetic, BankFrom, Gate, Gathered, Rules, ValueFrom, World};

const BOTH: [Memory; 2] = [Memory::Sequential, Memory::Relaxed];

fn search(model: &Model, memory: Memory, reduce: bool) -> Outcome {
    let mut search = Search::new(model, memory);
    search.reduce = reduce;
    let outcome = search.run();
    assert!(!outcome.truncated, "the search was cut off");
    outcome
}

/// A message: data, then a flag.
fn message(release: bool) -> Model {
    let mut model = Model::new(Cells::default(), Arithmetic::ring(7).reached);
    let (data, flag) = (model.cells.get(1, "data"), model.cells.get(1, "flag"));
    let flagged = Op::Store {
        cell: flag,
        value: 1,
        release,
    };
    model.actor("writer", 0, vec![Op::store(data, 1), flagged]);
    model.actor(
        "reader",
        1,
        vec![
            Op::wait(flag, 1, Compare::Reached),
            Op::check(data, 1, "data"),
        ],
    );
    model
}

#[test]
fn a_release_orders_what_a_plain_store_does_not() {
    for reduce in [false, true] {
        assert!(
            search(&message(true), Memory::Relaxed, reduce)
                .wrong
                .is_none()
        );
        assert!(
            search(&message(false), Memory::Relaxed, reduce)
                .wrong
                .is_some()
        );
        assert!(
            search(&message(false), Memory::Sequential, reduce)
                .wrong
                .is_none()
        );
    }
}

/// A store after a release store may become visible before it.
#[test]
fn a_release_orders_nothing_behind_it() {
    let mut model = Model::new(Cells::default(), Arithmetic::ring(7).reached);
    let (first, second) = (model.cells.get(1, "first"), model.cells.get(1, "second"));
    model.actor(
        "writer",
        0,
        vec![Op::release(first, 1), Op::store(second, 1)],
    );
    model.actor(
        "reader",
        1,
        vec![
            Op::wait(second, 1, Compare::Reached),
            Op::check(first, 1, "first"),
        ],
    );
    for reduce in [false, true] {
        assert!(search(&model, Memory::Relaxed, reduce).wrong.is_some());
        assert!(search(&model, Memory::Sequential, reduce).wrong.is_none());
    }
}

#[test]
fn ranks_that_wait_for_each_other_deadlock() {
    let mut model = Model::new(Cells::default(), Arithmetic::ring(7).reached);
    let words = [model.cells.get(0, "word"), model.cells.get(1, "word")];
    for rank in 0..2 {
        let ops = vec![
            Op::wait(words[rank], 1, Compare::Reached),
            Op::release(words[1 - rank], 1),
        ];
        model.actor(format!("rank {rank}"), rank, ops);
    }
    for memory in BOTH {
        for reduce in [false, true] {
            let story = search(&model, memory, reduce).deadlock.expect("a deadlock");
            assert!(
                story.contains("=> rank 1 stuck in wait for word at rank 1"),
                "{story}"
            );
        }
    }
}

#[test]
fn a_search_that_is_cut_off_says_so() {
    let model = build(one_shot, &World::new(2, 4, &[0, 1]), &Rules::default());
    let mut search = Search::new(&model, Memory::Sequential);
    search.limit = 10;
    assert!(search.run().truncated);
}

const OPERATIONS: [(&str, Operation); 11] = [
    ("one_shot", one_shot),
    ("one_shot_pull", one_shot_pull),
    ("two_shot", two_shot),
    ("reduce_scatter", reduce_scatter),
    ("all_gather_matmul", all_gather_matmul),
    ("all_gather_matmul_pull", all_gather_matmul_pull),
    ("matmul_all_gather", matmul_all_gather),
    ("atomic", atomic),
    ("atomic_at_owner", atomic_at_owner),
    ("spinlock_at_owner", spinlock_at_owner),
    ("barrier", barrier),
];

/// The rules, and the rules with each switch thrown.
fn variants() -> Vec<Rules> {
    let rules = Rules::default();
    vec![
        rules,
        Rules {
            bank: BankFrom::Value,
            ..rules
        },
        Rules {
            bank: BankFrom::Capture(3),
            ..rules
        },
        Rules {
            bank: BankFrom::One,
            ..rules
        },
        Rules {
            value: ValueFrom::Capture(2),
            ..rules
        },
        Rules {
            banked_words: false,
            ..rules
        },
        Rules {
            banked_words: false,
            announced: Compare::Reached,
            ..rules
        },
        Rules {
            announced: Compare::AtLeast,
            ..rules
        },
        Rules {
            progress: Compare::Equal,
            ..rules
        },
        Rules {
            progress: Compare::AtLeast,
            ..rules
        },
        Rules {
            gate: Gate::None,
            ..rules
        },
        Rules {
            gate: Gate::Writers,
            ..rules
        },
        Rules {
            gate: Gate::FromTheStart,
            ..rules
        },
        Rules {
            gate: Gate::ByValue,
            ..rules
        },
        Rules {
            gate: Gate::ByZeroWord,
            ..rules
        },
        Rules {
            gate: Gate::None,
            banked_words: false,
            announced: Compare::Reached,
            ..rules
        },
        Rules {
            entered: false,
            ..rules
        },
        Rules {
            entered: false,
            gate: Gate::None,
            ..rules
        },
        Rules {
            gathered: Gathered::Owners,
            ..rules
        },
        Rules {
            gathered: Gathered::AllUnseen,
            ..rules
        },
        Rules {
            await_gathered: false,
            ..rules
        },
        Rules {
            size_copies: 1,
            ..rules
        },
        Rules {
            gate: Gate::TwoBefore,
            ..rules
        },
        Rules {
            entered_when_left: false,
            ..rules
        },
        Rules {
            exit_wait: false,
            ..rules
        },
        Rules {
            release: false,
            ..rules
        },
        Rules {
            produce_first: false,
            ..rules
        },
        Rules {
            locked: false,
            ..rules
        },
    ]
}

fn agree_for_all(operations: &[(&str, Operation)], memory: Memory, worlds: &[World]) {
    let (mut models, mut failing, mut plain_states, mut reduced_states) = (0, 0, 0, 0);
    for &(name, operation) in operations {
        for rules in variants() {
            for world in worlds {
                let model = build(operation, world, &rules);
                let plain = search(&model, memory, false);
                let reduced = search(&model, memory, true);
                for bad in [Bad::Deadlock, Bad::WrongData] {
                    assert_eq!(
                        reduced.shows(bad),
                        plain.shows(bad),
                        "{name}, {bad:?}, {memory:?}, {rules:?}, {world:?}"
                    );
                    failing += usize::from(plain.shows(bad));
                }
                assert!(reduced.states <= plain.states);
                models += 1;
                plain_states += plain.states;
                reduced_states += reduced.states;
            }
        }
    }
    println!(
        "{models} models, {failing} failures, {plain_states} states, reduced to {reduced_states} ({memory:?})"
    );
}

/// The reduced search and the plain one agree on whether there is a deadlock, and whether there is a wrong read, with all
/// rules in place and with each removed.
#[test]
fn the_reduced_search_agrees_with_the_plain_one() {
    let two = |owners| World::new(2, 4, owners).on(7, 6);
    let varying = two(&[]).varying(&[&[0, 1], &[0]]);
    agree_for_all(
        &OPERATIONS,
        Memory::Sequential,
        &[two(&[0]), two(&[1]).without_depth(0), varying],
    );
}

#[test]
fn the_reduced_search_agrees_with_the_plain_one_relaxed() {
    agree_for_all(&OPERATIONS, Memory::Relaxed, &[World::new(2, 1, &[0])]);
    // Two calls have many more states where nothing is left out, so only of the operation with the shortest.
    let shortest = [("reduce_scatter", reduce_scatter as Operation)];
    agree_for_all(
        &shortest,
        Memory::Relaxed,
        &[World::new(2, 2, &[0]).on(7, 7)],
    );
}

#[test]
fn the_reduced_search_agrees_with_the_plain_one_on_three_ranks() {
    agree_for_all(
        &OPERATIONS,
        Memory::Sequential,
        &[World::new(3, 1, &[0, 1])],
    );
}

/// The same for blocks, overlapping launches, resets and faults, which have meetings, arrivals and jumps.
#[test]
fn the_reduced_search_agrees_with_the_plain_one_on_blocks_and_epochs() {
    let mut models = vec![launches(false), launches(true)];
    for (fence, last_speaks) in [(true, true), (false, true), (true, false)] {
        models.push(two_blocks(1, Arrival { fence, last_speaks }));
    }
    let world = World::new(2, 2, &[0]).on(7, 7);
    for (barrier_before, barrier_after) in [(true, true), (false, true), (true, false)] {
        let reset = Reset {
            barrier_before,
            barrier_after,
        };
        for operation in [
            reduce_scatter as Operation,
            all_gather_matmul,
            spinlock_at_owner,
        ] {
            for fault in [
                None,
                Some((0, 4)),
                Some((1, 4)),
                Some((1, 7)),
                Some((1, 10)),
            ] {
                models.push(epochs(operation, &world, reset, fault));
            }
        }
    }
    let (mut failing, mut plain_states, mut reduced_states) = (0, 0, 0);
    for (number, model) in models.iter().enumerate() {
        let plain = search(model, Memory::Sequential, false);
        let reduced = search(model, Memory::Sequential, true);
        for bad in [Bad::Deadlock, Bad::WrongData] {
            assert_eq!(
                reduced.shows(bad),
                plain.shows(bad),
                "model {number}, {bad:?}"
            );
            failing += usize::from(plain.shows(bad));
        }
        plain_states += plain.states;
        reduced_states += reduced.states;
    }
    println!(
        "{} models, {failing} failures, {plain_states} states, reduced to {reduced_states}",
        models.len()
    );
}

/// The same under relaxed memory, where meetings also drain what is pending.
#[test]
fn the_reduced_search_agrees_with_the_plain_one_on_relaxed_epochs() {
    let world = World::new(2, 1, &[0]).on(7, 7);
    for barrier_before in [true, false] {
        let reset = Reset {
            barrier_before,
            barrier_after: !barrier_before,
        };
        for fault in [None, Some((1, 3)), Some((1, 4))] {
            let model = epochs(reduce_scatter, &world, reset, fault);
            let plain = search(&model, Memory::Relaxed, false);
            let reduced = search(&model, Memory::Relaxed, true);
            for bad in [Bad::Deadlock, Bad::WrongData] {
                assert_eq!(reduced.shows(bad), plain.shows(bad), "{fault:?}, {bad:?}");
            }
            println!("{} states, reduced to {}", plain.states, reduced.states);
        }
    }
}

/// How far a word is from what is waited for, counted in calls, which is where the size of the smallest ring comes from. A
/// word that is 3 ahead must lie in the half lap that counts as reached, so the half lap has 3 values behind the target; and
/// one that is 1 behind must not.
#[test]
fn words_stay_within_three_calls_of_what_is_waited_for() {
    let mut all = crate::engine::Distances::new();
    let worlds = [
        World::new(2, 9, &[0]),
        World::new(2, 9, &[0, 1]),
        World::new(2, 9, &[0]).without_depth(1),
        World::new(2, 9, &[1]).without_depth(1),
        World::new(2, 9, &[]).varying(&[&[0, 1], &[0], &[0], &[0, 1], &[1]]),
        World::new(2, 9, &[])
            .varying(&[&[0, 1], &[0], &[0], &[0, 1], &[1]])
            .without_depth(1),
    ];
    for (_, operation) in OPERATIONS {
        for world in &worlds {
            let model = build(operation, world, &Rules::default());
            let mut search = Search::new(&model, Memory::Sequential);
            search.reduce = false;
            search.measure = true;
            let outcome = search.run();
            assert!(!outcome.truncated);
            for (word, range) in outcome.distances {
                let known = all.entry(word).or_insert(range);
                *known = (known.0.min(range.0), known.1.max(range.1));
            }
        }
    }
    println!("{all:?}");
    assert_eq!(all["entered"], (-1, 3));
    // What is awaited by equality is never newer, and never older than the bank's previous call.
    for word in ["ready", "added"] {
        assert_eq!(all[word], (-2, 0), "{word}");
    }
    assert_eq!(all["gathered"], (-1, 0));
}
