// Packets: partial tiles that carry their own signal.
//
// A packet is stored by one store and loaded by one load: data, and the call's value in its last 4 bytes. Whoever finds the value has
// the data, so there is no word beside the data, no fence between the two, and no second round trip. Packets have memory of their own,
// into which nothing else is ever stored: any bits of a tile could be a value.
//
// They keep the rules of `ready` words, of which each is one: two banks, behind the same gate, awaited by equality, and cleared by
// their writer before they could be believed again. See docs/protocol.md.
//
// A packet has 8 bytes; on NVIDIA, where an access of 16 bytes is whole too, also 16. A chunk of 16 bytes is sent as one packet of 16
// and one of 8, or as four of 8, which a thread moves in pairs: in its first and its second part.
//
// Each rank has, in each bank, slots from each source, one for each tile. A slot holds whole rows of a tile, from the first on, with
// room for 32 bytes a chunk. Eight chunks of a row lie in a *granule* of 256 bytes: first their first parts, then their second parts, so that
// neighbouring threads access neighbouring bytes.
//
// *Invariant:* where a flag lies in 256 bytes does not depend on the tile. Calls of an operation may have tiles of other columns, and find what calls
// of others have left: where one looks for a flag every other has stored flags, and never data, of which any bits could be this call's value.
#pragma once

#include "signal.h"
#include "tile.h"

namespace iris {

/// Whether there are packets of 16 bytes: on NVIDIA, where the compiler is of CUDA 12.4 or later, since older ones have no access of 128
/// bits with system scope. AMD says of accesses of 16 bytes nothing of the kind. The twin of `wide_packets` in `iris-ops`, by which ranks
/// find out whether they agree.
#if defined(IRIS_EMULATED)
constexpr bool WIDE_PACKETS = LANES == 32;
#elif defined(__CUDACC_VER_MAJOR__)
constexpr bool WIDE_PACKETS = __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1204;
#else
constexpr bool WIDE_PACKETS = false;
#endif

/// The packets of a chunk, and how many there are.
struct Sent {
    u32 data[4];
    u32 flags[4];
};
constexpr u32 PACKETS = WIDE_PACKETS ? 2 : 4;

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
IRIS_DEVICE void load_pair(const u64* from, u64 (&pair)[2]) {
#if defined(__CUDACC__)
    asm volatile("ld.relaxed.sys.global.v2.b64 {%0, %1}, [%2];" : "=l"(pair[0]), "=l"(pair[1]) : "l"(from) : "memory");
#else
    pair[0] = load<Order::relaxed, Scope::system>(from);
    pair[1] = load<Order::relaxed, Scope::system>(from + 1);
#endif
}

/// Stores a packet of 16 bytes, at a multiple of 16.
IRIS_DEVICE void store_wide(u64* to, u64 low, u64 high) {
#if defined(__CUDACC__)
    // One access of 128 bits.
    asm volatile("{\n\t"
                 ".reg .b128 whole;\n\t"
                 "mov.b128 whole, {%1, %2};\n\t"
                 "st.relaxed.sys.global.b128 [%0], whole;\n\t"
                 "}" ::"l"(to),
                 "l"(low), "l"(high)
                 : "memory");
#else
    // As if in one, for who loads them the other way round: the flag is in the upper half.
    store<Order::relaxed, Scope::system>(to, low);
    store<Order::release, Scope::system>(to + 1, high);
#endif
}

/// Loads a packet of 16 bytes.
IRIS_DEVICE void load_wide(const u64* from, u64 (&whole)[2]) {
#if defined(__CUDACC__)
    asm volatile("{\n\t"
                 ".reg .b128 whole;\n\t"
                 "ld.relaxed.sys.global.b128 whole, [%2];\n\t"
                 "mov.b128 {%0, %1}, whole;\n\t"
                 "}"
                 : "=l"(whole[0]), "=l"(whole[1])
                 : "l"(from)
                 : "memory");
#else
    whole[1] = load<Order::acquire, Scope::system>(from + 1);
    whole[0] = load<Order::relaxed, Scope::system>(from);
#endif
}

/// Stores the packets of a chunk's first part.
IRIS_DEVICE void store_first(u64* to, const Vec16& data, u32 flag) {
    if constexpr (WIDE_PACKETS) {
        store_wide(to, packet(data.x[0], data.x[1]), packet(data.x[2], flag));
    } else {
        store_pair(to, data.x[0], data.x[1], flag);
    }
}

/// Those of the second.
IRIS_DEVICE void store_second(u64* to, const Vec16& data, u32 flag) {
    if constexpr (WIDE_PACKETS) {
        store<Order::relaxed, Scope::system>(to, packet(data.x[3], flag));
    } else {
        store_pair(to, data.x[2], data.x[3], flag);
    }
}

/// Loads them.
IRIS_DEVICE Sent load_packets(const u64* first, const u64* second) {
    u64 from_first[2];
    if constexpr (WIDE_PACKETS) {
        load_wide(first, from_first);
        u64 last = load<Order::relaxed, Scope::system>(second);
        return {{u32(from_first[0]), u32(from_first[0] >> 32), u32(from_first[1]), u32(last)},
                {u32(from_first[1] >> 32), u32(last >> 32)}};
    } else {
        u64 from_second[2];
        load_pair(first, from_first);
        load_pair(second, from_second);
        return {{u32(from_first[0]), u32(from_first[1]), u32(from_second[0]), u32(from_second[1])},
                {u32(from_first[0] >> 32), u32(from_first[1] >> 32), u32(from_second[0] >> 32), u32(from_second[1] >> 32)}};
    }
}

/// Chunks side by side in a tile.
constexpr u32 ACROSS = TILE_N / CHUNK<Element>;
/// Bytes of a row of packets; and of a chunk's second part.
constexpr u32 PACKET_ROW = ACROSS * 32;
constexpr u32 SECOND_PART = WIDE_PACKETS ? 8 : 16;
/// Chunks of a granule. Narrow tiles, which an operation has no others beside, have fewer.
constexpr u32 GRANULE = ACROSS < 8 ? ACROSS : 8;
#if !defined(IRIS_EMULATED)
static_assert(GRANULE == 8, "there are tiles of other columns");
#endif

/// Where a row of A lies that comes in packets: whose it is, and which of its rows.
struct PacketRow {
    u64 source;
    u32 row;
};

/// Passes a moment between two looks at packets.
IRIS_DEVICE void between_polls() {
#if !defined(__CUDACC__)
    pause(); // on NVIDIA the loads' own latency is pause enough
#endif
}

/// The packets of a call in progress.
struct Packets {
    Call& call;

