//! Tests of the bindings: against the C header, against libraries made for the purpose, and against cuBLASLt where the
//! machine has it.

mod conformance;
mod loading;
mod support;
