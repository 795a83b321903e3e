#include "fibers.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <ucontext.h>

namespace emulator {

Stack::Stack() {
    base_ = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base_ == MAP_FAILED) {
        std::perror("emulator: no memory for a fiber's stack");
        std::exit(3);
    }
    // A stack that is too small shows as a fault, and not as somebody else's values.
    mprotect(base_, 4096, PROT_NONE);
}

Stack::~Stack() {
    munmap(base_, STACK);
}

namespace {

// `makecontext` passes ints only, so a pointer travels in two.
void trampoline(unsigned entry_high, unsigned entry_low, unsigned argument_high, unsigned argument_low) {
    auto join = [](unsigned high, unsigned low) { return std::uintptr_t(std::uint64_t(high) << 32 | low); };
    auto entry = reinterpret_cast<void (*)(void*)>(join(entry_high, entry_low));
    entry(reinterpret_cast<void*>(join(argument_high, argument_low)));
    std::abort(); // `entry` ends by Fiber::end
}

} // namespace

// The first switch to a stack is ucontext's, which can set one up; all others are `_setjmp` and `_longjmp`, which make no system
// call.

void Fiber::start(Stack& stack, void (*entry)(void*), void* argument) {
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stack.base();
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    auto e = std::uint64_t(reinterpret_cast<std::uintptr_t>(entry));
    auto a = std::uint64_t(reinterpret_cast<std::uintptr_t>(argument));
    makecontext(&context, reinterpret_cast<void (*)()>(trampoline), 4, unsigned(e >> 32), unsigned(e), unsigned(a >> 32),
                unsigned(a));
    if (_setjmp(outside_) == 0) {
        setcontext(&context);
    }
}

void Fiber::resume() {
    if (_setjmp(outside_) == 0) {
        _longjmp(inside_, 1);
    }
}

void Fiber::switch_away() {
    if (_setjmp(inside_) == 0) {
        _longjmp(outside_, 1);
    }
}

void Fiber::end() {
    _longjmp(outside_, 1);
}

} // namespace emulator
