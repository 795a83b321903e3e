// Packets: partial tiles that carry their own signal.
//
// A packet is 8 bytes, stored by one store and loaded by one load: 4 of data, and the call's value. Whoever finds the value has the
// data, so there is no word beside the data, no fence between the two, and no second round trip. Packets have memory of their own,
// into which nothing else is ever stored: any bits of a tile could be a value.
//
// They keep the rules of `ready` words, of which each is one: two banks, behind the same gate, awaited by equality, and cleared by
// their writer before they could be believed again. See docs/protocol.md.
//
// Each rank has, in each bank, slots from each source, one for each tile. A slot holds whole rows of a tile, from the first on. A
// row's chunks of 16 bytes take 32: first the halves of all of them, then the other halves, so that neighbouring threads access
// neighbouring 16 bytes.
#pragma once

#include "signal.h"
#include "tile.h"

namespace iris {

/// Two packets, which a thread moves at a time: 16 bytes, 8 of them data. Each of the two is whole; both together need not be.
struct Pair {
    u32 data[2];
    u32 flags[2];
};

IRIS_DEVICE u64 packet(u32 data, u32 flag) {
    return u64(flag) << 32 | data;
}

/// Stores two packets, at a multiple of 16.
IRIS_DEVICE void store_pair(u64* to, u32 first, u32 second, u32 flag) {
#if defined(__CUDACC__)
    // A vector of two accesses of 64 bits, of which each is single-copy atomic. One of four accesses of 32 would not do.
    asm volatile("st.relaxed.sys.global.v2.b64 [%0], {%1, %2};" ::"l"(to), "l"(packet(first, flag)), "l"(packet(second, flag))
                 : "memory");
#else
    store<Order::relaxed, Scope::system>(to, packet(first, flag));
    store<Order::relaxed, Scope::system>(to + 1, packet(second, flag));
#endif
}

/// Loads two packets.
IRIS_DEVICE Pair load_pair(const u64* from) {
    u64 first;
    u64 second;
#if defined(__CUDACC__)
    asm volatile("ld.relaxed.sys.global.v2.b64 {%0, %1}, [%2];" : "=l"(first), "=l"(second) : "l"(from) : "memory");
#else
    first = load<Order::relaxed, Scope::system>(from);
    second = load<Order::relaxed, Scope::system>(from + 1);
#endif
    return {{u32(first), u32(second)}, {u32(first >> 32), u32(second >> 32)}};
}

/// Chunks side by side in a tile.
constexpr u32 ACROSS = TILE_N / CHUNK<Element>;
/// Bytes of a row of packets.
constexpr u32 PACKET_ROW = ACROSS * 32;

/// The packets of a call in progress.
struct Packets {
    Call& call;

    /// Where half a chunk of `source`'s tile `slot` lies at `target`.
    IRIS_DEVICE u64* at(u64 target, u64 source, u64 slot, u32 row, u32 chunk, u32 half) const {
        const Args& args = reread(call.args);
        u64 slots = args.heap[target] + args.packets + (call.bank * args.world + source) * args.packet_slots * args.packet_bytes;
        return global<u64>(slots + slot * args.packet_bytes + row * PACKET_ROW + (half * ACROSS + chunk) * 16);
    }

    /// Behind the gate, all blocks together clear this rank's packets of this bank that the call does not fill;
    /// `fills(target, slot, row, chunk)` says which it does at a rank. They do so in the calls of two values, 1 and 3: so a packet that holds 1 is
    /// cleared, or filled anew, in the call after the next, and any other at the latest in the bank's next call of value 1; each
    /// long before its own value and bank come around together, which takes two laps.
    template <class Fills>
    IRIS_DEVICE void clear(Fills fills) const {
        const Args& args = reread(call.args);
        if (args.packets == 0 || !call.sweeps()) {
            return;
        }
        u64 rows = args.packet_bytes / PACKET_ROW;
        u64 count = args.packet_slots * rows * ACROSS;
        IRIS_ROLLED
        for (u64 nth = block_index() * threads() + thread_index(); nth < count; nth += args.blocks * threads()) {
            u32 chunk = u32(nth % ACROSS);
            u32 row = u32(nth / ACROSS % rows);
            u64 slot = nth / ACROSS / rows;
            IRIS_ROLLED
            for (u64 target = 0; target < args.world; ++target) {
                if (fills(target, slot, row, chunk)) {
                    continue;
                }
                store_pair(at(target, args.rank, slot, row, chunk, 0), 0, 0, 0);
                store_pair(at(target, args.rank, slot, row, chunk, 1), 0, 0, 0);
            }
        }
    }

