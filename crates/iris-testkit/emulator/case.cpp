// Runs a case: every rank an OS thread, which launches one call after the other without waiting for anybody, and looks at what it
// got as a user's next kernel would.

#include "case.h"
#include "fast.h"
#include "operands.h"
#include "runtime.h"

#include "iris/words.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <mutex>
#include <sstream>
#include <thread>

namespace emulator {
namespace {

using iris::Args;
using iris::FaultRecord;
using u64 = std::uint64_t;

u64 ceil_div(u64 a, u64 b) {
    return (a + b - 1) / b;
}

/// Into how many parts the depth of pieces of A is cut, and how deep each is: as the host says in `iris-kernels`.
void cut(u64 rows, u64 depth, iris::u64& parts, iris::u64& part) {
    u64 strips = std::max<u64>(1, ceil_div(rows, 8));
    parts = std::max<u64>(1, std::min(128 / std::min<u64>(strips, 128), ceil_div(depth, 256)));
    part = ceil_div(ceil_div(depth, 8), parts) * 8;
}

struct Part {
    u64 start;
    u64 len;
};

Part shard(u64 total, u64 world, u64 rank) {
    u64 size = ceil_div(total, world);
    u64 start = std::min(total, rank * size);
    return {start, std::min(total, (rank + 1) * size) - start};
}

/// Who gets which part of the operands, and needs how much of the workspace.
struct Plan {
    const Case& c;
    u64 largest = 0;
    u64 slots = 0;
    /// Words of each source in a bank, where there are other than one for each slot.
    u64 words = 0;
    u64 slot_bytes = 0;
    u64 packet_slots = 0;
    u64 packet_bytes = 0;
    u64 accumulators = 0;
    u64 locks = 0;
    bool gathers_a = false;
    bool by_columns = false;
    bool stores_to_peers = false;

    explicit Plan(const Case& c) : c(c) {
        for (u64 m : c.m) {
            largest = std::max(largest, m + 1);
        }
        slot_bytes = c.tile_m * c.tile_n * element_bytes(c.dtype);
        need(c.op, largest);
        if (c.few != 0) {
            need(c.op_of_few, c.few);
        }
    }

    /// Makes room for an operation's calls of up to so many rows.
    void need(const std::string& op, u64 largest) {
        u64 tiles = ceil_div(largest, c.tile_m) * ceil_div(c.n, c.tile_n);
        u64 rows = ceil_div(largest, c.world);
        unsigned bytes = element_bytes(c.dtype);
        if (op == "one_shot" || op == "ring_all_reduce") {
            // Room for a matrix of each rank, and for a word of each of a few blocks, in what `one_shot` has.
            slots = std::max(slots, tiles + (op == "one_shot" ? 0 : 8));
        } else if (op == "one_shot_packets") {
            packet_slots = tiles;
            packet_bytes = std::min(c.tile_m, largest) * c.tile_n * bytes * 2;
        } else if (op == "matmul") {
            slots = std::max(slots, u64(1)); // and needs none
        } else if (op == "two_shot") {
            slots = std::max(slots, ceil_div(tiles, c.world));
            stores_to_peers = true;
        } else if (op == "two_shot_packets") {
            packet_slots = 2 * ceil_div(c.n, c.tile_n);
            packet_bytes = rows * c.tile_n * bytes * 2;
        } else if (op == "atomic" || op == "spinlock") {
            accumulators = largest * c.n;
            locks = tiles;
        } else if (op == "matmul_reduce_scatter_packets") {
            packet_slots = ceil_div(c.n, c.tile_n);
            packet_bytes = rows * c.tile_n * bytes * 2;
        } else if (op == "matmul_reduce_scatter") {
            slots = ceil_div(rows, c.tile_m) * ceil_div(c.n, c.tile_n);
        } else if (op == "matmul_all_gather") {
            stores_to_peers = true;
        } else if (op == "all_gather_matmul_packets") {
            gathers_a = true;
            packet_slots = ceil_div(c.k, c.tile_n);
            packet_bytes = rows * c.tile_n * bytes * 2;
        } else {
            gathers_a = true;
            by_columns = op == "all_gather_matmul_columns";
            // Slots of 8 rows of the whole A, and a word for each part of 8 rows that a rank sends: as `iris_kernels::device::needs`.
            slots = ceil_div(rows, 8);
            slot_bytes = 8 * (ceil_div(c.k * bytes, 16) * 16);
            u64 strips = ceil_div(by_columns ? largest : rows, 8);
            u64 parts = ceil_div(by_columns ? ceil_div(c.k, c.world) : c.k, 256);
            words = std::max(strips, std::min<u64>(128, strips * parts));
        }
    }

