//! References, tolerances, multi-rank harnesses, stall and fault injection for iris and what is built on it.
