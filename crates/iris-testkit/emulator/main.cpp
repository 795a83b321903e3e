// Runs cases on a kernel that was compiled for the CPU: `emulator KERNEL.so`, a case a line on stdin, a result a line on stdout.

#include "case.h"

#include <cstdio>
#include <dlfcn.h>
#include <iostream>

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s KERNEL.so < CASES\n", argv[0]);
        return 2;
    }
    void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        std::fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    for (std::string line; std::getline(std::cin, line);) {
        emulator::Case c = emulator::parse(line);
        void* kernel = dlsym(library, ("iris_" + c.op).c_str());
        if (kernel == nullptr || c.m.empty()) {
            std::fprintf(stderr, "unusable case: %s\n", line.c_str());
            return 2;
        }
        std::cout << emulator::run_case(c, kernel) << std::endl;
    }
    return 0;
}
