//! Explicit-state models of the signal protocol.

mod check;
mod controls;
mod engine;
mod machine;
mod operations;
mod reduce;
mod rules;
mod script;
