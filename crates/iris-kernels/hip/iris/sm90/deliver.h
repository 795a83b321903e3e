// What becomes of a tile: the warpgroups leave it in shared memory, and couriers take it from there to where it belongs, by copies
// that run while the next tile is multiplied.
#pragma once

#include "ring.h"

namespace iris {

/// Two values rounded to the elements' type, the first one in the lower half.
IRIS_DEVICE u32 narrow2(f32 low, f32 high) {
    u32 both;
    if constexpr (SAME<Element, f16>) {
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    } else {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    }
    return both;
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
        u32 packed[4];
        IRIS_UNROLL
        for (u32 half = 0; half < 2; ++half) {
            const f32* d = sums.d + col / 2 + half * 4;
            if constexpr (BIAS) {
                u32 at = col + half * 8 + lane % 4 * 2;
                f32 low = at < cols ? to_f32(bias[at]) : 0.0f;
                f32 high = at + 1 < cols ? to_f32(bias[at + 1]) : 0.0f;
                packed[half * 2] = narrow2(d[0] + low, d[1] + high);
                packed[half * 2 + 1] = narrow2(d[2] + low, d[3] + high);
            } else {
                packed[half * 2] = narrow2(d[0], d[1]);
                packed[half * 2 + 1] = narrow2(d[2], d[3]);
            }
        }
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(ring.out(row, col + lane / 16 * 8)),
                     "r"(packed[0]), "r"(packed[1]), "r"(packed[2]), "r"(packed[3])
                     : "memory");
    }
}

/// A chunk of a finished tile.
IRIS_DEVICE Vec16 left_chunk(const Ring& ring, u32 row, u32 col) {
    Vec16 chunk;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(chunk.x[0]), "=r"(chunk.x[1]), "=r"(chunk.x[2]), "=r"(chunk.x[3])
                 : "r"(ring.out(row, col))
                 : "memory");
    return chunk;
}

/// Pushes a finished tile as packets, with all warpgroups: of few rows, which they leave sooner than couriers would take them.
template <class Op>
IRIS_DEVICE void push_tile(const Op& op, const Packets& packets, const Ring& ring, const Work& work) {
    u32 across = (work.block.cols + CHUNK<Element> - 1) / CHUNK<Element>;
    for (u32 at = thread_index(); at < work.block.rows * across; at += threads()) {
        u32 row = at / across;
        u32 chunk = at % across;
        Vec16 data = left_chunk(ring, row, chunk * CHUNK<Element>);
        for (u64 nth = 0; nth < op.targets(); ++nth) {
            packets.push(op.target(work, nth), work.index, row, chunk, data);
        }
    }
}

/// Takes the rows of warpgroup `group` of a finished tile to where it belongs, with all threads of the crew. They may be overwritten
/// once this crew's copies have been read.
template <class Op>
IRIS_DEVICE void take_rows(const Op& op, const FastArgs& fast, const Ring& ring, const Work& work, u32 group) {
    u32 first = group * GROUP_M;
    if (first >= work.block.rows) {
        return;
    }
    u32 rows = u32(smaller(GROUP_M, work.block.rows - first));
    u32 panels = (work.block.cols + PANEL_N - 1) / PANEL_N;
    if constexpr (Op::TO == To::slots) {
        for (u32 at = thread_index(); at < op.targets() * panels; at += threads()) {
            u32 col = at % panels * PANEL_N;
            u8* slot = op.rank.staged(op.target(work, at / panels), op.me(), work.index);
            store_bytes(slot + in_slot(first, col), ring.out(first, col), rows * 128);
        }
    } else {
        // A box is cut off at the edge of C only.
        bool whole = rows == GROUP_M || work.block.row + work.block.rows == op.args.m;
        if (Op::TO == To::own && fast.c_mapped != 0 && whole) {
            for (u32 at = thread_index(); at < panels; at += threads()) {
                store_box(fast.c, ring.out(first, at * PANEL_N), i32(work.block.col + at * PANEL_N), i32(work.block.row + first));
            }
            return;
        }
        for (u32 at = thread_index(); at < GROUP_M * TILE_N / CHUNK<Element>; at += threads()) {
            u32 row = first + at / (TILE_N / CHUNK<Element>);
            u32 col = at % (TILE_N / CHUNK<Element>) * CHUNK<Element>;
            if (row >= work.block.rows || col >= work.block.cols) {
                continue;
            }
            Vec16 chunk = left_chunk(ring, row, col);
            u32 count = u32(smaller(CHUNK<Element>, work.block.cols - col));
            if constexpr (Op::TO == To::own) {
                Element* c = global<Element>(op.args.c);
                store_chunk(c + (work.block.row + row) * op.args.c_row + work.block.col + col, chunk, count);
            } else {
                op.rank.store_chunk_to_all(work.block.row + row, work.block.col + col, chunk, count);
            }
        }
    }
}

} // namespace iris
