//! A look into a call from outside: where a test stalls a chosen rank, or a tracer takes a time stamp.

/// The point of a call that a rank has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The call has begun; nothing has been signalled.
    Begin,
    /// `entered` has been pushed; the gate comes next.
    Gate,
    /// The gate is passed; a tile's `ready` comes next.
    Ready,
    /// A peer's tile is awaited next.
    Reduce,
    /// A peer's tile is there and is read next.
    Read,
    /// A store into a peer's output comes next.
    Store,
    /// `gathered` comes next.
    Gathered,
    /// `added` comes next.
    Added,
    /// The index is advanced next, and the call left.
    Leave,
}

impl Phase {
    /// All phases, in the order of a call.
    pub const ALL: [Self; 9] = [
        Self::Begin,
        Self::Gate,
        Self::Ready,
        Self::Reduce,
        Self::Read,
        Self::Store,
        Self::Gathered,
        Self::Added,
        Self::Leave,
    ];
}

/// A point of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The rank that is there.
    pub rank: usize,
    /// The call's index.
    pub index: u64,
    /// Where in the call.
    pub phase: Phase,
    /// The tile, where the phase speaks of one.
    pub tile: Option<u64>,
}

/// Called at every point of every call of a workspace it is given to.
pub trait Probe: Send + Sync {
    /// The rank is at `point`; it goes on when this returns.
    fn at(&self, point: Point);
}
