// What becomes of a tile: the warpgroups leave it in shared memory, and couriers take it from there to where it belongs, while the next
// tile is multiplied.
#pragma once

#include "pace.h"

namespace iris {

/// The lower, and the upper, of two values side by side.
IRIS_DEVICE f32 widen_low(u32 both) {
    Element low;
    low.bits = u16(both);
    return to_f32(low);
}
IRIS_DEVICE f32 widen_high(u32 both) {
    Element high;
    high.bits = u16(both >> 16);
    return to_f32(high);
}

/// Leaves a warpgroup's rows in shared memory: the sums and, where asked for, the bias of the tile's columns, of which `cols` lie
/// inside, rounded once.
template <bool BIAS>
IRIS_DEVICE void leave_rows(const Accumulators& sums, const Ring& ring, const Element* bias, u32 cols) {
    u32 lane = lane_index();
    // Lane l tells where row l % 8 of the 8 x 8 matrix l / 8 goes: the upper and lower rows at 8 columns, then at the next 8.
    u32 row = thread_index() / 32 * 16 + lane % 16;
    IRIS_UNROLL
    for (u32 col = 0; col < TILE_N; col += 16) {
        if (BIAS && col % 64 == 0) {
            sync_wave(); // or ptxas loads the bias of all columns at once, for which there are no registers
        }
        u32 packed[4];
        IRIS_UNROLL
        for (u32 half = 0; half < 2; ++half) {
            const f32* d = sums.d + col / 2 + half * 4;
            if constexpr (BIAS) {
                u32 at = col + half * 8 + lane % 4 * 2;
                f32 low = at < cols ? to_f32(bias[at]) : 0.0f;
                f32 high = at + 1 < cols ? to_f32(bias[at + 1]) : 0.0f;
                packed[half * 2] = narrow2<Element>(d[0] + low, d[1] + high);
                packed[half * 2 + 1] = narrow2<Element>(d[2] + low, d[3] + high);
            } else {
                packed[half * 2] = narrow2<Element>(d[0], d[1]);
                packed[half * 2 + 1] = narrow2<Element>(d[2], d[3]);
            }
        }
        store_matrices(ring.out(row, col + lane / 16 * 8), packed);
    }
}

/// A chunk of a finished tile.
IRIS_DEVICE Vec16 left_chunk(const Ring& ring, u32 row, u32 col) {
    return load_shared(ring.out(row, col));
}

/// Pushes a finished tile as packets, with all warpgroups: of few rows, which they leave sooner than couriers would take them.
template <class Op>
IRIS_DEVICE void push_tile(const Op& op, const Packets& packets, const Ring& ring, const Work& work) {
    u32 across = (work.block.cols + CHUNK<Element> - 1) / CHUNK<Element>;
    for (u32 at = thread_index(); at < work.block.rows * across; at += threads()) {
        u32 row = at / across;
        u32 chunk = at % across;
        op.push(packets, work, row, chunk, left_chunk(ring, row, chunk * CHUNK<Element>));
    }
}

/// In how many steps a crew takes a whole tile to one peer.
IRIS_DEVICE u64 delivery_steps() {
    return GROUPS * ceil_div(GROUP_M * ACROSS, threads());
}

/// Stores some rows of a finished tile to a matrix whose rows are `pitch` elements apart.
IRIS_DEVICE void store_rows(const Ring& ring, const Work& work, u32 first, u32 rows, Element* c, u64 pitch, Pace& pace) {
    for (u32 at = thread_index(); at < rows * ACROSS; at += threads()) {
        u32 row = first + at / ACROSS;
        u32 col = at % ACROSS * CHUNK<Element>;
        if (col < work.block.cols) {
            u32 count = u32(smaller(CHUNK<Element>, work.block.cols - col));
            store_chunk(c + (work.block.row + row) * pitch + work.block.col + col, left_chunk(ring, row, col), count);
        }
        pace.keep();
    }
}

/// Stores some rows of a finished tile to a slot, panel by panel: there they lie as they do here.
IRIS_DEVICE void fill_slot(const Ring& ring, const Work& work, u32 first, u32 rows, u8* slot, Pace& pace) {
    for (u32 col = 0; col < work.block.cols; col += PANEL_N) {
        u32 panel = in_slot(first, col);
        for (u32 at = thread_index() * 16; at < rows * 128; at += threads() * 16) {
            *reinterpret_cast<Vec16*>(slot + panel + at) = load_shared(ring.out(0, 0) + panel + at);
            pace.keep();
        }
    }
}

/// Takes the rows of warpgroup `group` of a finished tile to where it belongs, with all threads of the crew. They may be overwritten
/// once all of these are through with it and their copies have been read.
///
/// What goes to a peer goes by ordinary stores. The copy engine would wait for the link, and keep the copies of the next slabs waiting
/// behind: a tile of 39 us then took 59.
template <To TO, class Op>
IRIS_DEVICE void take_rows(const Op& op, const FastArgs& fast, const Ring& ring, const Work& work, u32 group, Pace& pace) {
    u32 first = group * GROUP_M;
    if (first >= work.block.rows) {
        return;
    }
    u32 rows = u32(smaller(GROUP_M, work.block.rows - first));
    if constexpr (TO == To::slots) {
        for (u64 nth = 0; nth < op.targets(); ++nth) {
            fill_slot(ring, work, first, rows, op.rank.staged(op.target(work, nth), op.me(), work.index), pace);
        }
        return;
    }
    // A box is cut off at the edge of the matrix only.
    bool boxes = fast.c_mapped != 0 && (rows == GROUP_M || work.block.row + work.block.rows == op.c_rows());
    if constexpr (TO == To::outputs) {
        // This rank's own last, so that the links are busy first.
        for (u64 nth = 0; nth < op.world(); ++nth) {
            u64 target = (op.me() + 1 + nth) % op.world();
            if (target != op.me() || !boxes) {
                store_rows(ring, work, first, rows, global<Element>(op.rank.shared.output[target]), op.rank.shared.output_row[target], pace);
            }
        }
    } else if (!boxes) {
        Pace none;
        store_rows(ring, work, first, rows, global<Element>(op.args.c), op.args.c_row, none);
    }
    u32 panels = (work.block.cols + PANEL_N - 1) / PANEL_N;
    for (u32 at = thread_index(); boxes && at < panels; at += threads()) {
        store_box(fast.c, ring.out(first, at * PANEL_N), i32(work.block.col + at * PANEL_N), i32(work.block.row + first));
    }
}

} // namespace iris
