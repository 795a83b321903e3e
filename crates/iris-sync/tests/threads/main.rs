//! The protocol on real threads and real memory.
#![cfg(not(any(loom, shuttle)))]

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod lap;
mod meeting;
mod operations;
mod world;