    Part a_rows(u64 m, u64 rank) const {
        bool split = c.op == "matmul_all_gather" || (gathers_a && !by_columns);
        return split ? shard(m, c.world, rank) : Part{0, m};
    }
    Part a_depth(u64 rank) const {
        bool whole = c.op == "matmul_all_gather" || (gathers_a && !by_columns);
        return whole ? Part{0, c.k} : shard(c.k, c.world, rank);
    }
    Part b_depth(u64 rank) const {
        bool whole = c.op == "matmul_all_gather" || gathers_a;
        return whole ? Part{0, c.k} : shard(c.k, c.world, rank);
    }
    Part cols(u64 rank) const { return gathers_a ? shard(c.n, c.world, rank) : Part{0, c.n}; }
    Part c_rows(u64 m, u64 rank) const {
        bool scattered = c.op == "matmul_reduce_scatter" || c.op == "matmul_reduce_scatter_packets";
        return scattered ? shard(m, c.world, rank) : Part{0, m};
    }
};

/// The whole problem of one call, and its result.
struct Problem {
    Matrix a, b, bias, result;
    std::vector<Matrix> given;

    Problem(const Case& c, u64 m, u64 seed) : a(m, c.k), b(c.k, c.n), bias(1, c.n), result(m, c.n) {
        Random random{seed};
        // So small that the largest sums are exact in bf16, which counts to 256.
        int low = -1, values = c.k <= 50 ? 4 : 3;
        for (Matrix* matrix : {&a, &b, &bias}) {
            for (double& x : matrix->x) {
                x = double(low + int(random.below(values)));
            }
        }
        if (c.given) {
            for (unsigned rank = 0; rank < c.world; ++rank) {
                Matrix part(m, c.n);
                for (double& x : part.x) {
                    x = double(int(random.below(41)) - 20);
                }
                given.push_back(part);
            }
        }
        for (u64 i = 0; i < m; ++i) {
            // A whole row at a time: what lies side by side is added side by side.
            auto add = [&](double factor, const Matrix& of, u64 row) {
                double* __restrict sums = &result.x[i * c.n];
                const double* __restrict numbers = &of.x[row * c.n];
                for (u64 j = 0, count = c.n; j < count; ++j) {
                    sums[j] += factor * numbers[j];
                }
            };
            if (c.bias) {
                add(1, bias, 0);
            }
            if (c.given && c.op == "matmul_all_gather") {
                add(1, given[i / ceil_div(m, c.world)], i);
            } else if (c.given) {
                for (const Matrix& part : given) {
                    add(1, part, i);
                }
            } else {
                for (u64 k = 0; k < c.k; ++k) {
                    add(a.at(i, k), b, k);
                }
            }
        }
    }
};

void sleep_ms(u64 ms) {
    std::this_thread::sleep_for(std::chrono::milliseconds(ms));
}

/// One rank's memory.
struct RankMemory {
    std::vector<unsigned char> heap;
    std::uint64_t base = 0;
    Guarded c{0, 1};
    /// Where parts of tiles are left: zero before the first call.
    Guarded partials{0, 16};
    FaultRecord record{};
    std::int32_t abort = 0;
};

const char* const WORDS[] = {"entered", "ready", "gathered", "added", "lock", "barrier"};
const char* const CAUSES[] = {"budget ended", "aborted by", "mismatch", "poisoned"};

std::string describe(const FaultRecord& record) {
    std::ostringstream text;
    if (record.state != 1) {
        return "poisoned, and no record";
    }
    text << "call " << record.index << " (value " << record.value << "), rank " << record.rank << ": " << CAUSES[record.cause % 4];
    if (record.cause == 1) {
        text << " " << record.other;
    }
    if (record.cause == 2) {
        text << " m " << record.ours << " here, " << record.other << " there";
    }
    if (record.waited) {
        text << ", at `" << WORDS[record.word % 8] << "` of rank " << record.peer << ", tile " << std::int64_t(record.tile)
             << ", expected " << record.expected << ", seen " << record.seen;
    }
    return text.str();
}

struct Runner {
    const Case& c;
    Plan plan;
    void* kernel;
    void* kernel_of_few;
    std::vector<Problem> problems;
    std::vector<RankMemory> ranks;
    Args common{};
    u64 output_offset = 0;
    std::mutex mutex;
    std::string wrong;
    std::string fault;