    /// Hands a chunk of this rank's tile `slot` to a rank.
    IRIS_DEVICE void push(u64 target, u64 slot, u32 row, u32 chunk, const Vec16& data) const {
        u64* first = at(target, call.args.rank, slot, row, chunk, 0);
        u64* second = first + ACROSS * 2;
        u32 flag = u32(call.value);
        if (!call.keeps(Rule::whole)) {
            push_in_parts(first, second, data);
            return;
        }
        store_pair(first, data.x[0], data.x[1], flag);
        store_pair(second, data.x[2], data.x[3], flag);
    }

    /// A control: the flags of two pairs, and then their data.
    IRIS_DEVICE void push_in_parts(u64* first, u64* second, const Vec16& data) const {
        for (u32 part = 2; part-- > 0;) {
            for (u32 nth = 0; nth < 4; ++nth) {
                Raw32* of_packet = reinterpret_cast<Raw32*>((nth < 2 ? first : second) + nth % 2);
                store<Order::relaxed, Scope::system>(of_packet + part, Raw32(part == 1 ? u32(call.value) : data.x[nth]));
            }
            call.stall(Phase::ready);
        }
    }

    /// One thread's wait for a chunk of tile `slot` of COUNT ranks from `first` on, of those that have a bit in `sources`. Returns
    /// whether to go on.
    template <u32 COUNT>
    IRIS_DEVICE bool await(u64 first, u32 sources, u64 slot, u32 row, u32 chunk, Vec16 (&data)[COUNT]) const {
        const Args& args = call.args;
        u32 flag = u32(call.value);
        const u64* from = at(args.rank, first, slot, row, chunk, 0);
        u64 apart = args.packet_slots * args.packet_bytes / sizeof(u64);
        u64 since = 0;
        IRIS_ROLLED
        for (u32 polls = 1;; ++polls) {
            // All are loaded before the first is looked at.
            Pair pairs[COUNT][2] = {};
            IRIS_UNROLL
            for (u32 each = 0; each < COUNT; ++each) {
                if ((sources >> each & 1) != 0) {
                    pairs[each][0] = load_pair(from + each * apart);
                    pairs[each][1] = load_pair(from + each * apart + ACROSS * 2);
                }
            }
            // Equality: nothing newer can stand there before this call is done here.
            u32 late = COUNT;
            u32 seen = 0;
            IRIS_UNROLL
            for (u32 each = 0; each < COUNT; ++each) {
                IRIS_UNROLL
                for (u32 nth = 0; nth < 4; ++nth) {
                    const Pair& pair = pairs[each][nth / 2];
                    data[each].x[nth] = pair.data[nth % 2];
                    if ((sources >> each & 1) != 0 && pair.flags[nth % 2] != flag) {
                        late = each;
                        seen = pair.flags[nth % 2];
                    }
                }
            }
            if (late == COUNT) {
                return true;
            }
            if (polls % IRIS_LOOK == 0) {
                Wait wait{WordKind::ready, first + late, slot, flag, seen};
                if (!call.look(&wait)) {
                    return false;
                }
                u64 now = now_ns();
                if (since == 0) {
                    since = now;
                } else if (now - since >= args.budget_ns) {
                    fault(args, call.index, call.value, Cause::budget_ended, args.budget_ns, &wait);
                    return false;
                }
            }
#if !defined(__CUDACC__)
            pause(); // on NVIDIA the loads' own latency is pause enough
#endif
        }
    }
};

} // namespace iris
