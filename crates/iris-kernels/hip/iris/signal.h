// One call of an operation, as its kernel walks through it. Every wait and every signal of every operation is made here: the
// twin of `iris_sync`'s `call.rs`, for a grid of blocks in place of one thread a rank.
//
// # The order of a call
//
// 1. `begin` reads the call's index; the first block tells every peer `entered` and what it announces.
// 2. `gate` waits until every peer has entered the previous call: it has then left the one before that, whose bank this call reuses.
// 3. Every block produces all its tiles: data into a rank's staging, then `push_ready`.
// 4. The block reduces: `meet`, then `await_ready_from` and the data, tile by tile.
// 5. `finish` lets the block arrive, when nothing in it can fail any more. When all have, the index is advanced; before that, the last one waits for
//    what makes this rank's output whole, where peers store into that.
//
// No step before 4 waits for anything but `entered`, of this call or of the one before, and every rank tells that as it begins, so no
// rank can wait for one that waits for it; where crews go through 3 and 4 by turns, `Rounds` says why not either. Tiles of a gathered A wait for what step 3 begins with. Blocks of
// one rank wait for each other too (a rank's own tiles are announced to itself like to its peers), so all of them must be
// resident at once.
//
// # Memory order
//
// Signals are stored with release order and awaited with acquire order, at system scope, by one thread of a block each; the
// block synchronises before a signal and after a wait, so that what holds for this thread holds for all. What speaks for the
// whole rank is signalled by the last block to arrive, and each makes a release fence of system scope before it arrives where it has
// stored into peers' outputs, or added to their sums, since blocks may have caches of their own. All else that it stores for peers it
// has told them itself by then, by `ready` words with release order or in packets, and it makes no fence.
//
// That the rank has left a call is told by `entered` of its next one. *Invariant:* calls of a workspace run one after the other, so
// the first block of a call begins, or passes `await_launch_before`, when all blocks of the call before have ended. The end of a kernel orders all that its blocks have
// read and stored before what the next one does; so whoever acquires `entered` has all of that behind it.
//
// # The host's word
//
// By which the host asks to leave lies in host memory, where reads of different blocks wait for each other (a microsecond each on an
// H100). Only the first block looks at it as it begins; the others do where they have waited for long, or find the rank poisoned.
//
// # Crews
//
// Where a block consists of crews (`sm90/crews.h`), each has a `Call` of its own, and what is said here of a block holds for a crew:
// one of them begins the call, the others `attend` it. A block arrives when none of its crews can fail any more.
//
// # Kernels of one's own
//
// A kernel that uses `Call` takes `Args` as its first argument, by value: on AMD it is read again from the start of the argument
// segment (`reread`). `barrier.h` has what needs no `Args`.
//
// # Leaving
//
// Everything here that can wait returns whether to go on. Where it returns false, it does so in all threads of the block, and the
// block leaves the kernel at once, without arriving: so the index stays, and nothing more is signalled.
#pragma once

#include "fault.h"

