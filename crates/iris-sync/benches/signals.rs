//! What a signal, a gate, a lock and a barrier cost on the host.
fn main() {}
