#include "fast.h"
#include "sm90.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulator {
namespace {

using iris::TensorMap;
using u64 = std::uint64_t;


/// What of a matrix 128 bytes hold.
constexpr u64 BOX_K = 64;
constexpr u64 STREAMERS = 144;
constexpr u64 MOST_HIGH = 8;
/// Bytes that a rank sends before it multiplies anything, at most.
constexpr u64 LITTLE = 100000;

u64 ceil_div(u64 a, u64 b) {
    return (a + b - 1) / b;
}

/// Rows of A, or columns of B.
struct Lines {
    u64 address, lines, depths;
    /// Elements from one line, and one depth, to the next.
    u64 line, depth;
};

bool is_mappable(u64 address, u64 stride) {
    return address % 16 == 0 && stride * 2 % 16 == 0 && stride > 0;
}

TensorMap encode(const Map& map) {
    TensorMap encoded{};
    static_assert(sizeof(map) <= sizeof(encoded), "a map holds it");
    std::memcpy(&encoded, &map, sizeof(map));
    return encoded;
}

TensorMap map_of(const Lines& of, u64 lines_of_box, iris::u64& is_deep) {
    bool deep = of.depth == 1;
    is_deep = deep;
    u64 stride = deep ? of.line : of.depth;
    if (!is_mappable(of.address, stride) || (!deep && of.line != 1)) {
        std::fprintf(stderr, "emulator: an operand that cannot be mapped\n");
        std::exit(3);
    }
    return deep ? encode({of.address, {of.depths, of.lines}, stride * 2, {unsigned(BOX_K), unsigned(lines_of_box)}})
                : encode({of.address, {of.lines, of.depths}, stride * 2, {64, unsigned(BOX_K)}});
}

/// Few rows are not copied as if there were a tile of them.
u64 rows_of_box(const Case& c, u64 rows) {
    return ceil_div(std::clamp<u64>(rows, 1, c.tile_m), 8) * 8;
}

} // namespace

bool wants_deep(const Case& c, const std::string& op, u64 m) {
    if (c.world == 1) {
        return false;
    }
    return op == "all_gather_matmul_rows" || (op == "matmul_reduce_scatter" && ceil_div(m, c.world) % 8 != 0);
}

std::size_t partial_bytes(const Case& c) {
    return 2 * STREAMERS * 2 * 4 + 2 * STREAMERS * c.tile_m * c.tile_n * 4;
}

bool may_stream(const Case& c, const std::string& op, u64 m, u64 cols, u64 blocks) {
    u64 rows = ceil_div(m, c.tile_m);
    bool few = op != "all_gather_matmul_packets" || m <= 16;
    return few && op.rfind("all_gather_matmul", 0) == 0 && blocks <= STREAMERS && rows <= std::min(blocks, MOST_HIGH) && cols != 0 && c.k != 0;
}

void go_about(const Case& c, const std::string& op, iris::Args& args, u64 cols, bool streamed) {
    if (op != "all_gather_matmul_rows") {
        return;
    }
    u64 all = ceil_div(args.m, c.tile_m), across = ceil_div(cols, c.tile_n);
    u64 own = std::min<u64>(args.m_share / c.tile_m, all);
    bool few = 2 * own * across < args.blocks;
    args.rows_first = streamed && few ? 0 : own;
    bool most_wait = 2 * args.rows_first * across < args.blocks;
    args.in_turn = c.world > 2 && args.rows_first != 0 && all - args.rows_first > MOST_HIGH;
    bool is_little = args.m_share * c.k * 2 * (c.world - 1) <= LITTLE;
    args.sends_first = most_wait && is_little;
    args.apart = most_wait ? 0 : 100;
}

iris::FastArgs fast_arguments(const Case& c, const std::string& op, const iris::Args& args, const Places& places, u64 partials) {
    u64 heap = args.heap[args.rank];
    // Slabs of zeros are what lies outside of this.
    Lines nothing{heap, 8, 8, 8, 1};
    auto unless_empty = [&](const Lines& lines) { return lines.lines == 0 || lines.depths == 0 ? nothing : lines; };
    Lines a{args.a, places.a_rows, places.a_cols, args.a_row, args.a_col};
    Lines b{args.b, places.b_cols, places.b_rows, args.b_col, args.b_row};
    bool unpacks = op == "all_gather_matmul_packets";
    if (unpacks || (op == "all_gather_matmul_columns" && args.world > 1)) {
        a = nothing; // its own part comes in packets, or is gathered with the others'
    }
    iris::FastArgs fast{};
    fast.args = args;
    u64 a_rows = rows_of_box(c, places.a_rows);
    fast.a = map_of(unless_empty(a), a_rows, fast.a_deep);
    fast.b = map_of(unless_empty(b), c.tile_n, fast.b_deep);
    fast.a_bytes = (fast.a_deep ? a_rows : c.tile_m) * BOX_K * 2;
    fast.partials = partials;
    if (partials != 0) {
        // A tile has as many rows.
        u64 all = ceil_div(args.m, c.slab_rows);
        iris::Streams& streams = fast.streams;
        streams.slabs = ceil_div(args.k, c.slab_depth);
        for (u64 group : {0, 1}) {
            u64 height = group == 0 ? args.rows_first : all - args.rows_first;
            u64 teams = height == 0 ? 0 : args.blocks / height;
            u64 row = ceil_div(places.c_cols, c.tile_n) * streams.slabs;
            streams.height[group] = height;
            streams.inverse[group] = ceil_div(65536, std::max<u64>(height, 1));
            streams.teams[group] = teams;
            streams.share[group] = teams == 0 ? 0 : row / teams;
            streams.more[group] = teams == 0 ? 0 : row % teams;
        }
    }

    bool to_output = op == "two_shot" || op == "matmul_all_gather";
    bool to_own = op.rfind("all_gather_matmul", 0) == 0 || op == "matmul_reduce_scatter" || op == "matmul";
    u64 address = to_output ? heap + args.output : args.c;
    u64 rows = to_output ? args.m : places.c_rows;
    u64 cols = to_output ? args.n : places.c_cols;
    u64 row = to_output ? args.output_row : args.c_row;
    fast.c_mapped = (to_output || to_own) && rows > 0 && cols > 0 && is_mappable(address, row);
    if (fast.c_mapped) {
        fast.c = encode({address, {cols, rows}, row * 2, {64, 64}});
    }
    if (op.rfind("all_gather_matmul", 0) == 0 && !unpacks && args.world > 1) {
        u64 pitch = ceil_div(args.k, 8) * 8;
        u64 box_rows = rows_of_box(c, args.m);
        fast.gathered_bytes = box_rows * BOX_K * 2;
        fast.gathered = encode({heap + args.staging, {args.k, 2 * args.world * args.slots * args.slot_bytes / (pitch * 2)}, pitch * 2,
                                {unsigned(BOX_K), unsigned(box_rows)}});
    }
    return fast;
}

} // namespace emulator