namespace iris {

/// The protocol's rules by name, numbered as `iris_sync::Rule`. With IRIS_CONTROLS a test can take some out.
enum class Rule : u32 {
    gate,
    gate_of_all,
    entered,
    reached,
    reached_on_ring,
    bank_from_index,
    two_banks,
    value_from_index,
    clear,
    gathered,
    release,
    compare,
    whole,
};

/// The points of a call where a test can stall a rank, numbered as `iris_sync::Phase`.
enum class Phase : u64 { begin, gate, ready, reduce, read, store, gathered, added, leave };

/// Whether what a call begins with is loaded ahead and kept. On AMD it would take scalar registers that there are none of.
#if defined(__AMDGCN__)
constexpr bool LOOKS_AHEAD = false;
#else
constexpr bool LOOKS_AHEAD = true;
#endif
/// Whether a wait is left at several places. At one of them less lies between the instructions that every call goes through, which come from
/// memory; but on AMD what leads there would take scalar registers that there are none of.
constexpr bool LEAVES_ANYWHERE = !LOOKS_AHEAD;

/// What the threads of a block share of a call.
struct CallShared {
    /// Whether some thread wants to leave, in three copies that are used in turn.
    u32 votes[3];
    /// Whether this block was the last to arrive.
    u32 last;
#if defined(IRIS_EMULATED)
    u32 least;
#endif
    /// Where each rank's output begins, as this device sees it, and the elements from one row to the next.
    u64 output[MAX_RANKS];
    u64 output_row[MAX_RANKS];
};

/// A tile, or a piece, of which a `ready` word speaks.
struct TileOf {
    u64 source;
    u64 tile;
};

/// Words of one source that a wave waits for, and which of its lanes look at them. They lie in rows: each row's words side by side, and
/// rows some words apart.
struct Span {
    u64 source;
    /// The tile of the first word of the first row.
    u64 first;
    /// Words of a row, words from a row to the next, and rows.
    u32 count;
    u32 apart;
    u32 rows;
    u32 lane;
    u32 lanes;
};

/// A call in progress, as one thread sees it. All members but `asked` are the same in all threads of the block.
struct Call {
    const Args& args;
    CallShared& shared;
    Layout layout;
    Heap heap;
    u64 index;
    u64 value;
    u64 bank;
    u32 turn;
    bool met;
    /// Whether `glance` has been called; and what it has seen: not 0 where this rank is to leave, and the word of the gate.
    bool glanced;
    u64 stopped;
    u64 at_gate;
    /// Whether the host has asked to leave, as this thread has seen as it began.
    bool asked;
    bool stalled;

    IRIS_DEVICE Call(const Args& args, CallShared& shared)
        : args(args), shared(shared), layout{args.world, args.tiles}, heap{args.heap, args.rank}, index(0), value(0), bank(0),
          turn(0), met(false), glanced(false), stopped(0), at_gate(0), asked(false), stalled(false) {}

    IRIS_DEVICE bool keeps(Rule rule) const {
#if defined(IRIS_CONTROLS)
        return (args.removed >> u32(rule) & 1) == 0;
#else
        (void)rule;
        return true;
#endif
    }

    /// Stands still where the test asked for it, once in each block.
    IRIS_DEVICE void stall(Phase phase) {
#if defined(IRIS_STALLS)
        bool here = args.stall_rank == args.rank + 1 && args.stall_index == index && args.stall_phase == u64(phase);
        if (here && !stalled && args.stall_ns != 0) {
            stalled = true;
            u64 since = now_ns();
            IRIS_ROLLED
            while (now_ns() - since < args.stall_ns) {
                pause();
            }
        }
#else
        (void)phase;
#endif
    }

    IRIS_DEVICE Word* word(u64 rank, u64 place) const {
        const Args& args = reread(this->args);
        return global<Word>(args.heap[rank] + args.words) + place;
    }
    IRIS_DEVICE u64* cell(u64 rank, u64 place) const {
        const Args& args = reread(this->args);
        return global<u64>(args.heap[rank] + args.cells) + place;
    }

    /// Thread t signals to rank t.
    IRIS_DEVICE bool speaks_to_peer() const { return thread_index() < args.world && thread_index() != args.rank; }

    IRIS_DEVICE void signal(u64 rank, u64 place, u64 with) const {
        if (keeps(Rule::release)) {
            store<Order::release, Scope::system>(word(rank, place), Word(with));
        } else {
            store<Order::relaxed, Scope::system>(word(rank, place), Word(with));
        }
    }

    /// Synchronises the block, and returns whether all its threads want to go on.
    ///
    /// A thread that comes to the next vote finds its copy cleared before the barrier of this one; and nobody clears a copy
    /// before all have read it, since a thread that is two votes on has passed a barrier that all reached after reading.
    IRIS_DEVICE bool all_go_on(bool go_on) {
        if (!go_on) {
            shared.votes[turn] = 1;
        }
        u32 next = turn == 2 ? 0 : turn + 1;
        if (thread_index() == 0) {
            shared.votes[next] = 0;
        }
        sync_block();
        bool all = shared.votes[turn] == 0;
        turn = next;
        return all;
    }