    /// Where a part of a chunk of `source`'s tile `slot`, the first (0) or the second (1), lies at `target`.
    IRIS_DEVICE u64* at(u64 target, u64 source, u64 slot, u32 row, u32 chunk, u32 part) const {
        const Args& args = reread(call.args);
        u64 slots = args.heap[target] + args.packets + (call.bank * args.world + source) * args.packet_slots * args.packet_bytes;
        return global<u64>(slots + slot * args.packet_bytes + row * PACKET_ROW + in_row(chunk, part));
    }
    /// Where it lies in its row, in bytes.
    IRIS_DEVICE static constexpr u32 in_row(u32 chunk, u32 part) {
        u32 nth = chunk % GRANULE;
        return chunk / GRANULE * (GRANULE * 32) + (part == 0 ? nth * 16 : GRANULE * 16 + nth * SECOND_PART);
    }
    /// Whether packets lie in 256 bytes as in any other tile's: see above.
    IRIS_DEVICE static constexpr bool lie_as_in_others() {
        for (u32 chunk = 0; chunk < ACROSS; ++chunk) {
            if (in_row(chunk, 0) % 256 != chunk % 8 * 16 || in_row(chunk, 1) % 256 != 128 + chunk % 8 * SECOND_PART) {
                return false;
            }
        }
        return PACKET_ROW % 256 == 0;
    }
    /// Where a chunk's second part lies, by where its first does.
    template <class Word>
    IRIS_DEVICE static Word* second_of(Word* first, u32 chunk) {
        return first + i32(in_row(chunk, 1) - in_row(chunk, 0)) / i32(sizeof(u64));
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
                store_first(at(target, args.rank, slot, row, chunk, 0), Vec16(), 0);
                store_second(at(target, args.rank, slot, row, chunk, 1), Vec16(), 0);
            }
        }
    }

    /// Hands a chunk of this rank's tile `slot` to a rank.
    IRIS_DEVICE void push(u64 target, u64 slot, u32 row, u32 chunk, const Vec16& data) const {
        u64* first = at(target, call.args.rank, slot, row, chunk, 0);
        u64* second = second_of(first, chunk);
        u32 flag = u32(call.value);
        if (!call.keeps(Rule::whole)) {
            push_in_parts(first, second, data);
            return;
        }
        store_first(first, data, flag);
        call.stall(Phase::ready);
        store_second(second, data, flag);
    }

    /// A control: the flags of a chunk's packets, and then their data.
    IRIS_DEVICE void push_in_parts(u64* first, u64* second, const Vec16& data) const {
        for (u32 part = 2; part-- > 0;) {
            for (u32 nth = 0; nth < 4; ++nth) {
                Raw32* word = reinterpret_cast<Raw32*>(WIDE_PACKETS ? (nth < 3 ? first : second) : (nth < 2 ? first : second) + nth % 2);
                u32 of_flag = WIDE_PACKETS && nth < 3 ? 3 : 1;
                u32 of_data = WIDE_PACKETS && nth < 3 ? nth : 0;
                store<Order::relaxed, Scope::system>(word + (part == 1 ? of_flag : of_data), Raw32(part == 1 ? u32(call.value) : data.x[nth]));
            }
            call.stall(Phase::ready);
        }
    }

    /// Whether a thread goes on waiting that has looked in vain for a while; `since` is when it began to count, or 0.
    IRIS_DEVICE bool may_wait(u64& since, u64 source, u64 slot, u32 seen) const {
        return call.may_wait(since, {WordKind::ready, source, slot, u32(call.value), seen});
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
            Sent sent[COUNT] = {};
            IRIS_UNROLL
            for (u32 each = 0; each < COUNT; ++each) {
                if ((sources >> each & 1) != 0) {
                    sent[each] = load_packets(from + each * apart, second_of(from + each * apart, chunk));
                }
            }
            // Equality: nothing newer can stand there before this call is done here.
            u32 late = COUNT;
            u32 seen = 0;
            IRIS_UNROLL
            for (u32 each = 0; each < COUNT; ++each) {
                IRIS_UNROLL
                for (u32 nth = 0; nth < 4; ++nth) {
                    data[each].x[nth] = sent[each].data[nth];
                }
                IRIS_UNROLL
                for (u32 nth = 0; nth < PACKETS; ++nth) {
                    if ((sources >> each & 1) != 0 && sent[each].flags[nth] != flag) {
                        late = each;
                        seen = sent[each].flags[nth];
                    }
                }
            }
            if (late == COUNT) {
                return true;
            }
            if (polls % IRIS_LOOK == 0 && !may_wait(since, first + late, slot, seen)) {
                return false;
            }
            between_polls();
        }
    }
};
static_assert(ACROSS < 8 || Packets::lie_as_in_others(), "no flag is looked for where another tile has data");

} // namespace iris
