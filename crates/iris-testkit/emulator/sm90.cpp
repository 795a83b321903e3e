// Hopper's asynchronous units, from the PTX ISA manual ("Asynchronous Warpgroup Level Matrix Instructions", "Tensor copy", "mbarrier") and not
// from the kernels' own helpers.
//
// Of proxies it is looked for that a fence stands between what was stored by ordinary accesses and what reads it: between a wave's `stmatrix` and
// a copy from there, between a wave's acquire loads and a copy that reads what peers store, and between what a wave fills the ring with and its
// arrival by which that is handed to matrix instructions. Other accesses of shared memory are not seen.

#include "emulator.h"
#include "machine.h"
#include "matrix.h"

#include <algorithm>
#include <cstring>

namespace emulator {
namespace {

/// The current thread's.
Block& block() {
    return *machine.current->block;
}

unsigned char* shared_bytes(Block& block, std::uint64_t address, std::size_t bytes) {
    if (address + bytes > block.lds_bytes) {
        fail("shared memory ends before what is accessed", *machine.current);
    }
    return block.lds.get() + address;
}

/// The 128-byte swizzle: bits 4 to 6 of an address are changed by bits 7 to 9.
std::uint64_t swizzled(std::uint64_t address) {
    return address ^ (address >> 7 & 7) << 4;
}

/// The element of line `line` at depth `depth` of what a matrix descriptor describes. Bits 0 to 13 are where it begins, 16 to 29 the *leading*
/// and 32 to 45 the *stride* offset, all in 16 bytes. With depth side by side, 8 lines of 128 bytes make an atom, and atoms of further lines are
/// a stride offset apart. Else 64 lines at each of 8 depths make an atom: those of further depths are a stride offset apart, those of further
/// lines a leading offset.
float described(Block& block, std::uint64_t descriptor, bool deep, unsigned line, unsigned depth, bool bf16) {
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) {
        fail("a matrix that is not swizzled by 128 bytes, or does not begin where the pattern does", *machine.current);
    }
    std::uint64_t start = (descriptor & 0x3fff) << 4;
    std::uint64_t leading = (descriptor >> 16 & 0x3fff) << 4;
    std::uint64_t stride = (descriptor >> 32 & 0x3fff) << 4;
    std::uint64_t at = deep ? start + line / 8 * stride + line % 8 * 128 + depth * 2
                            : start + line / 64 * leading + depth / 8 * stride + depth % 8 * 128 + line % 64 * 2;
    std::uint16_t bits;
    std::memcpy(&bits, shared_bytes(block, swizzled(at), 2), 2);
    return number(bits, bf16);
}

/// Adds `factor` times each number to a sum: side by side, as the compiler sees since neither overlaps the other.
void add_scaled(float* __restrict sums, float factor, const float* __restrict numbers, std::size_t count) {
    for (std::size_t at = 0; at < count; ++at) {
        sums[at] += factor * numbers[at];
    }
}

/// `wgmma.m64nNk16`: sum j of thread t belongs to row t / 32 * 16 + j / 2 % 2 * 8 + t % 32 / 4, column j / 4 * 8 + t % 4 * 2 + j % 2.
void multiply(Block& block, const Multiplication& of) {
    std::vector<float> a(64 * 16), b(16 * of.n), sums(64 * of.n);
    for (unsigned k = 0; k < 16; ++k) {
        for (unsigned row = 0; row < 64; ++row) {
            a[row * 16 + k] = described(block, of.a, of.a_deep, row, k, of.bf16);
        }
        for (unsigned col = 0; col < of.n; ++col) {
            b[k * of.n + col] = described(block, of.b, of.b_deep, col, k, of.bf16);
        }
    }
    auto each = [&](auto act) {
        for (unsigned thread = 0; thread < 128; ++thread) {
            for (unsigned j = 0; j < of.n / 2; ++j) {
                unsigned row = thread / 32 * 16 + j / 2 % 2 * 8 + thread % 32 / 4;
                unsigned col = j / 4 * 8 + thread % 4 * 2 + j % 2;
                act(sums[row * of.n + col], of.sums[thread][j]);
            }
        }
    };
    each([](float& sum, float& held) { sum = held; });
    for (unsigned row = 0; row < 64; ++row) {
        for (unsigned k = 0; k < 16; ++k) {
            add_scaled(&sums[row * of.n], a[row * 16 + k], &b[k * of.n], of.n);
        }
    }
    each([](float& sum, float& held) { held = sum; });
}

/// Finishes all but the last `pending` groups.
void finish(Block& block, Sm90::Multiplications& multiplications, unsigned pending) {
    while (multiplications.groups.size() > pending) {
        for (const Multiplication& each : multiplications.groups.front()) {
            multiply(block, each);
        }
        multiplications.groups.pop_front();
    }
}

PhaseBarrier& barrier_at(Block& block, unsigned address) {
    auto found = block.sm90.barriers.find(address);
    if (found == block.sm90.barriers.end()) {
        fail("no barrier has been made there", *machine.current);
    }
    return found->second;
}

void end_phase_if_due(PhaseBarrier& barrier) {
    if (barrier.pending == 0 && barrier.bytes == 0) {
        barrier.pending = barrier.arrivals;
        barrier.parity ^= 1;
    }
}

/// Calls `each(shared, element)` for each element of a box: where it lies in shared memory, and in global memory, or null outside of the matrix.
template <class Each>
void each_of_box(Block& block, const Copy& copy, Each each) {
    const Map& map = copy.map;
    for (std::uint64_t j = 0; j < map.sides[1]; ++j) {
        for (std::uint64_t i = 0; i < map.sides[0]; ++i) {
            std::int64_t x = copy.x + std::int64_t(i), y = copy.y + std::int64_t(j);
            bool inside = x >= 0 && y >= 0 && std::uint64_t(x) < map.lens[0] && std::uint64_t(y) < map.lens[1];
            auto* element = reinterpret_cast<unsigned char*>(map.address + std::uint64_t(y) * map.stride + std::uint64_t(x) * 2);
            each(shared_bytes(block, swizzled(copy.shared + j * 128 + i * 2), 2), inside ? element : nullptr);
        }
    }
}

/// Shared memory is a block's as long as some thread of it runs.
void check_alive(const Block& block) {
    if (std::all_of(block.threads.begin(), block.threads.end(), [](const Thread& each) { return each.state == State::ended; })) {
        fail("reaches for the shared memory of a block that has ended", *machine.current);
    }
}

/// The current block's partner: the other of two that follow each other.
Block& partner() {
    std::size_t index = block().index ^ 1;
    if (index >= machine.blocks->size()) {
        fail("its block has no partner", *machine.current);
    }
    return (*machine.blocks)[index];
}

/// Tells an address in a partner's shared memory from one in a block's own.
constexpr unsigned ACROSS = 1u << 31;

unsigned across(unsigned address) {
    if ((address & ACROSS) == 0) {
        fail("an address in its own shared memory, where the partner's is meant", *machine.current);
    }
    return address & ~ACROSS;
}

/// Makes a copy, or its next part. Returns whether it is done.
bool make(Block& block, Copy& copy) {
    if (copy.kind == Copy::Kind::box_out) {
        std::size_t at = 0;
        if (!copy.read) {
            copy.held.resize(std::size_t(copy.map.sides[0]) * copy.map.sides[1] * 2);
            each_of_box(block, copy, [&](unsigned char* shared, unsigned char*) {
                std::memcpy(copy.held.data() + at, shared, 2);
                at += 2;
            });
            copy.read = true;
            return false;
        }
        each_of_box(block, copy, [&](unsigned char*, unsigned char* element) {
            if (element != nullptr) {
                std::memcpy(element, copy.held.data() + at, 2);
            }
            at += 2;
        });
        return true;
    }
    if (copy.kind == Copy::Kind::given) {
        check_alive(block);
        std::memcpy(shared_bytes(block, copy.shared, copy.bytes), copy.held.data(), copy.bytes);
    } else if (copy.kind == Copy::Kind::bytes_in) {
        std::memcpy(shared_bytes(block, copy.shared, copy.bytes), reinterpret_cast<const void*>(copy.from), copy.bytes);
    } else {
        each_of_box(block, copy, [&](unsigned char* shared, unsigned char* element) {
            std::memset(shared, 0, 2);
            if (element != nullptr) {
                std::memcpy(shared, element, 2);
            }
        });
    }
    PhaseBarrier& barrier = barrier_at(block, copy.barrier);
    barrier.bytes -= copy.bytes;
    end_phase_if_due(barrier);
    return true;
}

/// Rounds that a copy takes: most few, some many.
unsigned delay() {
    std::uint64_t random = next_random(machine.random);
    return unsigned(random % 4 == 0 ? random / 4 % 256 : random / 4 % 4);
}

/// What peers have stored is copied by a wave whose lanes, when they last came together, had all made a fence since they saw that it is there.
void check_staged(std::uint64_t from) {
    const Thread& thread = *machine.current;
    bool staged = from >= machine.staged_from && from < machine.staged_to;
    if (staged && (thread.acquired || !thread.fenced)) {
        fail("copies what peers have stored, without a fence after seeing that they have", thread);
    }
}

/// A finished tile is copied when whoever has written it has made a fence.
void check_written(unsigned from, unsigned bytes) {
    for (const Thread& each : block().threads) {
        for (unsigned at : each.written) {
            if (at >= from && at < from + bytes) {
                fail("copies from shared memory what has been written there without a fence", *machine.current);
            }
        }
    }
}

void ask_for(Copy copy) {
    machine.events += 1;
    copy.rounds = delay();
    block().sm90.copies.push_back(std::move(copy));
}

Copy box(const void* map, unsigned shared, int x, int y) {
    Copy copy{};
    std::memcpy(&copy.map, map, sizeof(copy.map));
    if (copy.map.sides[0] != 64 || shared % 1024 != 0 || x % 8 != 0) {
        fail("a box that is not 128 bytes wide, does not begin where the pattern does, or not at 16 bytes of its matrix", *machine.current);
    }
    copy.shared = shared;
    copy.x = x;
    copy.y = y;
    copy.bytes = copy.map.sides[0] * copy.map.sides[1] * 2;
    copy.thread = machine.current;
    copy.group = machine.current->copies;
    return copy;
}

} // namespace

