// Hopper's instructions on a CPU: what a kernel of crews finds in place of those in `iris/sm90/instructions.h` and `wgmma.h`, by the same
// names. What they do is said there, and how the emulator does it in `sm90.cpp`.
#pragma once

namespace iris {

IRIS_DEVICE u32 shared_address(const void* pointer) { return iris_emulator_shared_address(pointer); }

IRIS_DEVICE void fence_async() { iris_emulator_fence_async(false); }
IRIS_DEVICE void fence_async_shared() { iris_emulator_fence_async(true); }

IRIS_DEVICE void barrier_init(u32 barrier, u32 arrivals) { iris_emulator_barrier_init(barrier, arrivals); }
IRIS_DEVICE void barriers_made() {}
/// The last lane, since nobody may count on it to be the first.
IRIS_DEVICE bool elected() {
    iris_emulator_sync_wave();
    return iris_emulator_thread() % 32 == 31;
}
IRIS_DEVICE void arrive_expecting(u32 barrier, u32 bytes) { iris_emulator_arrive(barrier, bytes); }
IRIS_DEVICE void arrive(u32 barrier) { iris_emulator_arrive(barrier, 0); }
IRIS_DEVICE bool phase_ended(u32 barrier, u32 parity) { return iris_emulator_phase_ended(barrier, parity); }
IRIS_DEVICE bool phase_ended_by_now(u32 barrier, u32 parity) { return iris_emulator_phase_ended_by_now(barrier, parity); }
IRIS_DEVICE void tell_block(u32& word, u32 value) {
    iris_emulator_tells();
    __atomic_store_n(&word, value, __ATOMIC_RELEASE);
}
IRIS_DEVICE u32 told_to_block(const u32& word) { return __atomic_load_n(&word, __ATOMIC_ACQUIRE); }

IRIS_DEVICE void pair_arrives() { iris_emulator_pair_arrives(); }
IRIS_DEVICE void await_pair() { iris_emulator_await_pair(); }
IRIS_DEVICE u32 at_partner(u32 address) { return iris_emulator_at_partner(address); }
IRIS_DEVICE void give(u32 to, u32 barrier, const f32 (&values)[4]) { iris_emulator_give(to, barrier, values); }
IRIS_DEVICE void arrive_across(u32 barrier) { iris_emulator_arrive_across(barrier); }
IRIS_DEVICE void await_given(u32 barrier, u32 parity) {
    while (!phase_ended(barrier, parity)) {
    }
}

IRIS_DEVICE void prefetch_map(const TensorMap&) {}
IRIS_DEVICE void copy_box(u32 to, const TensorMap& map, u32 barrier, i32 x, i32 y) { iris_emulator_copy_box(to, &map, barrier, x, y); }
IRIS_DEVICE void copy_box_by(u64, u32 to, const TensorMap& map, u32 barrier, i32 x, i32 y) { iris_emulator_copy_box(to, &map, barrier, x, y); }
IRIS_DEVICE void copy_bytes(u32 to, const void* from, u32 barrier, u32 bytes) { iris_emulator_copy_bytes(to, from, barrier, bytes); }
IRIS_DEVICE void store_box(const TensorMap& map, u32 from, i32 x, i32 y) { iris_emulator_store_box(&map, from, x, y); }
IRIS_DEVICE void commit_copies() { iris_emulator_commit_copies(); }
IRIS_DEVICE void await_copies_read() { iris_emulator_await_copies(true); }
IRIS_DEVICE void await_copies() { iris_emulator_await_copies(false); }

IRIS_DEVICE u32 same_in_wave(u32 value) { return iris_emulator_first_lanes(value); }
IRIS_DEVICE bool first_lane_says(bool value) { return same_in_wave(value) != 0; }
template <u32 COUNT>
IRIS_DEVICE void give_registers() {}
template <u32 COUNT>
IRIS_DEVICE void take_registers() {}
IRIS_DEVICE void keep_apart(f32&) {}

template <class T>
IRIS_DEVICE u32 narrow2(f32 low, f32 high) {
    return raw_bits(from_f32<T>(low)) | raw_bits(from_f32<T>(high)) << 16;
}

IRIS_DEVICE void load_matrices(u32 (&to)[4], u32 from) { iris_emulator_load_matrices(to, from); }
IRIS_DEVICE void store_matrices(u32 to, const u32 (&from)[4]) { iris_emulator_store_matrices(to, from); }
IRIS_DEVICE void store_shared(u32 to, const Vec16& chunk) { *static_cast<Vec16*>(iris_emulator_fill(to, sizeof(Vec16))) = chunk; }
IRIS_DEVICE Vec16 load_shared(u32 from) { return *static_cast<const Vec16*>(iris_emulator_shared_at(from, sizeof(Vec16))); }

IRIS_DEVICE void sync_group(u32 group) { iris_emulator_sync(5 + group, 128); }
IRIS_DEVICE u32 clock() { return u32(iris_emulator_now_ns()); }
IRIS_DEVICE void sleep(u32) { iris_emulator_pause(); }

/// CUDA's.
struct alignas(16) float4 {
    f32 x, y, z, w;
};

IRIS_DEVICE void begin_multiplying() {}
IRIS_DEVICE void commit_multiplying() { iris_emulator_commit_multiplying(); }
template <u32 PENDING>
IRIS_DEVICE void await_multiplied() {
    iris_emulator_await_multiplied(PENDING);
}
template <class T, u32 N, bool A_DEEP, bool B_DEEP>
struct Multiply {
    IRIS_DEVICE static void add(f32 (&d)[N / 2], u64 a, u64 b) {
        iris_emulator_multiply(d, N, a, b, A_DEEP, B_DEEP, SAME<T, bf16>);
    }
};

} // namespace iris
