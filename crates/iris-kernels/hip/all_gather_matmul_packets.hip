// `all_gather_matmul` of rows, for few of them: each rank hands its rows of A to every rank in packets that carry their own signal.
//
// Nothing is gathered anywhere. Whoever loads a slab of A to multiply it waits for its packets: so each block reads all rows of A, in
// packets, for each of its tiles, and there are no words, no fences and no copies between the rank that has a row and the multiprocessor
// that multiplies it. That is for few rows: packets are half as large again as what they hold, and are read as often as there are tiles. On Hopper
// a tile has no more than 16 rows, so that there is room for more of B while A is on its way.
//
// Packets: a slot for every TILE_N depths, of as many rows as a rank has at the largest m that this is used for. A rank's own rows come in
// packets, too.

// On Hopper a block's helpers are a loader, three couriers, and eight movers, which unpack.
#define IRIS_COURIERS 3

#include "iris/kernel.h"

using namespace iris;

namespace {

struct GatherPackets : Operation {
    using Operation::Operation;
    static constexpr To TO = To::own;
    static constexpr bool SENDS = true;
    [[maybe_unused]] static constexpr bool STREAMS = true; // by crews
    static constexpr bool UNPACKS = true;

    /// A chunk that is being sent: of which row, from which depth on, and what it holds.
    struct Parcel {
        u32 row;
        u32 depth;
        Vec16 chunk;
    };

    IRIS_DEVICE Range rows(u64 source) const {
        const Args& args = reread(this->args);
        return shard(args.m, args.m_share, source);
    }
    IRIS_DEVICE u64 depths() const { return reread(args).k; }
    /// The columns of B, and of C, that `target` has.
    IRIS_DEVICE u64 cols(u64 target) const {
        const Args& args = reread(this->args);
        return shard(args.n, args.n_share, target).len();
    }
    /// Chunks of a row.
    IRIS_DEVICE u32 across() const { return u32(ceil_div(depths(), CHUNK<Element>)); }
    /// Chunks that this rank has: fewer than 2^32, of so few rows.
    IRIS_DEVICE u32 chunks() const { return u32(rows(me()).len()) * across(); }

    IRIS_DEVICE bool begin() {
        bool writes = chunks() != 0;
        if (!rank.call.begin() || !rank.call.gate(writes, [](u64) { return u64(0); })) {
            return false;
        }
        u64 own = rows(me()).len();
        rank.packets().clear([&](u64 target, u64 slot, u32 row, u32 chunk) {
            return row < own && slot * TILE_N + chunk * CHUNK<Element> < depths() && cols(target) != 0;
        });
        return true;
    }

    // Chunks fall to the waves of all blocks in turn, block by block from the last one on: the first has more to do as the call begins.
    IRIS_DEVICE u32 first_chunk() const {
        u32 blocks = u32(reread(args).blocks);
        return (thread_index() / LANES * blocks + blocks - 1 - u32(block_index())) * LANES + thread_index() % LANES;
    }
    IRIS_DEVICE u32 chunks_apart() const { return u32(reread(args).blocks) * threads(); }

    /// Finds out where a chunk of this rank's rows lies.
    IRIS_DEVICE void find(Parcel& parcel, u32 number) const {
        parcel.row = number / across();
        parcel.depth = (number - parcel.row * across()) * CHUNK<Element>;
    }
    /// Loads it. What lies beyond the rows' depth is zero.
    IRIS_DEVICE void fetch(Parcel& parcel) const {
        Lines<Element> from = rank.a().from(parcel.row, parcel.depth);
        u64 left = smaller(depths() - parcel.depth, CHUNK<Element>);
        bool wide = from.depth_stride == 1 && left == CHUNK<Element> && aligned16(reinterpret_cast<u64>(from.data));
        parcel.chunk = wide ? *reinterpret_cast<const Vec16*>(from.data) : gather(from.data, from.depth_stride, u32(left));
    }
    /// Finds this thread's first one, which is loaded where it is not known yet whether it may be sent.
    IRIS_DEVICE void expect(Parcel& parcel) const {
        if (first_chunk() < chunks()) {
            find(parcel, first_chunk());
            worked_out(parcel.row);
            worked_out(parcel.depth);
        }
    }
    IRIS_DEVICE void fetch_expected(Parcel& parcel) const {
        if (first_chunk() < chunks()) {
            fetch(parcel);
        }
    }
    /// Hands this thread's chunks to all ranks, itself last, of which the first is there.
    template <class Await, class Pause>
    IRIS_DEVICE bool send(Parcel& parcel, Await, Pause) {
        for (u32 number = first_chunk(); number < chunks(); number += chunks_apart()) {
            if (number != first_chunk()) {
                find(parcel, number);
                fetch(parcel);
            }
            u32 at = parcel.depth / CHUNK<Element>;
            u64 target = me();
            IRIS_ROLLED
            for (u64 step = 0; step < world(); ++step) {
                target = next_rank(target, world());
                if (cols(target) != 0) {
                    rank.packets().push(target, at / ACROSS, parcel.row, at % ACROSS, parcel.chunk);
                }
            }
        }
        return true;
    }
    template <class = void>
    IRIS_DEVICE bool send() {
        Parcel parcel;
        expect(parcel);
        fetch_expected(parcel);
        return send(parcel, [](u64) {}, [] {});
    }
    /// Nothing is multiplied before it is sent.
    IRIS_DEVICE bool sends_first() const { return true; }
    IRIS_DEVICE u64 piece_bytes() const { return 0; }

    /// Rows of tiles, as high as the rows of A that are multiplied at a time.
    IRIS_DEVICE u32 high() const { return u32(ceil_div(reread(args).m, A_ROWS)); }
    IRIS_DEVICE u64 steps() const { return cols(me()) == 0 ? 0 : high() * ceil_div(cols(me()), TILE_N); }
    IRIS_DEVICE Work work(u64 step) const {
        u32 across = u32(ceil_div(cols(me()), TILE_N));
        return tile(u32(step) / across, u32(step) % across);
    }
    IRIS_DEVICE Work tile(u32 high, u32 across) const {
        u64 row = u64(high) * A_ROWS;
        u64 col = u64(across) * TILE_N;
        Block block{row, col, u32(smaller(A_ROWS, reread(args).m - row)), u32(smaller(TILE_N, cols(me()) - col))};
        return {block, row, me(), 0, true};
    }

    /// The packets of row `row` of A.
    IRIS_DEVICE PacketRow line(u64 row) const {
        u32 share = u32(reread(args).m_share);
        return {u32(row) / share, u32(row) % share};
    }

    /// There is nothing to reduce. Whoever has read peers' rows has met them.
    IRIS_DEVICE bool reduce() { return cols(me()) == 0 || rank.call.meet(); }

    IRIS_DEVICE const Element* bias() const { return rank.bias(); }
    IRIS_DEVICE void finish() { rank.call.finish(); }
};

} // namespace

IRIS_OPERATION(iris_all_gather_matmul_packets, GatherPackets)