    /// Whether another thread of this rank has left, and said why.
    IRIS_DEVICE bool is_poisoned() const {
        return load<Order::relaxed, Scope::device>(cell(args.rank, layout.poison_cell())) != 0;
    }

    /// Whether rank `by` has asked this one to leave.
    IRIS_DEVICE bool is_aborted(u64 by) const {
        return load<Order::acquire, Scope::system>(word(args.rank, layout.abort(by))) != 0;
    }

    /// Nobody.
    static constexpr u64 NO_RANK = ~u64(0);

    /// For which rank the host has, if it has: its word is far away.
    IRIS_DEVICE u64 host_aborts_for() const {
        const Args& args = reread(this->args);
        i32 by = args.abort == 0 ? 0 : load<Order::acquire, Scope::system>(global<i32>(args.abort));
        return by == 0 ? NO_RANK : u64(by - 1);
    }

    /// Leaves a wait, for which the fault record says why.
    IRIS_DEVICE bool leave(Cause cause, u64 other, const Wait& wait) const {
        fault(args, index, value, cause, other, &wait);
        return false;
    }

    /// Whether a thread that has waited in vain for a while goes on; `since` is when it began to count, or 0.
    IRIS_DEVICE bool may_wait(u64& since, const Wait& wait) const {
        if (is_poisoned()) {
            return false;
        }
        u64 by = 0;
        IRIS_ROLLED
        while (by < args.world && !is_aborted(by)) {
            ++by;
        }
        if (LEAVES_ANYWHERE && by < args.world) {
            return leave(Cause::aborted, by, wait);
        }
        by = by < args.world ? by : host_aborts_for();
        if (LEAVES_ANYWHERE && by != NO_RANK) {
            return leave(Cause::aborted, by, wait);
        }
        Cause cause = Cause::aborted;
        if (by == NO_RANK) {
            u64 now = now_ns();
            since = since == 0 ? now : since;
            if (now - since < args.budget_ns) {
                return true;
            }
            cause = Cause::budget_ended;
            by = args.budget_ns;
        }
        return leave(cause, by, wait);
    }

    /// Whether a word that reads `seen` has come to `target`, by the rule for words that are not banked.
    IRIS_DEVICE bool has_reached(u64 seen, u64 target) const {
        if (!keeps(Rule::reached)) {
            return seen == target;
        }
        if (!keeps(Rule::reached_on_ring)) {
            return seen != 0 && seen >= target;
        }
        return reached(seen, target);
    }

    /// One thread's wait for the word at `place` of this rank's memory: to equal `target` where `exactly`, else to reach it.
    IRIS_DEVICE bool wait(WordKind kind, u64 peer, u64 tile, u64 place, u64 target, bool exactly) const {
        const Word* at = word(args.rank, place);
        u64 since = 0;
        IRIS_ROLLED
        for (u32 polls = 1;; ++polls) {
            u64 seen = u64(load<Order::acquire, Scope::system>(at));
            if (exactly ? seen == target : has_reached(seen, target)) {
                return true;
            }
            if (polls % IRIS_LOOK == 0) {
                if (!may_wait(since, {kind, peer, tile, target, seen})) {
                    return false;
                }
            }
            pause();
        }
    }

