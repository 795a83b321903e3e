//! The signal protocol of fused multi-GPU operations, as types: counters, signals, waits, gates, locks and barriers.
