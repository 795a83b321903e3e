// Inputs that a device makes itself, and results that it checks itself: so that calls can be enqueued one after the other, each with
// inputs of its own, and no host in between.
//
// Inputs are functions of a seed, a tensor and a place in the whole matrix, and of nothing else. So whoever checks a result needs none
// of the inputs' memory: it draws the numbers once more. They are small integers, or zero, of which sums and products are exact in
// every order. The seed may come from a word in device memory: then a launch that is captured in a graph differs from replay to
// replay.
//
// The structs consist of 8-byte fields only, and have twins in `check.rs`.

#include "iris/atomics.h"

namespace iris {

using Element = IRIS_DTYPE;
constexpr u32 THREADS_OF_CHECKS = 256;

/// How numbers are drawn.
struct Numbers {
    u64 seed;
    /// The address of a word that is added to the seed, or 0.
    u64 counter;
    /// One in 2^sparse numbers is not zero.
    u64 sparse;
    /// The largest.
    u64 magnitude;
};

/// The part of a matrix, in memory.
struct Part {
    u64 address;
    u64 rows;
    u64 cols;
    /// Elements from one row, and one column, to the next.
    u64 row_stride;
    u64 col_stride;
    /// Its place in the whole matrix.
    u64 row0;
    u64 col0;
};

/// What a part is filled with.
enum class Content : u64 { integers, not_a_number, uniform };

struct Job {
    Part part;
    /// Columns of the whole matrix.
    u64 width;
    u64 content;
    u64 tensor;
};

constexpr u32 MAX_JOBS = 5;

/// The argument of `iris_test_fill`.
struct Fill {
    Numbers numbers;
    u64 blocks;
    u64 stall_ns;
    u64 jobs;
    Job job[MAX_JOBS];
};

/// What has been found. Added to until the host looks.
struct Verdict {
    /// Elements checked.
    u64 checked;
    /// Elements that are not what they should be.
    u64 wrong;
    /// Elements whose right value a result of this type cannot hold: the test's own mistake.
    u64 inexact;
    /// The first wrong one: its call's seed, its place, what it should be and what it is, both as f32.
    u64 seed;
    u64 row;
    u64 col;
    u64 expected;
    u64 found;
    /// See `iris_test_digest`.
    u64 digest;
};

/// The argument of `iris_test_check` and `iris_test_digest`.
struct Check {
    Numbers numbers;
    u64 blocks;
    u64 stall_ns;
    Part part;
    /// Columns of the whole result, and the depth of the product.
    u64 n;
    u64 k;
    /// 0 for a result that is a product; else how many matrices, of consecutive tensors from `a` on, it is the sum of.
    u64 matrices;
    /// The tensors: A, B, and the bias, or 0 for none.
    u64 a;
    u64 b;
    u64 bias;
    /// How many elements are looked at, drawn by chance, some of them in the last 128 rows and columns; 0 for all.
    u64 samples;
    /// The largest integer that every integer below is exact up to.
    u64 limit;
    u64 verdict;
};

/// The argument of `iris_test_advance`.
struct Advance {
    u64 counter;
};

/// The finaliser of splitmix64.
IRIS_DEVICE u64 mix(u64 word) {
    word ^= word >> 30;
    word *= 0xbf58476d1ce4e5b9u;
    word ^= word >> 27;
    word *= 0x94d049bb133111ebu;
    return word ^ word >> 31;
}

constexpr u64 STEP = 0x9e3779b97f4a7c15u;

IRIS_DEVICE u64 seed_of(const Numbers& numbers) {
    u64 seed = numbers.seed;
    if (numbers.counter != 0) {
        seed += load<Order::relaxed, Scope::device>(global<u64>(numbers.counter));
    }
    return seed;
}

/// The numbers of one tensor.
struct Drawn {
    u64 key;
    u64 mask;
    u32 magnitude;

    IRIS_DEVICE Drawn(const Numbers& numbers, u64 tensor)
        : key(mix(mix(seed_of(numbers) + STEP) + tensor * STEP)), mask((u64(1) << numbers.sparse) - 1),
          magnitude(u32(numbers.magnitude)) {}

    IRIS_DEVICE u64 bits(u64 place) const { return mix(key + place * STEP); }
    IRIS_DEVICE i32 integer(u64 place) const {
        u64 drawn = bits(place);
        if ((drawn & mask) != 0) {
            return 0;
        }
        i32 size = 1 + i32(u32(drawn >> 32 & 0x7fffffffu) % magnitude);
        return drawn >> 63 != 0 ? -size : size;
    }
    /// Between -1 and 1, in steps of 2^-23.
    IRIS_DEVICE f32 uniform(u64 place) const { return f32(bits(place) >> 40) * (1.0f / 8388608.0f) - 1.0f; }
};

IRIS_DEVICE Element not_a_number() {
    return from_f32<Element>(f32_from_bits(0x7fc00000u));
}

/// Stands still: somebody's kernel that is late.
IRIS_DEVICE void stand_still(u64 for_ns) {
    u64 since = now_ns();
    IRIS_ROLLED
    while (now_ns() - since < for_ns) {
        pause();
    }
}

/// Where element `at` of those that are looked at lies.
struct Place {
    u64 row;
    u64 col;