    /// Loads what a call begins with. Nothing is done with it before `attend`, so what stands between the two is not kept waiting.
    IRIS_DEVICE void glance() {
        const Args& args = reread(this->args);
        // As the blocks of the previous call have left it, before its kernel ended; and what blocks of this one have added does not show.
        u64 completed = load<Order::relaxed, Scope::device>(cell(args.rank, layout.index_cell())) / ALL_SHARES;
        // The compiler would keep what it was made of.
        index = u64(opaque(u32(completed >> 32))) << 32 | opaque(u32(completed));
        if constexpr (LOOKS_AHEAD) {
            glanced = true;
            // Each thread looks at its words, all at the same time.
            if (thread_index() < args.world) {
                stopped = u64(load<Order::relaxed, Scope::system>(word(args.rank, layout.abort(thread_index()))));
                at_gate = u64(load<Order::acquire, Scope::system>(word(args.rank, layout.entered(thread_index()))));
            } else if (thread_index() == args.world) {
                stopped = load<Order::relaxed, Scope::device>(cell(args.rank, layout.poison_cell()));
            }
        }
    }

    /// Whether nobody has asked this thread's rank to leave, by what a glance has seen or would see.
    IRIS_DEVICE bool may_begin() {
        if constexpr (!LOOKS_AHEAD) {
            stopped = thread_index() < args.world ? is_aborted(thread_index()) : thread_index() == args.world && is_poisoned();
        }
        if (stopped != 0 && thread_index() < args.world) {
            fault(args, index, value, Cause::aborted, thread_index(), nullptr);
        }
        bool go = stopped == 0;
        glanced = false;
        stopped = 0; // nothing is kept that is not needed any more
        return go;
    }

    /// Learns which call this is, and returns whether to take part in it.
    IRIS_DEVICE bool attend() {
        const Args& args = reread(this->args);
        if (LOOKS_AHEAD && !glanced) {
            glance();
        }
        if (thread_index() == 0) {
            shared.votes[0] = 0;
        }
        sync_block();
        if (!LOOKS_AHEAD) {
            glance();
        }
        value = keeps(Rule::value_from_index) ? signal_value(args.first, index) : args.first;
        bank = !keeps(Rule::two_banks) ? 0 : keeps(Rule::bank_from_index) ? index % 2 : value % 2;
        return all_go_on(may_begin());
    }

    /// Begins the call.
    IRIS_DEVICE bool begin() {
        if (!attend()) {
            return false;
        }
        const Args& args = reread(this->args);
        stall(Phase::begin);
        if (block_index() == 0 && speaks_to_peer()) {
            u64 peer = thread_index();
            // Published by the release store of `entered`.
            u64* announced = cell(peer, layout.announced_cell(index, args.rank));
            store<Order::relaxed, Scope::system>(announced, args.m);
            store<Order::relaxed, Scope::system>(announced + 1, args.output);
            store<Order::relaxed, Scope::system>(announced + 2, args.output_row);
            signal(peer, layout.entered(args.rank), value);
        }
        // The gate's vote counts this thread's too.
        u64 by = block_index() == 0 && thread_index() == args.world ? host_aborts_for() : NO_RANK;
        asked = by != NO_RANK;
        if (asked) {
            fault(args, index, value, Cause::aborted, by, nullptr);
        }
        stall(Phase::gate);
        return true;
    }

    /// Waits until this call's bank may be written.
    IRIS_DEVICE bool pass_gate(bool writes) {
        bool gated = keeps(Rule::gate) && (writes || keeps(Rule::gate_of_all)) && index >= 2;
        bool passed = !asked;
        if (gated && speaks_to_peer()) {
            // MAX - 1 calls after the value of `i` is the value of `i - 1`.
            u64 previous = signal_value(value, WORD_MAX - 1);
            passed = (LOOKS_AHEAD && has_reached(at_gate, previous))
                || wait(WordKind::entered, thread_index(), NO_TILE, layout.entered(thread_index()), previous, false);
        }
        at_gate = 0;
        return all_go_on(passed);
    }

