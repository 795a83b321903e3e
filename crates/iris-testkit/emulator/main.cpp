// Runs cases on a kernel that was compiled for the CPU: `emulator KERNEL.so [OTHER.so]`, a case a line on stdin, a result a line on
// stdout. The other kernel is that of calls of few rows, or of the rank that runs a portable one, in cases that have some.
//
// `emulator --layout WORLD TILES LOCKS` prints the number of words and the place of the arrival count; `emulator --signals FIRST`
// prints signal values and comparisons; `emulator --rounds WORLD SHARE BLOCKS RANK` the owner and the number of each tile that a rank
// makes by turns, or with no BLOCKS apart: for a comparison of the device's protocol with the host's. `emulator --ring KERNEL.so` runs
// exchanges of `examples/own_kernel.hip`, a line each.

#include "case.h"
#include "ring.h"

#include "iris/tile.h"
#include "iris/words.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <iostream>

namespace {

int print_layout(char** argv) {
    iris::Layout layout{std::strtoull(argv[2], nullptr, 10), std::strtoull(argv[3], nullptr, 10)};
    std::cout << layout.lock(std::strtoull(argv[4], nullptr, 10)) << " " << layout.arrivals_cell() << " "
              << iris::ALL_SHARES << std::endl;
    return 0;
}

int print_signals(char** argv) {
    using iris::u64;
    const u64 max = iris::WORD_MAX;
    for (u64 index : {u64(0), u64(1), u64(2), u64(3), max - 1, max, max + 1, 2 * max + 5, ~u64(0)}) {
        std::cout << iris::signal_value(std::strtoull(argv[2], nullptr, 10), index) << "\n";
    }
    const u64 half = max / 2;
    const u64 values[] = {0, 1, 2, half - 1, half, half + 1, half + 2, max - 1, max};
    for (u64 target : values) {
        for (u64 seen : values) {
            if (target != 0) {
                std::cout << iris::reached(seen, target) << "\n";
            }
        }
    }
    return 0;
}

// WORLD, SHARE, then none for those apart, BLOCKS for those by turns, or HEIGHT and LAG; and last whose.
int print_rounds(int argc, char** argv) {
    auto number = [&](int at) { return std::strtoull(argv[at], nullptr, 10); };
    iris::u64 world = number(2);
    iris::u64 share = number(3);
    iris::Rounds rounds = argc == 5   ? iris::Rounds::apart(world, share)
                          : argc == 6 ? iris::Rounds::by_turns(world, share, number(4))
                                      : iris::Rounds{world, share, number(4), number(5)};
    for (iris::u64 step = 0; step < rounds.len(); ++step) {
        iris::Item tile = rounds.at(step, number(argc - 1));
        std::cout << tile.rank << " " << tile.index << "\n";
    }
    std::cout.flush();
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    if (argc >= 5 && argc <= 7 && std::strcmp(argv[1], "--rounds") == 0) {
        return print_rounds(argc, argv);
    }
    if (argc == 5 && std::strcmp(argv[1], "--layout") == 0) {
        return print_layout(argv);
    }
    if (argc == 3 && std::strcmp(argv[1], "--signals") == 0) {
        return print_signals(argv);
    }
    bool ring = argc == 3 && std::strcmp(argv[1], "--ring") == 0;
    if (argc != 2 && argc != 3) {
        std::fprintf(stderr, "usage: %s KERNEL.so [OTHER.so] < CASES, or %s --ring KERNEL.so\n", argv[0], argv[0]);
        return 2;
    }
    auto open = [](const char* file) {
        void* library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) {
            std::fprintf(stderr, "%s\n", dlerror());
            std::exit(2);
        }
        return library;
    };
    void* library = open(argv[ring ? 2 : 1]);
    void* other = argc == 3 && !ring ? open(argv[2]) : nullptr;
    void* exchange = ring ? dlsym(library, "ring_exchange") : nullptr;
    if (ring && exchange == nullptr) {
        std::fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    for (std::string line; std::getline(std::cin, line);) {
        if (ring) {
            std::cout << emulator::run_ring(line, exchange) << std::endl;
            continue;
        }
        emulator::Case c = emulator::parse(line);
        void* kernel = dlsym(library, ("iris_" + c.op).c_str());
        const std::string& op_of_other = c.portable_threads != 0 ? c.op : c.op_of_few;
        void* kernel_of_few = other != nullptr ? dlsym(other, ("iris_" + op_of_other).c_str()) : nullptr;
        bool wants_other = c.few != 0 || c.portable_threads != 0;
        if (kernel == nullptr || c.m.empty() || (kernel_of_few == nullptr) == wants_other) {
            std::fprintf(stderr, "unusable case: %s\n", line.c_str());
            return 2;
        }
        std::cout << emulator::run_case(c, kernel, kernel_of_few) << std::endl;
    }
    return 0;
}
