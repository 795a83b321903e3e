// How a block walks through an operation on Hopper: by crews that run beside each other.
//
// - The *loader* copies slabs of A and B into the ring, ahead over tiles.
// - The *warpgroups* multiply, leave each tile in shared memory, and go on with the next. When there is none left, they help the
//   movers, and end the call, if it has not ended early.
// - The *couriers* begin the call, pass the gate, take tiles to where they belong, and tell so. Where parts of A are gathered, they look
//   ahead for the loader whether those of the next tile have come. Where tiles travel in packets, they only open the way: the warpgroups
//   push and reduce their tiles themselves, since there are few and nothing else to do.
// - The *movers* reduce, where the warpgroups do not MERGE; or, where parts of A are sent, they begin the call and send, and then meet
//   the peers. Where nobody has a tile to begin with before parts of A come, the warpgroups begin the call and send: there are more of
//   them, and they have nothing else to do. Where A comes in packets, the movers put it into the ring, beside the loader's B.
//
// Where the warpgroups merge, the loader brings them the peers' parts of an own tile in the ring: before the tile's slabs if they are
// there by then, since peers made them while this block made its tiles before; else behind them. Of a tile that is streamed it brings so what
// other blocks have made of it (`stream.h`), behind its slabs.
//
// Where blocks go in pairs (`pair.h`), the loader brings half of the depth of two tiles' columns, and the warpgroups exchange halves with the
// partner's before they leave a tile. Couriers and movers know nothing of it.
//
// What a crew waits for comes from crews that are never waited for by that: the loader waits for slabs to be read, and for other blocks'
// parts of a tile, the warpgroups for slabs and for the previous tile to be taken, the couriers for finished tiles. A crew that may not go
// on still takes its part in this, so that nobody waits in vain; what it makes is no longer told to anybody, and the block does not arrive.
//
// A block arrives, and by that the call ends, when no crew can fail any more. Where what is still under way then is nothing that the call
// speaks for (`ENDS_EARLY`), that is as soon as the loader has what it waits for from peers, beside the last tiles: the end of the kernel
// orders these before the next call. Else the warpgroups let the block arrive, behind the last tile.
#pragma once

#include "deliver.h"
#include "pair.h"
#include "stream.h"
#include "unpack.h"