    IRIS_DEVICE Place(const Check& check, u64 at) {
        const Part& part = check.part;
        if (check.samples == 0) {
            row = at / part.cols;
            col = at % part.cols;
            return;
        }
        u64 drawn = mix(mix(check.numbers.seed + at * STEP));
        row = drawn >> 32;
        col = drawn & 0xffffffffu;
        if (at % 4 == 0) { // of the last tile
            row = part.rows - 1 - row % (part.rows < 128 ? part.rows : 128);
            col = part.cols - 1 - col % (part.cols < 128 ? part.cols : 128);
        } else {
            row %= part.rows;
            col %= part.cols;
        }
    }
};

IRIS_DEVICE u64 looked_at(const Check& check) {
    return check.samples == 0 ? check.part.rows * check.part.cols : check.samples;
}

} // namespace iris

using namespace iris;

/// Fills parts of matrices.
IRIS_KERNEL(THREADS_OF_CHECKS) iris_test_fill(const Fill fill) {
    if (fill.stall_ns != 0) {
        stand_still(fill.stall_ns);
    }
    IRIS_ROLLED
    for (u64 number = 0; number < fill.jobs; ++number) {
        const Job& job = fill.job[number];
        const Part& part = job.part;
        Drawn drawn(fill.numbers, job.tensor);
        Element* to = global<Element>(part.address);
        u64 first = block_index() * u64(THREADS_OF_CHECKS) + thread_index();
        IRIS_ROLLED
        for (u64 at = first; at < part.rows * part.cols; at += fill.blocks * THREADS_OF_CHECKS) {
            u64 row = at / part.cols;
            u64 col = at % part.cols;
            u64 place = (part.row0 + row) * job.width + part.col0 + col;
            Element value = job.content == u64(Content::integers)  ? from_f32<Element>(f32(drawn.integer(place)))
                            : job.content == u64(Content::uniform) ? from_f32<Element>(drawn.uniform(place))
                                                                   : not_a_number();
            to[row * part.row_stride + col * part.col_stride] = value;
        }
    }
}

/// Compares a part of a result with what it should be.
IRIS_KERNEL(THREADS_OF_CHECKS) iris_test_check(const Check check) {
    if (check.stall_ns != 0) {
        stand_still(check.stall_ns);
    }
    const Part& part = check.part;
    Verdict* verdict = global<Verdict>(check.verdict);
    Drawn a(check.numbers, check.a);
    Drawn b(check.numbers, check.b);
    Drawn bias(check.numbers, check.bias);
    u64 all = looked_at(check);
    u64 first = block_index() * u64(THREADS_OF_CHECKS) + thread_index();
    IRIS_ROLLED
    for (u64 at = first; at < all; at += check.blocks * THREADS_OF_CHECKS) {
        Place place(check, at);
        u64 row = part.row0 + place.row;
        u64 col = part.col0 + place.col;
        i64 sum = check.bias == 0 ? 0 : bias.integer(col);
        if (check.matrices == 0) {
            IRIS_ROLLED
            for (u64 depth = 0; depth < check.k; ++depth) {
                i32 left = a.integer(row * check.k + depth);
                if (left != 0) {
                    sum += left * b.integer(depth * check.n + col);
                }
            }
        } else {
            IRIS_ROLLED
            for (u64 matrix = 0; matrix < check.matrices; ++matrix) {
                sum += Drawn(check.numbers, check.a + matrix).integer(row * check.n + col);
            }
        }
        u64 size = u64(sum < 0 ? -sum : sum);
        if (size > check.limit) {
            fetch_add<Order::relaxed, Scope::device>(&verdict->inexact, u64(1));
        }
        f32 expected = f32(sum);
        f32 found = to_f32(global<const Element>(part.address)[place.row * part.row_stride + place.col * part.col_stride]);
        if (!(found == expected) && fetch_add<Order::relaxed, Scope::device>(&verdict->wrong, u64(1)) == 0) {
            verdict->seed = seed_of(check.numbers);
            verdict->row = row;
            verdict->col = col;
            verdict->expected = bits_of(expected);
            verdict->found = bits_of(found);
        }
    }
    if (first == 0) {
        fetch_add<Order::relaxed, Scope::device>(&verdict->checked, all);
    }
}

/// Adds to the digest a number that depends on every bit of the part, and on where each stands.
IRIS_KERNEL(THREADS_OF_CHECKS) iris_test_digest(const Check check) {
    const Part& part = check.part;
    u64 sum = 0;
    u64 first = block_index() * u64(THREADS_OF_CHECKS) + thread_index();
    IRIS_ROLLED
    for (u64 at = first; at < part.rows * part.cols; at += check.blocks * THREADS_OF_CHECKS) {
        u64 row = at / part.cols;
        u64 col = at % part.cols;
        Element element = global<const Element>(part.address)[row * part.row_stride + col * part.col_stride];
        sum += mix(mix(at + STEP) + raw_bits(element));
    }
    fetch_add<Order::relaxed, Scope::device>(&global<Verdict>(check.verdict)->digest, sum);
}

/// Adds 1 to a counter.
IRIS_KERNEL(THREADS_OF_CHECKS) iris_test_advance(const Advance advance) {
    if (block_index() == 0 && thread_index() == 0) {
        u64* counter = global<u64>(advance.counter);
        store<Order::relaxed, Scope::device>(counter, load<Order::relaxed, Scope::device>(counter) + 1);
    }
}
