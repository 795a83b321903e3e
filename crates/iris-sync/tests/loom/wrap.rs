//! The value after the last is 1, not 0: nothing that holds within a lap ends with it. A ring of 7 from its last two values.

use crate::harness::{Failure, explore, fails, ranks, without};
use crate::staging::{exchange, hand_over};
use iris_sync::{Ring, Rule, Rules};

#[test]
fn staging_across_the_wrap() {
    for first in [6, 7] {
        explore(Some(3), ranks(first, Rules::ALL, exchange::<Ring<7>, 4>));
        explore(Some(3), ranks(first, Rules::ALL, hand_over::<Ring<7>, 4>));
    }
    explore(None, ranks(7, Rules::ALL, exchange::<Ring<7>, 2>));
}

#[test]
fn the_first_calls_of_an_i8_counter_at_its_end() {
    explore(None, ranks(127, Rules::ALL, hand_over::<i8, 2>));
}

#[test]
fn the_gate_never_opens_where_it_is_a_plain_compare() {
    // From 6: call 2 waits for 7, and a rank that has come to it too shows 1.
    let rules = without(Rule::ReachedOnRing);
    fails(
        Some(3),
        Failure::Deadlock,
        ranks(6, rules, hand_over::<Ring<7>, 3>),
    );
}

#[test]
fn the_gate_opens_too_early_where_it_is_a_plain_compare() {
    // From 7: call 2 waits for 1, and a rank that is still in call 0 shows 7.
    let rules = without(Rule::ReachedOnRing);
    fails(
        Some(3),
        Failure::Race,
        ranks(7, rules, hand_over::<Ring<7>, 3>),
    );
}

#[test]
fn two_calls_share_a_bank_where_it_follows_from_the_value() {
    // 7 and 1 are both odd.
    let rules = without(Rule::BankFromIndex);
    fails(
        Some(3),
        Failure::WrongData,
        ranks(7, rules, hand_over::<Ring<7>, 2>),
    );
    fails(
        Some(3),
        Failure::WrongData,
        ranks(7, rules, exchange::<Ring<7>, 2>),
    );
}
