//! Tests of the bindings: against the C header, against libraries made for the purpose, and against a HIP runtime
//! where the machine has one.

mod conformance;
mod loading;
mod runtime;
mod support;
