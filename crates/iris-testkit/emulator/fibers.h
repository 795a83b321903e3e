// Fibers: stacks that one OS thread switches between.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <vector>

namespace emulator {

/// Bytes of a fiber's stack.
constexpr std::size_t STACK = 128 * 1024;

/// A stack to run a function on, reused from launch to launch.
class Stack {
  public:
    Stack();
    ~Stack();
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;
    void* base() const { return base_; }

  private:
    void* base_;
};

/// A function that runs on a stack of its own until it returns, and in between gives control back.
class Fiber {
  public:
    /// Begins to run `entry(argument)` on `stack`, and returns when that switches away.
    void start(Stack& stack, void (*entry)(void*), void* argument);
    /// Goes on where the fiber last switched away, and returns when it does so again.
    void resume();
    /// Called in the fiber: goes back to where it was started or resumed.
    void switch_away();
    /// Called in the fiber in place of returning: like `switch_away`, never to be resumed.
    [[noreturn]] void end();

  private:
    jmp_buf inside_;
    jmp_buf outside_;
};

} // namespace emulator
