// Matrices of small random integers, exact in every dtype, and how they lie in memory.
#pragma once

#include "matrix.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <utility>
#include <vector>

namespace emulator {

/// A generator whose stream is the same everywhere.
struct Random {
    std::uint64_t state;
    std::uint64_t next() {
        state += 0x9e3779b97f4a7c15u;
        std::uint64_t z = state;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }
    std::uint64_t below(std::uint64_t end) { return next() % end; }
};

/// A matrix in double.
struct Matrix {
    std::uint64_t rows = 0;
    std::uint64_t cols = 0;
    std::vector<double> x;
    Matrix(std::uint64_t rows, std::uint64_t cols) : rows(rows), cols(cols), x(rows * cols) {}
    double& at(std::uint64_t row, std::uint64_t col) { return x[row * cols + col]; }
    double at(std::uint64_t row, std::uint64_t col) const { return x[row * cols + col]; }
};

inline unsigned element_bytes(const std::string& dtype) {
    return dtype == "f32" ? 4 : 2;
}

/// A small integer as an element.
inline void encode(const std::string& dtype, double value, void* to) {
    float single = float(value);
    std::uint32_t bits;
    std::memcpy(&bits, &single, 4);
    if (dtype == "f32") {
        std::memcpy(to, &bits, 4);
        return;
    }
    std::uint16_t half = std::uint16_t(bits >> 16);
    if (dtype == "f16") {
        // Normal numbers only: the exponent is biased by 15 in place of 127, the fraction loses 13 bits.
        half = std::uint16_t((bits >> 16 & 0x8000u) | (value == 0 ? 0 : (bits & 0x7fffffffu) - (112u << 23)) >> 13);
    }
    std::memcpy(to, &half, 2);
}

inline double decode(const std::string& dtype, const void* from) {
    if (dtype == "f32") {
        float single;
        std::memcpy(&single, from, 4);
        return single;
    }
    std::uint16_t half;
    std::memcpy(&half, from, 2);
    return number(half, dtype == "bf16");
}

/// Memory that ends where a page ends that nobody may touch: reading or writing beyond it ends the program.
class Guarded {
  public:
    /// `bytes` bytes of 0xff, which is not a number in any dtype, at a multiple of `alignment`.
    Guarded(std::size_t bytes, std::size_t alignment) {
        size_ = (bytes + alignment + PAGE - 1) / PAGE * PAGE + PAGE;
        base_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base_ == MAP_FAILED) {
            std::perror("emulator: no memory for an operand");
            std::exit(3);
        }
        unsigned char* end = static_cast<unsigned char*>(base_) + size_ - PAGE;
        mprotect(end, PAGE, PROT_NONE);
        std::memset(base_, 0xff, size_ - PAGE);
        data = end - (bytes + alignment - 1) / alignment * alignment;
    }
    Guarded(Guarded&& other) noexcept
        : data(other.data), base_(std::exchange(other.base_, nullptr)), size_(other.size_) {}
    Guarded& operator=(Guarded&& other) noexcept {
        std::swap(data, other.data);
        std::swap(base_, other.base_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~Guarded() {
        if (base_ != nullptr) {
            munmap(base_, size_);
        }
    }

    unsigned char* data;

  private:
    static constexpr std::size_t PAGE = 4096;
    void* base_;
    std::size_t size_;
};

/// How a matrix may lie in memory: in any way, so that copies of boxes take it, or so and by rows.
enum class Lie { any, aligned, by_rows };

/// A matrix in memory, with the strides of one of several layouts.
struct Stored {
    Guarded memory;
    std::uint64_t address = 0;
    std::uint64_t row = 0;
    std::uint64_t col = 0;

    /// The part (`row0`, `col0`), `rows` by `cols`, of `from`. Row-major or transposed, its lines or its address aligned or not, with or without
    /// gaps between lines, and between the elements of a line; the last line has no gap after it.
    Stored(const std::string& dtype, const Matrix& from, std::uint64_t row0, std::uint64_t rows, std::uint64_t col0,
           std::uint64_t cols, Random& random, Lie lie)
        : memory(0, 1) {
        bool transposed = random.below(2) == 0 && lie != Lie::by_rows;
        bool aligned = random.below(2) == 0 || lie != Lie::any;
        // Not drawn, so that all else stays as it is.
        std::uint64_t apart = lie == Lie::any && random.state % 4 == 0 ? 2 : 1;
        // Its lines are as far apart as copies of 16 bytes want it, and it begins where they do not.
        bool askew = lie == Lie::any && random.state % 4 == 1;
        std::uint64_t inner = transposed ? rows : cols;
        inner = inner == 0 ? 0 : (inner - 1) * apart + 1;
        std::uint64_t outer = transposed ? cols : rows;
        std::uint64_t stride = aligned ? (inner + 7) / 8 * 8 : inner + random.below(4);
        stride = askew ? (stride + 7) / 8 * 8 : stride;
        stride = stride == 0 ? 1 : stride;
        unsigned bytes = element_bytes(dtype);
        std::uint64_t elements = outer == 0 ? 0 : (outer - 1) * stride + inner;
        memory = Guarded((elements + askew) * bytes, askew || aligned ? 16 : bytes);
        address = reinterpret_cast<std::uintptr_t>(memory.data) + askew * bytes;
        row = transposed ? apart : stride;
        col = transposed ? stride : apart;
        for (std::uint64_t i = 0; i < rows; ++i) {
            for (std::uint64_t j = 0; j < cols; ++j) {
                encode(dtype, from.at(row0 + i, col0 + j), reinterpret_cast<void*>(address + (i * row + j * col) * bytes));
            }
        }
    }
};

} // namespace emulator