    /// The first block clears the `ready` words that the bank's previous call used and this one will not.
    template <class Used>
    IRIS_DEVICE void clear_words(Used used) {
        const Args& args = reread(this->args);
        if (block_index() == 0 && thread_index() < args.world) {
            u64 peer = thread_index();
            u64* cell_of_used = cell(args.rank, layout.used_cell(bank, peer));
            u64 previous = load<Order::relaxed, Scope::device>(cell_of_used);
            u64 now = used(peer);
            if (keeps(Rule::clear)) {
                IRIS_ROLLED
                for (u64 tile = now; tile < previous; ++tile) {
                    signal(peer, layout.ready(bank, args.rank, tile), 0);
                }
            }
            if (now != previous) {
                store<Order::relaxed, Scope::device>(cell_of_used, now);
            }
        }
    }

    /// Waits until this call's bank may be written; then the first block clears what this call leaves unused in it.
    ///
    /// `writes` says whether this rank writes, and `used(p)` how many `ready` words it will use at `p`, itself included, in this
    /// call, from the first on. The words beyond, which the bank's previous call used, are cleared here, so that no word is ever
    /// old enough to be believed again.
    template <class Used>
    IRIS_DEVICE bool gate(bool writes, Used used) {
        if (!pass_gate(writes)) {
            return false;
        }
        clear_words(used);
        return true;
    }

    /// Whether this is one of the two calls of each lap in which is swept what is else believed when its value comes around: packets,
    /// and `gathered` where nobody awaits it. One call a lap would not do.
    IRIS_DEVICE bool sweeps() const { return (value == 1 || value == 3) && keeps(Rule::clear); }

    /// Tells ranks that this rank's tile `tile` lies in their staging: those for which `told` is true. All threads' stores of the
    /// tile's data come before.
    template <class Told>
    IRIS_DEVICE void push_ready_to(u64 tile, Told told) {
        stall(Phase::ready);
        sync_block();
        if (thread_index() < args.world && told(u64(thread_index()))) {
            signal(thread_index(), layout.ready(bank, args.rank, tile), value);
        }
    }

    /// The same to one rank.
    IRIS_DEVICE void push_ready(u64 peer, u64 tile) {
        push_ready_to(tile, [&](u64 rank) { return rank == peer; });
    }

    /// Whether tile `tile` of every rank for which `from` is true lies in this rank's staging: looked at once.
    template <class From>
    IRIS_DEVICE bool is_ready_from(u64 tile, From from) {
        const Args& args = reread(this->args);
        stall(Phase::reduce);
        u64 source = thread_index();
        bool there = true;
        if (source < args.world && from(source)) {
            there = u64(load<Order::acquire, Scope::system>(word(args.rank, layout.ready(bank, source, tile)))) == value;
        }
        if (!all_go_on(there)) {
            return false;
        }
        stall(Phase::read);
        return true;
    }

    /// Waits until it does.
    template <class From>
    IRIS_DEVICE bool await_ready_from(u64 tile, From from) {
        const Args& args = reread(this->args);
        stall(Phase::reduce);
        bool there = true;
        u64 source = thread_index();
        if (source < args.world && from(source)) {
            // Equality: the word is banked with its data, so nothing newer can stand in it before this call is done here, and a
            // call that a fault left out is not taken for its successor.
            there = wait(WordKind::ready, source, tile, layout.ready(bank, source, tile), value, true);
        }
        if (!all_go_on(there)) {
            return false;
        }
        stall(Phase::read);
        return true;
    }

    /// Whether the `ready` words of some sources are there, looked at once: by each thread those that `named(nth)` names, source and tile, from its
    /// own `first` on in steps of `step` up to its own `end`.
    template <class Named>
    IRIS_DEVICE bool are_ready_named(u32 first, u32 step, u32 end, Named named) {
        bool there = true;
        IRIS_ROLLED
        for (u32 nth = first; nth < end && there; nth += step) {
            TileOf at = named(nth);
            there = u64(load<Order::acquire, Scope::system>(word(args.rank, layout.ready(bank, at.source, at.tile)))) == value;
        }
        return all_go_on(there);
    }