    Runner(const Case& c, void* kernel, void* kernel_of_few)
        : c(c), plan(c), kernel(kernel), kernel_of_few(kernel_of_few), ranks(c.world) {
        for (std::size_t call = 0; call < c.m.size(); ++call) {
            problems.emplace_back(c, c.m[call] + (c.other_m_index <= call), c.seed * 1000 + call);
        }
        unsigned bytes = element_bytes(c.dtype);
        u64 words = std::max(plan.words, plan.slots);
        iris::Layout layout{c.world, words};
        u64 at = 64;
        auto take = [&](u64 size) {
            u64 offset = at;
            at += ceil_div(size, 64) * 64 + 64;
            return offset;
        };
        common.world = c.world;
        common.n = c.n;
        common.k = c.k;
        common.given = c.given;
        common.cells = take((layout.arrivals_cell() + 1) * 8);
        common.words = take((layout.lock(0) + plan.locks) * sizeof(iris::Word));
        common.tiles = words;
        common.locks = plan.locks;
        common.slots = plan.slots;
        common.slot_bytes = plan.slot_bytes;
        common.staging = take(2 * c.world * plan.slots * plan.slot_bytes);
        common.packets = take(2 * c.world * plan.packet_slots * plan.packet_bytes);
        common.packet_slots = plan.packet_slots;
        common.packet_bytes = plan.packet_bytes;
        common.accumulators = take(2 * plan.accumulators * 4);
        common.accumulator_elements = plan.accumulators;
        output_offset = take(plan.largest * (c.n + 16) * bytes + 16 * c.world);
        common.first = c.first;
        common.budget_ns = c.budget_ms * 1000000;
        common.removed = c.removed;
        common.stall_rank = c.stall_ms != 0 ? c.stall_rank + 1 : 0;
        common.stall_index = c.stall_index;
        common.stall_phase = c.stall_phase;
        common.stall_ns = c.stall_ms * 1000000;
        for (unsigned rank = 0; rank < c.world; ++rank) {
            ranks[rank].heap.assign(at + 64, 0);
            auto start = reinterpret_cast<std::uintptr_t>(ranks[rank].heap.data());
            ranks[rank].base = (start + 63) / 64 * 64;
            common.heap[rank] = ranks[rank].base;
            if (c.streamed) {
                ranks[rank].partials = Guarded(partial_bytes(c), 16);
                std::memset(ranks[rank].partials.data, 0, partial_bytes(c));
            }
            // What is staged and never written is not a number.
            std::memset(reinterpret_cast<void*>(ranks[rank].base + common.staging), 0xff,
                        2 * c.world * plan.slots * plan.slot_bytes);
        }
    }

    void say(std::string& where, const std::string& what) {
        std::lock_guard<std::mutex> guard(mutex);
        if (where.empty()) {
            where = what;
        }
    }

    u64* cell(unsigned rank, u64 place) {
        return reinterpret_cast<u64*>(ranks[rank].base + common.cells) + place;
    }