namespace iris {

static_assert(sizeof(Element) == 2, "matrix instructions for 16-bit types");

/// Slabs of A that are waited for at a time.
constexpr u32 AT_A_TIME = 4 / BOXES;
/// Nanoseconds between two looks at what a later tile waits for.
constexpr u32 LOOKS_APART_NS = 500;

/// What the crews of a block share.
struct CrewsShared {
    CallShared calls[4];
    u32 drawn[4];
    u32 dealt;
    /// Whether a crew could not go on.
    u32 failed;
    /// A bit for each peer that has depth.
    u32 peers;
    /// Whether the parts of an own tile come before its slabs, at the place of the first of either: filled in with it.
    u32 parts_first[STAGES];
    /// What there is to do with the sums of a stint that is streamed, at the place of its first slab: filled in with that.
    Duty duties[STAGES];
    /// One more than the step of the tile of which a courier has seen last that all of its A has come.
    u32 foreseen;
};

/// Whether a block arrives as soon as none of its crews can fail: where the warpgroups wait for nobody behind their product, and no block
/// stores into peers' outputs.
template <class Op>
constexpr bool ENDS_EARLY =
    !Op::ALONE && !Op::REDUCES && Op::TO != To::packets && Op::TO != To::outputs && !(Op::MERGES && Op::OWN == To::outputs);

/// Says whether this crew has gone on so far, and that it will not fail any more. Of a call that ends early.
IRIS_DEVICE void vouch(CrewsShared& shared, bool go) {
    if (!go) {
        shared.failed = 1;
    }
    arrive_only();
}

/// Where a warpgroup's rows of a peer's part of a tile lie in the ring: as in a slot, but for the other warpgroup's.
IRIS_DEVICE u32 in_part(u32 row, u32 col) {
    return col / PANEL_N * (GROUP_M * 128) + row * 128 + (col % PANEL_N / CHUNK<Element> ^ row % 8) * 16;
}

/// A bit for each peer that has depth.
template <class Op>
IRIS_DEVICE u32 deep_peers(const Op& op) {
    return Op::MERGES ? op.rank.with_depth() & ~(1u << op.me()) : 0;
}

/// Fills the ring with the peers' parts of an own tile, with one lane: for one warpgroup after the other.
template <class Op>
IRIS_DEVICE void load_parts(const Op& op, const Ring& ring, Place& place, const Work& work, u32 peers) {
    u32 panels = (work.block.cols + PANEL_N - 1) / PANEL_N;
    for (u32 group = 0; group * GROUP_M < work.block.rows; ++group) {
        u32 first = group * GROUP_M;
        u32 bytes = u32(smaller(GROUP_M, work.block.rows - first)) * 128;
        for (u64 source = 0; source < op.world(); ++source) {
            if ((peers >> source & 1) == 0) {
                continue;
            }
            await_phase(ring.empty(place.stage), place.parity ^ 1);
            arrive_expecting(ring.full(place.stage), panels * bytes);
            const u8* slot = op.rank.staged(op.me(), source, work.index);
            for (u32 panel = 0; panel < panels; ++panel) {
                copy_bytes(ring.a(place.stage) + in_part(0, panel * PANEL_N), slot + in_slot(first, panel * PANEL_N),
                           ring.full(place.stage), bytes);
            }
            place.advance();
        }
    }
}

/// Where the depth of a slab begins: outside of what there is, if there is no depth.
IRIS_DEVICE i32 depth_of(u32 slab, u64 depths) { return depths == 0 ? i32(SLAB_K) : i32(slab * SLAB_K); }

/// Copies the first slabs of a stint's B to the empty ring while A is under way, with one lane, and returns how many.
///
/// What is asked for waits in the memory's queues, and all else that comes to them waits behind it: this rank's part of A on its way to
/// peers, and every fence. So no more is asked for at a time than keeps the memory busy; and half of that where A comes in packets, of which
/// the first are stored, and looked for, meanwhile.
template <class Op>
IRIS_DEVICE u32 copy_ahead(const FastArgs& fast, const Ring& ring, const Columns& cols, const Stint& stint, u64 depths) {
    constexpr u32 IN_FLIGHT = Op::UNPACKS ? FLIGHT / 2 : FLIGHT;
    static_assert(IN_FLIGHT > 0, "something is asked for before anything is waited for");
    u32 count = u32(smaller(stint.slabs(), STAGES));
    Place place;
    for (u32 nth = 0; nth < count; ++nth) {
        if (nth >= IN_FLIGHT) {
            await_phase(ring.flight(nth - IN_FLIGHT), 0);
        }
        arrive_expecting(ring.flight(nth), B_BYTES);
        copy_b(ring, place, ring.flight(nth), fast, cols, depth_of(stint.first + nth, depths));
        place.advance();
    }
    return count;
}

/// What a block makes slabs of in a stint.
struct Slabs {
    /// Of its own tile, if it has rows; else of its partner's, as far as A goes.
    Work work;
    /// Whether this block has a tile.
    bool own;
    Columns cols;
};
template <class Op>
IRIS_DEVICE Slabs slabs_of(const Op& op, const Stint& stint) {
    Work work = work_of(op, stint);
    bool own = work.block.rows != 0;
    if constexpr (PAIR == 1) {
        return {work, own, {i32(work.block.col)}};
    } else {
        Work other = work_at(op, stint.step ^ 1);
        // Where a tile is none, the other's columns stand for its own: nobody takes away what comes of it.
        i32 mine = i32(own ? work.block.col : other.block.col);
        i32 theirs = i32(other.block.rows != 0 ? other.block.col : work.block.col);
        bool second = stint.step % 2 != 0;
        Slabs of{own ? work : other, own, {}};
        of.cols.from[0] = second ? theirs : mine;
        of.cols.from[PAIR - 1] = second ? mine : theirs;
        return of;
    }
}

/// Whether parts of A are awaited where they are gathered.
template <class Op>
constexpr bool GATHERS = Op::SENDS && !Op::UNPACKS;

/// Where a crew begins with what does not follow from the arguments alone: the launch before has ended, and all crews are here.
IRIS_DEVICE void begin_launch() {
    await_launch_before();
    sync_all();
}

/// Fills the ring. It begins the launch itself.
template <class Op>
IRIS_DEVICE bool load_tiles(Op& op, const FastArgs& fast, const Ring& ring, CrewsShared& shared) {
    Place place;
    u32 peers = shared.peers;
    bool go = true;
    u64 depths = op.depths();
    // Which call this is, nobody has to know before the first slabs are on their way.
    bool attends = false;
    auto attend = [&] {
        go = go && (attends || op.rank.call.attend());
        attends = true;
    };
    bool begun = false;
    // The first row of this call's bank, once it is known.
    constexpr u32 NONE = ~0u;
    [[maybe_unused]] u32 bank_row = NONE;
    Course<Op> course(op, fast);
    while (course.next()) {
        Stint stint = course.stint();
        Slabs of = slabs_of(op, stint);
        Work& work = of.work;
        if (work.block.rows == 0) {
            continue;
        }
        bool first = !begun;
        if (first) {
            // What is copied first is found out while the launch before may still be under way.
            worked_out(work.a_row);
            for (u32 nth = 0; nth < PAIR; ++nth) {
                worked_out(of.cols.from[nth]);
            }
            begin_launch();
            begun = true;
        }
        bool own = Op::MERGES && of.own && work.rank == op.me();
        auto from = [&](u64 source) { return (peers >> source & 1) != 0; };
        auto bring_parts = [&] {
            fence_async();
            sync_wave();
            if (elected()) {
                load_parts(op, ring, place, work, peers);
            }
            sync_wave();
        };
        bool parts_first = false;
        if (own && PAIR == 1) {
            if (!first) {
                attend();
                go = go && op.rank.call.meet();
                parts_first = go && op.rank.call.is_ready_from(work.index, from);
            }
            // All of a warpgroup have read what stood here by the time that it lets the place be overwritten.
            if (elected()) {
                await_phase(ring.empty(place.stage), place.parity ^ 1);
                shared.parts_first[place.stage] = parts_first;
            }
        }
        if (parts_first) {
            bring_parts();
        }
        u64 row = work.a_row;
        // Up to `ahead` B has been asked for, and up to `there` A is there.
        u32 ahead = stint.first;
        u32 there = stint.end;
        typename Op::Wanted wanted;
        if constexpr (Op::SENDS) {
            // A tile that is streamed is waited for at the depths of the stint, so whatever another awaits as well. Of a pair each block has the
            // same half of the depth of all its tiles.
            bool awaits = GATHERS<Op> && op.awaits(work, first || fast.partials != 0);
            if (first && (awaits || Op::UNPACKS)) {
                op.rank.call.glance();
                if (elected()) {
                    ahead += copy_ahead<Op>(fast, ring, of.cols, stint, depths);
                }
                sync_wave();
            }
            if (awaits) {
                bool foreseen = first_lane_says(told_to_block(shared.foreseen) == stint.step + 1);
                bool fenced = attends;
                attend();
                if (!foreseen) {
                    there = stint.first;
                    wanted = op.wanted(work);
                } else if (!fenced) {
                    fence_async(); // behind what is looked at first, as behind what arrives
                }
            }
            if (GATHERS<Op> && work.gathered) {
                if (bank_row == NONE) {
                    bank_row = u32(op.rank.slot_number(0, 0) * (op.args.slot_bytes / (Rank::pitch(depths) * sizeof(Element))));
                }
                row += bank_row;
            }
        }
        [[maybe_unused]] Duty duty{};
        if (course.does_stream()) {
            duty = duty_of(course, work.block.rows);
            if (elected()) {
                await_phase(ring.empty(place.stage), place.parity ^ 1);
                shared.duties[place.stage] = duty;
            }
        }
        Rows rows = Rows::of(fast, GATHERS<Op> && work.gathered, u32(row));
        u32 bytes = Op::UNPACKS ? 0 : rows.bytes;
        auto copy = [&](u32 slab) {
            i32 depth = depth_of(slab, depths);
            u32 full = ring.full(place.stage);
            if (Op::SENDS && slab < ahead) {
                await_phase(ring.flight(place.stage), 0);
                arrive_expecting(full, bytes);
            } else {
                await_phase(ring.empty(place.stage), place.parity ^ 1);
                if (Op::UNPACKS && slab - stint.first >= FLIGHT) {
                    // As in `copy_ahead`: beside more of B the movers' loads take longer.
                    Place before = place.before(FLIGHT);
                    await_phase(ring.full(before.stage), before.parity);
                }
                arrive_expecting(full, bytes + B_BYTES);
                copy_b(ring, place, full, fast, of.cols, depth);
            }
            if (!Op::UNPACKS) {
                copy_a(ring, place, rows, depth);
            }
            place.advance();
        };
        if constexpr (GATHERS<Op>) {
            // Some at a time, how many is known in advance: in a loop of which the compiler does not know that all lanes go through it as
            // often, it goes through the lanes one after the other. Once all of A is there, all that is left.
            for (u32 slab = stint.first, end; slab < stint.end; slab = end) {
                end = same_in_wave(there) < stint.end ? u32(smaller(slab + AT_A_TIME, stint.end)) : stint.end;
                if (there < end) {
                    u64 depth = u64(there) * SLAB_K;
                    u64 needed = smaller(u64(end) * SLAB_K, depths);
                    while (go && depth < needed) {
                        go = op.arrived_at(wanted, depth);
                    }
                    there = go && depth < depths ? u32(depth / SLAB_K) : stint.end;
                    fence_async(); // what arrived by stores is read by copies
                }
                sync_wave();
                if (elected()) {
                    for (u32 next = slab; next < end; ++next) {
                        copy(next);
                    }
                }
            }
        } else if (elected()) {
            for (u32 slab = stint.first; slab < stint.end; ++slab) {
                copy(slab);
            }
        }
        sync_wave();
        if constexpr (Op::STREAMS && PAIR == 1) {
            if (duty.stages() != 0) {
                load_rest(course, ring, place, duty);
            }
        }
        if (own && !parts_first) {
            attend();
            go = go && op.rank.call.meet();
            go = go && op.rank.call.await_ready_from(work.index, from);
            bring_parts();
        }
    }
    if (!begun) {
        begin_launch();
    }
    if (ENDS_EARLY<Op>) {
        attend();
    }
    return go;
}

/// Adds to a tile's sums what peers have of it, in the order of their ranks: what `load_parts` brings, of as many rows.
IRIS_DEVICE void add_parts(Accumulators& sums, const Ring& ring, Place& place, u32 rows, u32 peers) {
    u32 own_group = thread_index() / 128;
    u32 row = thread_index() / 32 % 4 * 16 + lane_index() % 16;
    for (u32 group = 0; group * GROUP_M < rows; ++group) {
        IRIS_ROLLED
        for (u32 left = peers; left != 0; left &= left - 1) {
            await_phase(ring.full(place.stage), place.parity);
            if (group == own_group) {
                IRIS_UNROLL
                for (u32 col = 0; col < TILE_N; col += 16) {
                    u32 part[4];
                    u32 from = ring.a(place.stage) + in_part(row, col + lane_index() / 16 * 8);
                    load_matrices(part, from);
                    IRIS_UNROLL
                    for (u32 pair = 0; pair < 4; ++pair) {
                        sums.d[col / 2 + pair * 2] += widen_low(part[pair]);
                        sums.d[col / 2 + pair * 2 + 1] += widen_high(part[pair]);
                    }
                }
            }
            sync_group(own_group);
            if (thread_index() % 128 == 0) {
                arrive(ring.empty(place.stage));
            }
            place.advance();
        }
    }
}

/// Empties the ring.
template <class Op>
IRIS_DEVICE bool multiply_tiles(Op& op, const FastArgs& fast, const Ring& ring, const CrewsShared& shared) {
    // The index is read while the first slabs are on their way.
    bool go = Op::TO != To::packets || op.rank.call.attend();
    u32 group = thread_index() / 128;
    Place place;
    u32 parity = 1;
#if defined(IRIS_PAIRED)
    await_pair();
    Exchange exchange(ring, group);
#endif
    Course<Op> course(op, fast);
    while (course.next()) {
        u32 rows = 0;
        bool own = false;
        bool has_tile = true;
        if constexpr (Op::MERGES || PAIR == 2) {
            Slabs of = slabs_of(op, course.stint());
            rows = of.work.block.rows;
            own = Op::MERGES && of.own && of.work.rank == op.me();
            has_tile = of.own;
            if (rows == 0) {
                continue;
            }
        }
        bool parts_first = false;
        Accumulators sums;
        clear(sums);
        if constexpr (Op::MERGES && PAIR == 1) {
            if (own) {
                await_phase(ring.full(place.stage), place.parity);
                parts_first = shared.parts_first[place.stage] != 0;
            }
            if (parts_first) {
                add_parts(sums, ring, place, rows, shared.peers);
            }
        }
        [[maybe_unused]] Duty duty{};
        if (course.does_stream()) {
            await_phase(ring.full(place.stage), place.parity);
            duty = shared.duties[place.stage];
        }
        u32 slabs = course.stint().slabs();
        if (PAIR == 1 || slabs != 0) {
            multiply_slabs(sums, ring, place, slabs, fast);
        }
#if defined(IRIS_PAIRED)
        exchange.make(sums);
        if (!has_tile) {
            continue;
        }
#endif
        if constexpr (Op::STREAMS && PAIR == 1) {
            if (duty.leaves()) {
                hand_over(course, sums, duty);
                continue;
            }
            add_rest(sums, ring, place, duty);
        }
        if constexpr (Op::TO == To::packets) {
            leave_rows<false>(sums, ring, nullptr, 0);
            await_phase(ring.taken(0), 0); // opened by the couriers, once
            go = go && shared.failed == 0;
            sync_block();
            if (go) {
                push_tile(op, op.rank.packets(), ring, work_of(op, course.stint()));
            }
            sync_block();
        } else {
            if constexpr (Op::MERGES) {
                if (own && !parts_first) {
                    add_parts(sums, ring, place, rows, shared.peers);
                }
            }
            await_phase(ring.taken(group), parity);
            parity ^= 1;
            const Element* bias = own || !Op::MERGES ? op.bias() : nullptr;
            if (bias != nullptr) {
                Block block = work_of(op, course.stint()).block;
                leave_rows<true>(sums, ring, bias + block.col, block.cols);
            } else {
                leave_rows<false>(sums, ring, nullptr, 0);
            }
            fence_async_shared();
            arrive(ring.finished(group));
        }
    }
#if defined(IRIS_PAIRED)
    exchange.await_taken();
#endif
    return go;
}

/// Opens the way for the warpgroups' packets, or says that they may not go. Who waits for `entered` here holds up nobody: the
/// product goes on.
template <class Op>
IRIS_DEVICE bool open_way(Op& op, const Ring& ring, CrewsShared& shared) {
    bool go = op.begin() && op.rank.call.meet();
    if (thread_index() == 0) {
        if (!go) {
            shared.failed = 1;
        }
        arrive(ring.taken(0));
    }
    return go;
}

/// While a tile is made, of which `parity` is said when it is finished, looks for the A of the one at `step`, which the block makes next. Once that
/// has come, the loader is told, which would otherwise look for it while nothing is copied: it takes 2.5 us for each tile. Who is told nothing
/// looks for himself, so nobody waits for this.
template <class Op>
IRIS_DEVICE void look_ahead(Op& op, const Ring& ring, CrewsShared& shared, u32 step, u32 parity) {
    Work work = op.work(step);
    if (!op.awaits(work, false)) {
        return;
    }
    typename Op::Wanted wanted = op.wanted(work);
    while (!first_lane_says(phase_ended_by_now(ring.finished(0), parity))) {
        if (op.has_arrived(wanted)) {
            fence_async(); // what arrived by stores is read by copies
            sync_wave();
            if (thread_index() == 0) {
                tell_block(shared.foreseen, step + 1);
            }
            return;
        }
        sleep(LOOKS_APART_NS);
    }
}

/// Takes tiles away.
template <class Op>
IRIS_DEVICE bool deliver_tiles(Op& op, const FastArgs& fast, const Ring& ring, CrewsShared& shared) {
    bool go = Op::SENDS || op.begin();
    // Before the block may arrive: then nobody knows any more which call this is.
    [[maybe_unused]] bool foresees = GATHERS<Op> && PAIR == 1 && fast.partials == 0 && op.steps() > op.args.blocks && op.rank.call.attend();
    if (ENDS_EARLY<Op>) {
        vouch(shared, go); // `may_store` waits for outputs alone
    }
    u32 parity = 0;
    u64 slabs = slabs_of(op.depths());
    Course<Op> course(op, fast);
    while (course.next()) {
        Stint stint = course.stint();
        Work work = work_of(op, stint);
        if (work.block.rows == 0 || (PAIR == 1 && !stint.is_head())) {
            continue;
        }
        bool own = Op::MERGES && work.rank == op.me();
        // Beside the next tile, if there is one.
        u64 next = stint.step + op.args.blocks;
        bool more = !course.does_stream() && next < op.steps() && op.work(next).block.rows != 0;
        u64 peers = own || Op::TO != To::slots ? op.world() - 1 : op.targets();
        Pace pace = more ? Pace::beside(slabs, delivery_steps() * peers) : Pace();
        if constexpr (GATHERS<Op> && PAIR == 1) {
            if (foresees && more) {
                look_ahead(op, ring, shared, u32(next), parity);
            }
        }
        IRIS_UNROLL
        for (u32 group = 0; group < GROUPS; ++group) {
            await_phase(ring.finished(group), parity);
            go = go && op.may_store(work);
            if (go) {
                if (own) {
                    take_rows<Op::OWN>(op, fast, ring, work, group, pace);
                } else {
                    take_rows<Op::TO>(op, fast, ring, work, group, pace);
                }
            }
            commit_copies();
            await_copies_read();
            sync_block();
            if (thread_index() == 0) {
                arrive(ring.taken(group));
            }
        }
        parity ^= 1;
        if (Op::TO == To::slots && go && !own) {
            op.tell(work);
        }
    }
    if (!ENDS_EARLY<Op>) {
        // What has been copied into outputs is there before the block arrives.
        await_copies();
    }
    return go;
}

/// A crew's side of an operation, where its number is known: as a constant, it takes no register.
template <class Op, u32 CREW>
IRIS_DEVICE Op side(const FastArgs& fast, CrewsShared& shared) {
    return Op(fast.args, shared.calls[CREW], Turns{shared.dealt, shared.drawn[CREW]});
}

/// Begins the launch and the call, and sends this block's pieces of A.
///
/// These are awaited by all: the first of them is asked for before anything else, and so is what tells which call this is. Behind the loader's
/// requests, which begin when the block's crews have met here, it would come as late as all that these ask for. Where it lies is found out
/// before.
template <class Op>
IRIS_DEVICE bool begin_and_send(Op& op) {
    typename Op::Parcel parcel;
    op.expect(parcel);
    Pace pace = Pace::of(u32(op.args.apart));
    await_launch_before();
    op.rank.call.glance();
    op.fetch_expected(parcel);
    sync_all();
    // What nobody has anything to do before, comes in the order in which it is waited for.
    u64 apart = pace.apart == 0 ? op.piece_bytes() : 0;
    bool go = op.begin();
    u64 since = now_ns();
    return go && op.send(parcel, [&](u64 number) { await_turn(since, number * apart); }, [&] { pace.keep(); });
}

/// Walks through a whole call, but for what a block and its partner begin and end with.
template <class Op>
IRIS_DEVICE void walk_crews(const FastArgs& fast, CrewsShared& shared, const Ring& ring) {
    // Up to where a crew begins the launch it goes by the arguments alone, in the shadow of the launch before.
    bool go = true;
    if (block_thread() >= LOADER) {
        if (GROUPS == 2) {
            give_registers<104>();
        }
        if (block_thread() < COURIERS) {
            sync_wave(); // what one lane has left in `shared`
            Op op = side<Op, 1>(fast, shared);
            go = load_tiles(op, fast, ring, shared);
            if (ENDS_EARLY<Op>) {
                if (!go) {
                    shared.failed = 1;
                }
                await_arrived();
                if (shared.failed == 0) {
                    op.finish();
                }
                return;
            }
        } else if (block_thread() < MOVERS) {
            begin_launch();
            Op op = side<Op, 2>(fast, shared);
            if constexpr (Op::TO == To::packets) {
                go = open_way(op, ring, shared);
            } else {
                go = deliver_tiles(op, fast, ring, shared);
            }
            if (ENDS_EARLY<Op>) {
                return;
            }
        } else {
            Op op = side<Op, 3>(fast, shared);
            if constexpr (Op::UNPACKS) {
                begin_launch();
                go = unpack_tiles(op, fast, ring) && op.reduce();
            } else if constexpr (Op::SENDS) {
                if (op.sends_first()) {
                    begin_launch();
                    go = op.rank.call.attend() && op.reduce();
                } else {
                    go = begin_and_send(op) && op.reduce();
                }
            } else {
                begin_launch();
                if (Op::REDUCES && op.steps() > op.args.blocks) {
                    // In a call of one tile a block there is nothing to reduce before the warpgroups can do it faster.
                    go = op.rank.call.attend() && op.reduce();
                }
            }
            if (ENDS_EARLY<Op>) {
                vouch(shared, go);
                return;
            }
        }
        if (!go) {
            shared.failed = 1;
        }
        sync_all();
    } else {
        if (GROUPS == 2) {
            take_registers<200>();
        }
        Op op = side<Op, 0>(fast, shared);
        bool began = false;
        if constexpr (Op::SENDS) {
            began = op.sends_first();
            if (began) {
                go = begin_and_send(op);
            }
        }
        if (!began) {
            begin_launch();
        }
        if (ENDS_EARLY<Op>) {
            vouch(shared, go);
            multiply_tiles(op, fast, ring, shared);
            return;
        }
        go = multiply_tiles(op, fast, ring, shared);
        if (Op::ALONE) {
            sync_all();
            return;
        }
        if constexpr (Op::TO == To::packets) {
            // A block without a tile may reduce, and hand on what it has reduced.
            await_phase(ring.taken(0), 0);
            go = go && shared.failed == 0;
        }
        // While the couriers take the last tile away.
        go = go && (Op::TO == To::packets || op.rank.call.attend());
        go = go && (!(Op::REDUCES || Op::TO == To::packets) || op.reduce());
        if (!go) {
            shared.failed = 1;
        }
        sync_all();
        if (shared.failed == 0) {
            op.finish();
        }
    }
}

/// Walks through a whole call.
template <class Op>
IRIS_DEVICE void run_crews(const FastArgs& fast, CrewsShared& shared) {
    IRIS_DYNAMIC_SHARED(dynamic);
    Ring ring{(shared_address(dynamic) + 1023) & ~1023u};
    admit_launch_after();
    if (block_thread() == LOADER) {
        prefetch_map(fast.a);
        prefetch_map(fast.b);
        if (GATHERS<Op>) {
            prefetch_map(fast.gathered);
        }
        shared.peers = deep_peers(side<Op, 1>(fast, shared));
    } else if (block_thread() == COURIERS) {
        // Not the loader, which has to find out meanwhile what it loads first.
        ring.make(Op::UNPACKS ? TEAM : 0);
        shared.dealt = 0;
        shared.failed = 0;
        shared.foreseen = 0;
    }
#if defined(IRIS_PAIRED)
    // The partner's barriers are there before anything is given to it. Who gives nothing sees to it that all have come, as an end.
    pair_arrives();
#endif
    walk_crews<Op>(fast, shared, ring);
#if defined(IRIS_PAIRED)
    if (block_thread() >= LOADER) {
        await_pair();
    }
#endif
}

} // namespace iris
