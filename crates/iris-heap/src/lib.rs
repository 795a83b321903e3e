//! Ranks and their rendezvous, the symmetric heap, typed symmetric buffers, host RMA, and streams.