bool make_copies(Block& block, bool all) {
    std::vector<Copy>& copies = block.sm90.copies;
    bool made = false;
    for (std::size_t left = copies.size(); left-- > 0;) {
        Copy& copy = copies[left];
        if (!all && copy.rounds > 0) {
            copy.rounds -= 1;
            continue;
        }
        made = true;
        if (make(block, copy)) {
            copies.erase(copies.begin() + std::ptrdiff_t(left));
        } else {
            copy.rounds = delay();
        }
    }
    return made;
}

void end(Block& block) {
    std::vector<Copy>& copies = block.sm90.copies;
    auto stored = [&](Copy& copy) { return copy.kind == Copy::Kind::box_out && copy.read && make(block, copy); };
    copies.erase(std::remove_if(copies.begin(), copies.end(), stored), copies.end());
    bool multiplies = false;
    for (const auto& each : block.sm90.groups) {
        multiplies = multiplies || !each.open.empty() || !each.groups.empty();
    }
    if (multiplies || !block.sm90.copies.empty()) {
        fail("its block ends while copies or multiplications are under way", block.threads[0]);
    }
}

} // namespace emulator

using namespace emulator;

extern "C" {

unsigned iris_emulator_shared_address(const void* pointer) {
    return unsigned(static_cast<const unsigned char*>(pointer) - block().lds.get());
}

void* iris_emulator_shared_at(unsigned address, std::size_t bytes) {
    return shared_bytes(block(), address, bytes);
}

void* iris_emulator_fill(unsigned address, std::size_t bytes) {
    machine.current->filled = true;
    return shared_bytes(block(), address, bytes);
}

void iris_emulator_fence_async(bool shared_alone) {
    machine.current->written.clear();
    machine.current->filled = false;
    machine.current->acquired = machine.current->acquired && shared_alone;
}

void iris_emulator_tells() {
    const Thread& thread = *machine.current;
    if (thread.acquired || !thread.fenced) {
        fail("it tells its block of what has been waited for without a fence for copies", thread);
    }
    machine.events += 1;
}

void iris_emulator_barrier_init(unsigned barrier, unsigned arrivals) {
    shared_bytes(block(), barrier, 8);
    if (barrier % 8 != 0 || arrivals == 0 || block().sm90.barriers.count(barrier) != 0) {
        fail("a barrier that is not aligned, waits for nobody, or is there already", *machine.current);
    }
    block().sm90.barriers[barrier] = {arrivals, arrivals, 0, 0};
}

void iris_emulator_arrive(unsigned barrier, unsigned bytes) {
    PhaseBarrier& at = barrier_at(block(), barrier);
    if (at.pending == 0) {
        fail("more arrive at a barrier than it was made for", *machine.current);
    }
    // Who arrives speaks for its wave.
    unsigned wave = machine.current->index / machine.lanes;
    for (const Thread& each : block().threads) {
        if (each.filled && each.index / machine.lanes == wave) {
            fail("hands over what has been written to shared memory without a fence", each);
        }
    }
    machine.events += 1;
    at.bytes += bytes;
    at.pending -= 1;
    end_phase_if_due(at);
}

bool iris_emulator_phase_ended(unsigned barrier, unsigned parity) {
    const PhaseBarrier& at = barrier_at(block(), barrier);
    if (at.parity == parity) {
        // It goes on when the phase has ended: most threads wait for one most of the time.
        machine.current->awaits = &at;
        machine.current->parity = parity;
        pause(Pause::here);
    }
    machine.events += 1;
    return true;
}

bool iris_emulator_phase_ended_by_now(unsigned barrier, unsigned parity) {
    if (barrier_at(block(), barrier).parity == parity) {
        pause(Pause::here);
        return false;
    }
    machine.events += 1;
    return true;
}

void iris_emulator_pair_arrives() {
    block().in_pair += 1;
    machine.events += 1;
}

void iris_emulator_await_pair() {
    while (block().in_pair + partner().in_pair < 2 * block().threads.size()) {
        pause(Pause::here);
    }
    machine.events += 1;
}

unsigned iris_emulator_at_partner(unsigned address) {
    return address | ACROSS;
}

void iris_emulator_give(unsigned to, unsigned barrier, const float (&values)[4]) {
    Copy copy{};
    copy.kind = Copy::Kind::given;
    copy.shared = across(to);
    copy.barrier = across(barrier);
    copy.bytes = sizeof(values);
    copy.held.resize(sizeof(values));
    std::memcpy(copy.held.data(), values, sizeof(values));
    copy.rounds = delay();
    machine.events += 1;
    partner().sm90.copies.push_back(std::move(copy));
}

void iris_emulator_arrive_across(unsigned barrier) {
    Block& other = partner();
    check_alive(other);
    PhaseBarrier& at = barrier_at(other, across(barrier));
    if (at.pending == 0) {
        fail("more arrive at a partner's barrier than it was made for", *machine.current);
    }
    machine.events += 1;
    at.pending -= 1;
    end_phase_if_due(at);
}

void iris_emulator_copy_box(unsigned to, const void* map, unsigned barrier, int x, int y) {
    iris_emulator_accesses();
    Copy copy = box(map, to, x, y);
    copy.kind = Copy::Kind::box_in;
    check_staged(copy.map.address);
    copy.barrier = barrier;
    ask_for(std::move(copy));
}

void iris_emulator_copy_bytes(unsigned to, const void* from, unsigned barrier, unsigned bytes) {
    iris_emulator_accesses();
    Copy copy{};
    copy.kind = Copy::Kind::bytes_in;
    copy.from = reinterpret_cast<std::uintptr_t>(from);
    copy.shared = to;
    copy.barrier = barrier;
    copy.bytes = bytes;
    check_staged(copy.from);
    if ((to | bytes | copy.from) % 16 != 0) {
        fail("a copy of bytes that is not aligned to 16", *machine.current);
    }
    ask_for(std::move(copy));
}

void iris_emulator_store_box(const void* map, unsigned from, int x, int y) {
    iris_emulator_accesses();
    Copy copy = box(map, from, x, y);
    copy.kind = Copy::Kind::box_out;
    check_written(from, copy.bytes);
    ask_for(std::move(copy));
}

void iris_emulator_commit_copies() {
    machine.events += 1;
    machine.current->copies += 1;
}

void iris_emulator_await_copies(bool read) {
    const Thread& thread = *machine.current;
    auto is_done = [&] {
        for (const Copy& copy : block().sm90.copies) {
            bool own = copy.kind == Copy::Kind::box_out && copy.thread == &thread && copy.group < thread.copies;
            if (own && !(read && copy.read)) {
                return false;
            }
        }
        return true;
    };
    while (!is_done()) {
        pause(Pause::here);
    }
    machine.events += 1;
}

void iris_emulator_load_matrices(unsigned (&to)[4], unsigned from) {
    struct Request {
        unsigned* to;
        unsigned from;
    } request{to, from};
    meet_wave("ldmatrix", &request, [](const std::vector<Thread*>& wave) {
        for (unsigned lane = 0; lane < wave.size(); ++lane) {
            for (unsigned matrix = 0; matrix < 4; ++matrix) {
                auto* row = static_cast<Request*>(wave[matrix * 8 + lane / 4]->request);
                std::memcpy(static_cast<Request*>(wave[lane]->request)->to + matrix, shared_bytes(block(), row->from, 16) + lane % 4 * 4, 4);
            }
        }
    });
}

void iris_emulator_store_matrices(unsigned to, const unsigned (&from)[4]) {
    struct Request {
        unsigned to;
        const unsigned* from;
    } request{to, from};
    machine.current->written.push_back(to);
    meet_wave("stmatrix", &request, [](const std::vector<Thread*>& wave) {
        for (unsigned lane = 0; lane < wave.size(); ++lane) {
            for (unsigned matrix = 0; matrix < 4; ++matrix) {
                auto* row = static_cast<Request*>(wave[matrix * 8 + lane / 4]->request);
                std::memcpy(shared_bytes(block(), row->to, 16) + lane % 4 * 4, static_cast<Request*>(wave[lane]->request)->from + matrix, 4);
            }
        }
    });
}

void iris_emulator_multiply(float* sums, unsigned n, std::uint64_t a, std::uint64_t b, bool a_deep, bool b_deep, bool bf16) {
    Multiplication mine{{sums}, n, a, b, a_deep, b_deep, bf16};
    meet(of_group(machine.current->index), 128, "wgmma.mma_async", &mine, [](const std::vector<Thread*>& group) {
        Multiplication all = *static_cast<Multiplication*>(group[0]->request);
        all.sums.clear();
        for (Thread* thread : group) {
            auto* each = static_cast<Multiplication*>(thread->request);
            if (each->a != all.a || each->b != all.b || each->n != all.n) {
                fail("threads of its warpgroup multiply other matrices", *thread);
            }
            all.sums.push_back(each->sums[0]);
        }
        block().sm90.groups[group[0]->index / 128].open.push_back(all);
    });
}

void iris_emulator_commit_multiplying() {
    meet(of_group(machine.current->index), 128, "wgmma.commit_group", nullptr, [](const std::vector<Thread*>& group) {
        Sm90::Multiplications& mine = block().sm90.groups[group[0]->index / 128];
        mine.groups.emplace_back();
        mine.groups.back().swap(mine.open);
        if (next_random(machine.random) % 2 == 0) {
            finish(block(), mine, 0);
        }
    });
}

void iris_emulator_await_multiplied(unsigned pending) {
    meet(of_group(machine.current->index), 128, "wgmma.wait_group", nullptr, [pending](const std::vector<Thread*>& group) {
        finish(block(), block().sm90.groups[group[0]->index / 128], pending);
    });
}
}