    /// Whether the rank goes on to its next call.
    bool call(unsigned rank, std::size_t index) {
        unsigned bytes = element_bytes(c.dtype);
        u64 m = c.m[index] + (rank == c.other_m_rank && index >= c.other_m_index);
        const Problem& problem = problems[index];
        Random random{c.seed * 7919 + index * 31 + rank};
        Part rows = plan.a_rows(m, rank), a_depth = plan.a_depth(rank), b_depth = plan.b_depth(rank), cols = plan.cols(rank);
        bool is_few = m <= c.few;
        const std::string& op = is_few ? c.op_of_few : c.op;
        bool portable = c.crews == 0 || (c.portable_threads != 0 && rank == c.portable_rank);
        Lie lie_of_a = portable || op == "all_gather_matmul_packets" ? Lie::any : wants_deep(c, op, m) ? Lie::by_rows : Lie::aligned;
        Stored a(c.dtype, c.given ? problem.given[rank] : problem.a, rows.start, rows.len, c.given ? 0 : a_depth.start,
                 c.given ? c.n : a_depth.len, random, lie_of_a);
        Stored b(c.dtype, problem.b, b_depth.start, b_depth.len, cols.start, cols.len, random, portable ? Lie::any : Lie::aligned);
        Guarded bias(cols.len * bytes, bytes);
        for (u64 j = 0; j < cols.len; ++j) {
            encode(c.dtype, problem.bias.at(0, cols.start + j), bias.data + j * bytes);
        }

        RankMemory& memory = ranks[rank];
        Part c_rows = plan.c_rows(m, rank);
        u64 c_row = cols.len + random.below(3) * 4 + random.below(2);
        c_row = c_row == 0 ? 1 : c_row;
        // Copies of whole boxes want rows at multiples of 16 bytes.
        bool boxes = c.crews != 0 && random.below(2) == 0;
        c_row = boxes ? ceil_div(c_row, 8) * 8 : c_row;
        memory.c = Guarded(c_rows.len * c_row * bytes, boxes || random.below(2) == 0 ? 16 : bytes);

        Args args = common;
        args.rank = rank;
        args.blocks = c.blocks[rank % c.blocks.size()];
        args.m = m;
        args.m_share = ceil_div(m, c.world);
        args.n_share = ceil_div(c.n, c.world);
        args.k_share = ceil_div(c.k, c.world);
        cut(args.m_share, c.k, args.row_parts, args.row_part);
        cut(m, args.k_share, args.col_parts, args.col_part);
        args.a = a.address;
        args.a_row = a.row;
        args.a_col = a.col;
        args.b = b.address;
        args.b_row = b.row;
        args.b_col = b.col;
        args.bias = c.bias ? reinterpret_cast<std::uintptr_t>(bias.data) : 0;
        args.c = reinterpret_cast<std::uintptr_t>(memory.c.data);
        args.c_row = c_row;
        args.abort = reinterpret_cast<std::uintptr_t>(&memory.abort);
        args.fault = reinterpret_cast<std::uintptr_t>(&memory.record);
        const unsigned char* result = memory.c.data;
        if (plan.stores_to_peers && !is_few) {
            args.bounced = c.bounced;
            // Ranks need not agree on where their output is.
            args.output = output_offset + rank * 16;
            args.output_row = boxes ? ceil_div(c.n, 8) * 8 : c.n + rank % 3;
            std::memset(reinterpret_cast<void*>(memory.base + args.output), 0xff, m * args.output_row * bytes);
            if (!c.bounced) {
                result = reinterpret_cast<const unsigned char*>(memory.base + args.output);
                c_row = args.output_row;
            }
        }

        Launch launch{unsigned(args.blocks), c.threads, c.lanes, c.crews, c.seed + index * 97 + rank};
        if (is_few && c.threads_of_few != 0) {
            launch.threads = c.threads_of_few;
            launch.shared = c.crews_of_few;
        }
        launch.programmatic = true;
        launch.staged_from = memory.base + args.staging;
        launch.staged_to = launch.staged_from + 2 * c.world * args.slots * args.slot_bytes;
        if (rank == c.slow_rank && index == c.slow_index) {
            launch.slow_block = c.slow_block;
            launch.slow_ms = c.slow_ms;
        }
        void* chosen = is_few || (portable && c.crews != 0) ? kernel_of_few : kernel;
        if (portable) {
            launch.threads = c.crews == 0 ? c.threads : c.portable_threads;
            launch.shared = 0;
            go_about(c, op, args, cols.len, false);
            emulator::run(launch, [&] { reinterpret_cast<void (*)(Args)>(chosen)(args); });
        } else {
            bool streams = c.streamed && may_stream(c, op, m, cols.len, args.blocks);
            go_about(c, op, args, cols.len, streams);
            u64 partials = streams ? reinterpret_cast<std::uintptr_t>(memory.partials.data) : 0;
            Places places{rows.len, a_depth.len, b_depth.len, cols.len, c_rows.len, cols.len};
            iris::FastArgs fast = fast_arguments(c, op, args, places, partials);
            emulator::run(launch, [&] { reinterpret_cast<void (*)(iris::FastArgs)>(chosen)(fast); });
        }

        // A kernel of one's own has the barrier's cells, which count the calls as they are.
        u64 completed = *cell(rank, 0) / (op == "ring_all_reduce" ? 1 : iris::ALL_SHARES);
        if (__atomic_load_n(cell(rank, 1), __ATOMIC_ACQUIRE) != 0) {
            if (completed != index) {
                say(wrong, "the index is advanced by a call that failed");
            }
            std::lock_guard<std::mutex> guard(mutex);
            fault += (fault.empty() ? "" : "; ") + describe(memory.record);
            return false;
        }
        if (completed < index + 1) {
            say(wrong, "the index is not advanced");
            return false;
        }
        if (c.user_ms != 0 && c.user_rank == rank && c.user_index == index) {
            sleep_ms(c.user_ms);
        }
        for (u64 i = 0; i < c_rows.len; ++i) {
            for (u64 j = 0; j < c_row; ++j) {
                const unsigned char* element = result + (i * c_row + j) * bytes;
                double expected = j < cols.len ? problem.result.at(c_rows.start + i, cols.start + j) : NAN;
                double found = decode(c.dtype, element);
                if (!(found == expected || (std::isnan(found) && std::isnan(expected)))) {
                    std::ostringstream text;
                    text << "call " << index << ", rank " << rank << ", row " << i << ", column " << j << ": expected " << expected
                         << ", found " << found;
                    say(wrong, text.str());
                    return true; // the others still count on this rank
                }
            }
        }
        return true;
    }

