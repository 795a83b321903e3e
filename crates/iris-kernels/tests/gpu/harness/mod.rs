//! Ranks as threads, with a GPU each or sharing them, that run programs by their raw arguments.

pub(crate) mod case;
pub(crate) mod plan;
pub(crate) mod ranks;
pub(crate) mod side;

pub(crate) use case::{Build, Case, Form, Stall, Stalls};
pub(crate) use plan::{Plan, TILE};
pub(crate) use ranks::{Ranks, all_right, compile, describe, takes_given};
pub(crate) use side::{Report, Side};
