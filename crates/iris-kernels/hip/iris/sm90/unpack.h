// How A gets into the ring where it comes in packets: by the movers, who wait for each chunk, and put it where a copy would.
//
// They are teams, each of which has every so manieth slab, and a wave waits for nobody but who reads the ring: while one waits for packets, another
// stores. Of a stage of the ring a wave sees only whether an even number of slabs has been read there, or an odd one. That does, since from one of
// its slabs to the next it is no further than once around: it has seen that slabs have been read up to less than a ring before the last one.
#pragma once

#include "stream.h"
#include "../operation.h"

namespace iris {

/// Teams, and waves of a team, where there are so many movers.
constexpr u32 TEAMS = 4;
constexpr u32 TEAM = 2;
/// Chunks of a slab's row, and rows that a team has at once.
constexpr u32 SLAB_CHUNKS = SLAB_K / CHUNK<Element>;
constexpr u32 LINES = TEAM * LANES / SLAB_CHUNKS;

/// Where a chunk of a row of A lies in a slab.
IRIS_DEVICE u32 in_slab(u32 row, u32 chunk) {
    return chunk / 8 * A_BOX + row * 128 + (chunk % 8 ^ row % 8) * 16;
}

/// What a team does for a slab: each thread has a chunk of HIGH rows, LINES apart.
///
/// Chunks are loaded without asking whether there are any, so that nothing stands between their loads: in place of one that there is
/// none of, one that there is. What they are is only looked at when they have come.
template <class Op, u32 HIGH>
struct Unpacking {
    Op& op;
    Packets packets;
    const Stint& stint;
    /// Chunks of a row of A; and which one in a slab this thread has.
    u32 across;
    u32 chunk;
    /// Its first row, how many there are, and where among the packets each lies.
    u32 first_row;
    u32 rows;
    u64 lines[HIGH];
    u64 slot_bytes;

    IRIS_DEVICE Unpacking(Op& op, const Stint& stint, const Work& work)
        : op(op), packets(op.rank.packets()), stint(stint), across(op.across()), chunk(lane_index() % SLAB_CHUNKS),
          first_row(thread_index() % (TEAM * LANES) / SLAB_CHUNKS), rows(0), slot_bytes(reread(op.args).packet_bytes) {
        IRIS_UNROLL
        for (u32 high = 0; high < HIGH; ++high) {
            u32 row = first_row + high * LINES;
            rows += row < work.block.rows ? 1 : 0;
            PacketRow from = op.line(work.a_row + smaller(row, work.block.rows - 1));
            lines[high] = reinterpret_cast<u64>(packets.at(op.me(), from.source, 0, from.row, 0, 0));
        }
    }

    /// The number of this thread's chunk of a slab in a row of A; and whether there is one.
    IRIS_DEVICE u32 number(u32 slab) const { return slab * SLAB_CHUNKS + chunk; }
    IRIS_DEVICE bool is_there(u32 slab) const { return slab < stint.end && number(slab) < across; }

    /// Loads this thread's chunks of a slab, as they stand there.
    IRIS_DEVICE void ask(Sent (&sent)[HIGH], u32 slab) const {
        u32 at = is_there(slab) ? number(slab) : 0;
        u64 slot = u64(at / ACROSS) * slot_bytes;
        IRIS_UNROLL
        for (u32 high = 0; high < HIGH; ++high) {
            const u64* from = global<const u64>(lines[high] + slot + Packets::in_row(at % ACROSS, 0));
            sent[high] = load_packets(from, Packets::second_of(from, at % ACROSS));
        }
    }

    /// Waits until they have come, of which some may have been there when they were loaded. Returns whether to go on.
    IRIS_DEVICE bool await(Sent (&sent)[HIGH], u32 slab) const {
        if (!is_there(slab)) {
            return true;
        }
        u32 flag = u32(packets.call.value);
        u64 since = 0;
        IRIS_ROLLED
        for (u32 polls = 1;; ++polls) {
            // Equality: nothing newer can stand there before this call is done here.
            u32 late = HIGH;
            u32 seen = 0;
            IRIS_UNROLL
            for (u32 high = 0; high < HIGH; ++high) {
                IRIS_UNROLL
                for (u32 nth = 0; nth < PACKETS; ++nth) {
                    if (high < rows && sent[high].flags[nth] != flag) {
                        late = high;
                        seen = sent[high].flags[nth];
                    }
                }
            }
            if (late == HIGH) {
                return true;
            }
            if (polls % IRIS_LOOK == 0) {
                u64 source = op.line(work_of(op, stint).a_row + first_row + late * LINES).source;
                if (!packets.may_wait(since, source, number(slab) / ACROSS, seen)) {
                    return false;
                }
            }
            between_polls();
            ask(sent, slab);
        }
    }

    /// Puts this team's slabs of a stint into the ring, before which there were so many stages; and takes its part in so many behind them, which the
    /// loader fills alone. Returns whether all that this thread waited for has come: if not, it goes on without waiting.
    IRIS_DEVICE bool run(const Ring& ring, u32 before, u32 behind, bool whole) const {
        Sent sent[HIGH];
        u32 slab = stint.first + (thread_index() / (TEAM * LANES) + TEAMS - before % TEAMS) % TEAMS;
        ask(sent, slab);
        static_assert(HIGH == 0 || TEAMS * TEAM * LANES == BLOCK_THREADS - MOVERS, "all movers are in a team");
        static_assert(HIGH == 0 || TEAMS < STAGES, "no further than once around the ring");
        IRIS_ROLLED
        for (; slab < stint.end + behind; slab += TEAMS) {
            whole = whole && await(sent, slab);
            Place place = Place::of(before + slab - stint.first);
            await_phase(ring.empty(place.stage), place.parity ^ 1);
            IRIS_UNROLL
            for (u32 high = 0; high < HIGH; ++high) {
                Vec16 data;
                IRIS_UNROLL
                for (u32 word = 0; word < 4; ++word) {
                    // Beyond the depth there is nothing: zeros.
                    data.x[word] = is_there(slab) ? sent[high].data[word] : 0;
                }
                if (high < rows && slab < stint.end) {
                    store_shared(ring.a(place.stage) + in_slab(first_row + high * LINES, chunk), data);
                }
            }
            fence_async_shared();
            sync_wave();
            if (lane_index() == 0) {
                arrive(ring.full(place.stage));
            }
            // Behind the fence, which waits for loads, too.
            ask(sent, slab + TEAMS);
        }
        return whole;
    }
};

/// Fills the ring with A. Returns whether all of it has come.
template <class Op>
IRIS_DEVICE bool unpack_tiles(Op& op, const FastArgs& fast, const Ring& ring) {
    bool whole = op.rank.call.attend();
    u32 before = 0;
    Course<Op> course(op, fast);
    while (course.next()) {
        Stint stint = course.stint();
        Work work = work_of(op, stint);
        u32 behind = course.does_stream() ? duty_of(course, work.block.rows).stages() : 0;
        if (work.block.rows <= LINES) {
            whole = Unpacking<Op, 1>(op, stint, work).run(ring, before, behind, whole);
        } else if (work.block.rows <= 2 * LINES) {
            whole = Unpacking<Op, 2>(op, stint, work).run(ring, before, behind, whole);
        } else {
            whole = Unpacking<Op, A_ROWS / LINES>(op, stint, work).run(ring, before, behind, whole);
        }
        before += stint.slabs() + behind;
    }
    return op.rank.call.all_go_on(whole);
}

} // namespace iris