    void rank(unsigned rank) {
        for (std::size_t index = 0; index < c.m.size(); ++index) {
            if (c.dead_rank == rank && c.dead_index == index) {
                return;
            }
            if (!call(rank, index)) {
                return;
            }
        }
    }
};

} // namespace

Case parse(const std::string& line) {
    Case c;
    std::istringstream words(line);
    std::string word;
    while (words >> word) {
        std::size_t equals = word.find('=');
        std::string key = word.substr(0, equals);
        std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
        std::vector<u64> numbers;
        std::istringstream parts(value);
        for (std::string part; std::getline(parts, part, ',');) {
            numbers.push_back(std::strtoull(part.c_str(), nullptr, 10));
        }
        u64 number = numbers.empty() ? 0 : numbers[0];
        numbers.resize(std::max<std::size_t>(numbers.size(), 4));
        std::size_t count = std::count(value.begin(), value.end(), ',') + 1;
        if (key == "op") c.op = value;
        else if (key == "few") c.few = number;
        else if (key == "op_of_few") c.op_of_few = value;
        else if (key == "dtype") c.dtype = value;
        else if (key == "lanes") c.lanes = unsigned(number);
        else if (key == "threads") c.threads = unsigned(number);
        else if (key == "tile") c.tile_m = number, c.tile_n = numbers[1];
        else if (key == "crews") c.crews = unsigned(number);
        else if (key == "slab") c.slab_rows = number, c.slab_depth = numbers[1];
        else if (key == "launch_of_few") c.threads_of_few = unsigned(number), c.crews_of_few = unsigned(numbers[1]);
        else if (key == "portable") c.portable_rank = unsigned(number), c.portable_threads = unsigned(numbers[1]);
        else if (key == "streamed") c.streamed = number != 0;
        else if (key == "world") c.world = unsigned(number);
        else if (key == "m") c.m.assign(numbers.begin(), numbers.begin() + count);
        else if (key == "n") c.n = number;
        else if (key == "k") c.k = number;
        else if (key == "blocks") c.blocks.assign(numbers.begin(), numbers.begin() + count);
        else if (key == "bias") c.bias = number != 0;
        else if (key == "given") c.given = number != 0;
        else if (key == "bounced") c.bounced = number != 0;
        else if (key == "first") c.first = number;
        else if (key == "seed") c.seed = number;
        else if (key == "budget_ms") c.budget_ms = number;
        else if (key == "removed") c.removed = number;
        else if (key == "stall") c.stall_rank = unsigned(number), c.stall_index = numbers[1], c.stall_phase = numbers[2], c.stall_ms = numbers[3];
        else if (key == "slow") c.slow_rank = unsigned(number), c.slow_index = numbers[1], c.slow_block = unsigned(numbers[2]), c.slow_ms = numbers[3];
        else if (key == "user") c.user_rank = unsigned(number), c.user_index = numbers[1], c.user_ms = numbers[2];
        else if (key == "other_m") c.other_m_rank = unsigned(number), c.other_m_index = numbers[1];
        else if (key == "dead") c.dead_rank = unsigned(number), c.dead_index = numbers[1];
        else c.op = ""; // a key that nobody knows makes the case unusable
    }
    return c;
}

std::string run_case(const Case& c, void* kernel, void* kernel_of_few) {
    Runner runner(c, kernel, kernel_of_few);
    std::vector<std::thread> threads;
    for (unsigned rank = 0; rank < c.world; ++rank) {
        threads.emplace_back([&runner, rank] { runner.rank(rank); });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    if (!runner.wrong.empty()) {
        return "wrong " + runner.wrong;
    }
    if (!runner.fault.empty()) {
        return "fault " + runner.fault;
    }
    return "ok";
}

} // namespace emulator