    /// Waits for the `ready` words of some sources: each thread for those that `named(nth)` names, source and tile, from its own `first`
    /// on in steps of `step` up to its own `end`.
    template <class Named>
    IRIS_DEVICE bool await_ready_named(u32 first, u32 step, u32 end, Named named) {
        stall(Phase::reduce);
        bool there = true;
        IRIS_ROLLED
        for (u32 nth = first; nth < end && there; nth += step) {
            TileOf at = named(nth);
            there = wait(WordKind::ready, at.source, at.tile, layout.ready(bank, at.source, at.tile), value, true);
        }
        if (!all_go_on(there)) {
            return false;
        }
        stall(Phase::read);
        return true;
    }

#if defined(IRIS_SM90) || defined(IRIS_EMULATED)
    /// One wave's wait for `ready` words: until the first row of each lane's span is there. Then `whole` is how many rows are, the least of all
    /// lanes': as many as there are lanes to look at them at the same time, since a second look would take as long as the first.
    ///
    /// Four words are looked at in one access: each of them as if by an access of its own, with acquire order.
    IRIS_DEVICE bool await_span(const Span& span, u32& whole) {
        stall(Phase::reduce);
        // Rows that follow each other are looked at as one. Each lane has one of the fours that these words lie in, or some if there are too few
        // lanes; if there are more, these look at further rows.
        u32 joined = span.count != span.apart || span.count == 0 ? 1 : u32(smaller(span.rows, (4 * span.lanes - 3) / span.count));
        joined = joined == 0 ? 1 : joined;
        u32 fours = u32(smaller((span.count * joined + 6) / 4, span.lanes));
        u32 row = span.lane / fours;
        u32 rows = span.count == 0 ? span.rows : joined > 1 ? joined : u32(smaller(span.rows, span.lanes / fours));
        u32 count = row == 0 || (joined == 1 && row < rows) ? span.count * joined : 0;
        const Word* first = word(args.rank, layout.ready(bank, span.source, span.first + row * span.apart));
        u32 before = u32(reinterpret_cast<u64>(first) / sizeof(Word) % 4);
        bool there = true;
        u64 since = 0;
        IRIS_ROLLED
        for (u32 polls = 1;; ++polls) {
            u32 late = count;
            u32 seen = 0;
            IRIS_ROLLED
            for (u32 quad = span.lane % fours * 4; quad < before + count; quad += fours * 4) {
                u32 words[4];
                load_quad(first - before + quad, words);
                IRIS_UNROLL
                for (u32 each = 4; each-- > 0;) {
                    u32 nth = quad + each - before;
                    // Equality, as in `await_ready_from`. Below the first one, numbers are large.
                    if (nth < late && words[each] != u32(value)) {
                        late = nth;
                        seen = words[each];
                    }
                }
            }
            whole = least(late < count ? row + late / span.count : rows);
            if (whole != 0) {
                break;
            }
            if (polls % IRIS_LOOK == 0) {
                u64 now = now_ns();
                since = since == 0 ? now : since;
                if (late < smaller(count, span.count) && row == 0) {
                    there = may_wait(since, {WordKind::ready, span.source, span.first + late, value, seen});
                }
                if (least(there) == 0) {
                    break;
                }
            }
            pause();
        }
        if (!all_go_on(there)) {
            return false;
        }
        stall(Phase::read);
        return true;
    }
#endif

#if defined(IRIS_SM90) && !defined(IRIS_EMULATED)
    /// The least of a wave's values.
    IRIS_DEVICE u32 least(u32 value) const { return __reduce_min_sync(0xffffffffu, value); }
    IRIS_DEVICE static void load_quad(const Word* from, u32 (&words)[4]) {
        asm volatile("ld.acquire.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                     : "l"(from)
                     : "memory");
    }
#elif defined(IRIS_EMULATED)
    // There the block goes that way which a wave goes on Hopper, and its threads run by turns.
    IRIS_DEVICE u32 least(u32 value) const {
        sync_block();
        shared.least = ~0u;
        sync_block();
        shared.least = value < shared.least ? value : shared.least;
        sync_block();
        return shared.least;
    }
    IRIS_DEVICE static void load_quad(const Word* from, u32 (&words)[4]) {
        for (u32 each = 0; each < 4; ++each) {
            words[each] = u32(load<Order::acquire, Scope::system>(from + each));
        }
    }
#endif

