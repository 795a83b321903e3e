// What the host passes to every kernel, and what a kernel leaves behind where it could not go on.
//
// Both structs consist of 8-byte fields only, so that they have one layout for every compiler and a `#[repr(C)]` twin in Rust.
#pragma once

#include "types.h"

namespace iris {

/// The largest world that a kernel's arguments have room for.
constexpr u32 MAX_RANKS = 16;

/// The one argument of every kernel: one rank's side of one call. Sizes count elements and are those of the whole problem;
/// addresses are valid on this device; *offsets* are bytes from the start of a rank's symmetric heap, the same at every rank.
struct Args {
    /// Where this device sees the symmetric heap of each rank.
    u64 heap[MAX_RANKS];
    /// The number of ranks, at most MAX_RANKS.
    u64 world;
    /// This rank.
    u64 rank;
    /// The number of blocks of this launch: all of them must be resident at once.
    u64 blocks;

    /// Rows, columns and depth of the whole product. `m` may change from call to call.
    u64 m;
    u64 n;
    u64 k;
    /// The largest part of each that falls to a rank: as many of them, divided by the ranks and rounded up. A kernel that begins has no
    /// time for divisions.
    u64 m_share;
    u64 n_share;
    u64 k_share;
    /// The parts that the depth of a piece of A is cut into, and how deep each is, where ranks have rows of A, and where they have columns of it:
    /// see `all_gather_matmul.hip`.
    u64 row_parts;
    u64 row_part;
    u64 col_parts;
    u64 col_part;
    /// How all-gather first goes about a call, see `all_gather_matmul.hip`: how many rows of tiles come first, of this rank's own rows of A; whether
    /// its part of A goes to one peer after the other; whether blocks send before they multiply anything; and the clock cycles, at
    /// least, from one step of what is sent to the next.
    u64 rows_first;
    u64 in_turn;
    u64 sends_first;
    u64 apart;
    /// Whether `a` is a matrix to be exchanged as it is, in place of a product: the operation is then the collective alone.
    u64 given;
    /// This rank's A: its address, and the elements from one row, and one column, to the next.
    u64 a;
    u64 a_row;
    u64 a_col;
    /// This rank's B.
    u64 b;
    u64 b_row;
    u64 b_col;
    /// The address of as many elements as C is wide, added to each row of the result, or 0.
    u64 bias;
    /// Where the user wants C, whose columns lie side by side. Not used where C is symmetric and not bounced.
    u64 c;
    u64 c_row;
    /// For operations in which peers store into C: its offset, and the elements from one row to the next.
    u64 output;
    u64 output_row;
    /// Whether the memory at `output` is the workspace's, to be copied to `c` at the end of the call.
    u64 bounced;

    /// The offset of the workspace's cells (64 bits each) and of its words. See `Layout`.
    u64 cells;
    u64 words;
    /// The number of `ready` words that a source has in a bank, and of spin locks: what `Layout` is made of.
    u64 tiles;
    u64 locks;
    /// The offset of the staging memory, the slots of each source in a bank, and the bytes of a slot, a multiple of 16.
    u64 staging;
    u64 slots;
    u64 slot_bytes;
    /// The offset of the memory for packets, or 0 where there is none; the slots of each source in a bank, and the bytes of one.
    u64 packets;
    u64 packet_slots;
    u64 packet_bytes;
    /// The offset of the f32 accumulators, and how many a bank has.
    u64 accumulators;
    u64 accumulator_elements;

    /// The signal value of the call with index 0.
    u64 first;
    /// Nanoseconds after which a wait ends in a fault.
    u64 budget_ns;
    /// The address of a 32-bit word in host memory: the host sets it to 1 + the rank on whose behalf it asks to leave.
    u64 abort;
    /// The address of a `FaultRecord` in host memory.
    u64 fault;
    /// The host's number for the operation; only copied into the fault record.
    u64 operation;

    /// Rules of the protocol that are removed: bit r for `Rule` r. Looked at with IRIS_CONTROLS only.
    u64 removed;
    /// Stall this rank (1 + rank; 0 for none), in the call of this index, at this `Phase`, for so long. With IRIS_STALLS only.
    u64 stall_rank;
    u64 stall_index;
    u64 stall_phase;
    u64 stall_ns;
};

static_assert(sizeof(Args) == 8 * (MAX_RANKS + 52), "8-byte fields without gaps");

/// The words that a rank waits for, numbered as `iris_sync::WordKind`.
enum class WordKind : u64 { entered, ready, gathered, added, lock, barrier };

/// Why a rank left a call, numbered as `iris_sync::Cause`.
enum class Cause : u64 { budget_ended, aborted, mismatch, poisoned };

/// What the first thread that faults writes to host memory. `state` is stored last, with release order.
struct FaultRecord {
    /// 0 before, 1 when the rest is written.
    u64 state;
    /// From the arguments.
    u64 operation;
    /// The call's index since the last reset, and its signal value.
    u64 index;
    u64 value;
    u64 rank;
    /// A `Cause`.
    u64 cause;
    /// Whether it waited: then the rest but `other` is meant.
    u64 waited;
    /// A `WordKind`.
    u64 word;
    /// The rank that writes the word.
    u64 peer;
    /// The tile the word speaks of, or all ones.
    u64 tile;
    /// The value waited for, and the one last seen.
    u64 expected;
    u64 seen;
    /// For a mismatch the peer's m, for an abort the rank that asked, for a budget the budget in nanoseconds.
    u64 other;
    /// For a mismatch this rank's m.
    u64 ours;
};

static_assert(sizeof(FaultRecord) == 8 * 14, "8-byte fields without gaps");

} // namespace iris
