//! Tests of the bindings: against the C header, against libraries made for the purpose, and against NCCL where the
//! machine has it.

mod conformance;
mod library;
mod loading;
mod support;