    /// Waits until every peer has entered this call, compares each one's m with this rank's, and learns where their outputs are.
    IRIS_DEVICE bool meet() {
        if (met) {
            return true;
        }
        const Args& args = reread(this->args);
        bool entered = true;
        u64 rank = thread_index();
        if (rank < args.world) {
            Announcement theirs{args.m, args.output, args.output_row};
            if (rank != args.rank && keeps(Rule::entered)) {
                entered = wait(WordKind::entered, rank, NO_TILE, layout.entered(rank), value, false);
                const u64* announced = cell(args.rank, layout.announced_cell(index, rank));
                if (entered) {
                    theirs.m = load<Order::relaxed, Scope::system>(announced);
                    theirs.output = load<Order::relaxed, Scope::system>(announced + 1);
                    theirs.row = load<Order::relaxed, Scope::system>(announced + 2);
                }
                if (entered && theirs.m != args.m && keeps(Rule::compare)) {
                    Wait wait{WordKind::entered, rank, NO_TILE, value, value};
                    fault(args, index, value, Cause::mismatch, theirs.m, &wait);
                    entered = false;
                }
            }
            shared.output[rank] = args.heap[rank] + theirs.output;
            shared.output_row[rank] = theirs.row;
        }
        met = true;
        return all_go_on(entered);
    }

    /// Takes spin lock `lock` in the memory of `rank`, for the whole block. The lock is 0 when free and 1 when held: it resets
    /// itself, and no value of the counter is ever in it.
    IRIS_DEVICE bool lock(u64 rank, u64 lock) {
        bool held = true;
        if (thread_index() == 0) {
            Word* at = word(rank, layout.lock(lock));
            u64 since = 0;
            u32 polls = 1;
            // Acquire: what the last holder wrote is seen.
            while (compare_exchange<Order::acquire, Scope::system>(at, Word(0), Word(1)) != 0) {
                if (polls++ % IRIS_LOOK == 0) {
                    held = may_wait(since, {WordKind::lock, rank, lock, 0, 1});
                    if (!held) {
                        break;
                    }
                }
                pause();
            }
        }
        return all_go_on(held);
    }

    /// Releases it.
    IRIS_DEVICE void unlock(u64 rank, u64 lock) {
        sync_block();
        if (thread_index() == 0) {
            store<Order::release, Scope::system>(word(rank, layout.lock(lock)), Word(0));
        }
    }

    /// Lets the block arrive, and returns in all its threads whether it is the last to do so. Blocks may arrive several times
    /// in a call; `times` counts, from 1. `SPOKEN_FOR` says that the last one speaks for what all of them have stored for peers: then
    /// this is released. Else nothing is made known but that the block has come so far, and uses the index no more unless it is the last.
    template <bool SPOKEN_FOR>
    IRIS_DEVICE bool arrive(u64 times) {
        const Args& args = reread(this->args);
        sync_block();
        if (thread_index() == 0) {
            u64* arrivals = cell(args.rank, layout.arrivals_cell());
            u64 before;
            if constexpr (SPOKEN_FOR) {
                if (keeps(Rule::release)) {
                    fence<Order::release, Scope::system>();
                }
                before = fetch_add<Order::acq_rel, Scope::device>(arrivals, u64(1));
            } else {
                before = fetch_add<Order::relaxed, Scope::device>(arrivals, u64(1));
            }
            shared.last = before + 1 == times * args.blocks;
        }
        sync_block();
        return shared.last != 0;
    }

