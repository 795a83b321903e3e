//! Fused GEMM + collective operations: configuration, workspaces, validation and calls.
