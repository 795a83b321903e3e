//! The tile programs of the fused operations.