    /// Lets the block arrive; the last one tells every rank, this one too, that this rank has added all it adds. Then waits until
    /// all have.
    IRIS_DEVICE bool exchange_added() {
        const Args& args = reread(this->args);
        if (arrive<true>(1)) {
            stall(Phase::added);
            if (thread_index() < args.world) {
                signal(thread_index(), layout.added(bank, args.rank), value);
            }
        }
        bool added = true;
        u64 source = thread_index();
        if (source < args.world) {
            added = wait(WordKind::added, source, NO_TILE, layout.added(bank, source), value, true);
        }
        if (!all_go_on(added)) {
            return false;
        }
        stall(Phase::read);
        return true;
    }

    /// Ends a call in which nobody stores into a peer's output, of an operation in which nobody ever does. Nothing is told: that this rank has
    /// read all it reads, and cleared all it clears, its peers hear by `entered` of its next call.
    ///
    /// So no block has to be the last. Each adds its share of the index, without waiting for an answer; once all have, the index is one
    /// more.
    IRIS_DEVICE void finish() {
        const Args& args = reread(this->args);
        if (block_index() == 0) {
            stall(Phase::leave);
        }
        if (thread_index() == 0) {
            u64 share = block_index() == 0 ? ALL_SHARES - (args.blocks - 1) : 1;
            add<Scope::device>(cell(args.rank, layout.index_cell()), share);
        }
    }

    /// The same of a call in which blocks have arrived before, `times` with this.
    IRIS_DEVICE void finish(u64 times) {
        if (arrive<false>(times)) {
            leave();
        }
    }

    /// Ends a call in which nobody stores into a peer's output, while owners do in other calls on the workspace.
    ///
    /// Nobody waits for `gathered` here. But it is awaited by equality, and no word may be a lap old when it is: so every rank tells
    /// it in two calls of each lap, and, here too, to no peer before having seen its `entered`.
    IRIS_DEVICE void finish_unowned() {
        if (!sweeps()) {
            finish();
            return;
        }
        if (!arrive<false>(1) || !meet()) {
            return;
        }
        tell_gathered();
        leave();
    }

    /// Ends a call in which owners store into their peers' outputs: the last block waits until this rank's output is whole, which
    /// it is once every rank for which `owns` is true has told so. Where the output is bounced, all blocks wait for that, and for
    /// this rank's own stores, since all of them copy.
    ///
    /// Every rank tells `gathered` in every such call, also one that stored nothing, and to no peer before having seen its `entered`.
    /// So the word is never a lap old (see `finish_unowned`), nor overwritten before all blocks have left the call that they wait for
    /// it in.
    template <class Owns>
    IRIS_DEVICE bool finish_gathered(Owns owns) {
        const Args& args = reread(this->args);
        bool last = arrive<true>(1);
        if (last) {
            if (!meet()) {
                return false;
            }
            tell_gathered();
        }
        if (!last && args.bounced == 0) {
            return true;
        }
        bool whole = true;
        u64 owner = thread_index();
        if (owner < args.world && (owner == args.rank || (owns(owner) && keeps(Rule::gathered)))) {
            whole = wait(WordKind::gathered, owner, NO_TILE, layout.gathered(owner), value, true);
        }
        if (!all_go_on(whole)) {
            return false;
        }
        if (last) {
            leave();
        }
        return true;
    }

    /// Tells every rank, this one too, that all that this rank stores into outputs in this call has arrived.
    IRIS_DEVICE void tell_gathered() {
        stall(Phase::gathered);
        if (thread_index() < args.world) {
            signal(thread_index(), layout.gathered(args.rank), value);
        }
    }

    /// Advances the index, in the last block to arrive. All have arrived, so all have read it. The end of the kernel orders it before the next
    /// one.
    IRIS_DEVICE void leave() {
        stall(Phase::leave);
        if (thread_index() == 0) {
            store<Order::relaxed, Scope::device>(cell(args.rank, layout.arrivals_cell()), u64(0));
            store<Order::relaxed, Scope::device>(cell(args.rank, layout.index_cell()), (index + 1) * ALL_SHARES);
        }
    }
};

} // namespace iris
