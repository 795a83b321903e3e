#!/usr/bin/env python3
"""Compiles the kernels that `latency.py` times, for sm_90a, without a GPU: `build.py DIRECTORY [NVRTC]`.

NVRTC is the folder of `libnvrtc.so.13` (`pip install nvidia-cuda-nvrtc==13.0.88`); without it, where the loader finds it.
"""

import ctypes
import glob
import json
import os
import re
import sys

HIP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../crates/iris-kernels/hip")
OUT = sys.argv[1]
LIBRARY = sys.argv[2] + "/" if len(sys.argv) > 2 else ""
for builtins in glob.glob(LIBRARY + "libnvrtc-builtins.so.13*"):
    ctypes.CDLL(builtins, mode=ctypes.RTLD_GLOBAL)
nvrtc = ctypes.CDLL(LIBRARY + "libnvrtc.so.13")


def text(program, what):
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    found = ctypes.create_string_buffer(max(1, size.value))
    getattr(nvrtc, f"nvrtcGet{what}")(program, found)
    return found.raw[: size.value]


def build(operation, m, n, fast):
    """One kernel: with crews, or portable."""
    # As `iris_kernels::device::fast`.
    groups = m // 64
    stages = min(12, (227 * 1024 - 4096 - m * n * 2) // ((m + n) * 128))
    waves_n = 8 if n > 128 else 4
    defines = {"DTYPE": "bf16", "TILE_M": m, "TILE_N": n, "RASTER": 8 if m * n >= 128 * 128 else 1}
    if fast:
        defines |= {"SM90": 1, "STAGES": stages, "WARPGROUPS": groups}
        threads, shared = groups * 128 + 128, stages * ((m + n) * 128 + 16) + m * n * 2 + groups * 16 + 1024
    else:
        defines |= {"WAVES_N": waves_n}
        threads, shared = 64 * waves_n, 0
    source = f"{operation}.hip"
    program = ctypes.c_void_p()
    with open(f"{HIP}/{source}", "rb") as file:
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), file.read(), source.encode(), 0, None, None)
    options = ["--gpu-architecture=sm_90a", "--std=c++17", f"--include-path={HIP}", "--ptxas-options=-v"]
    options += [f"-DIRIS_{name}={value}" for name, value in defines.items()]
    raw = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    status = nvrtc.nvrtcCompileProgram(program, len(options), raw)
    log = text(program, "ProgramLog").decode(errors="replace")
    if status != 0:
        sys.exit(log)
    name = f"{operation}-{m}x{n}-{'fast' if fast else 'portable'}"
    with open(f"{OUT}/{name}.cubin", "wb") as file:
        file.write(text(program, "CUBIN"))
    print(name, re.findall(r"(\d+) bytes spill stores", log), re.findall(r"Used (\d+) registers", log), flush=True)
    return name, {"kernel": f"iris_{operation}", "m": m, "n": n, "fast": fast, "threads": threads, "shared": shared}


os.makedirs(OUT, exist_ok=True)
made = []
for tile in [(64, 64), (128, 64)]:
    for operation in ["one_shot_packets", "one_shot", "two_shot"]:
        made += [build(operation, *tile, fast) for fast in (True, False)]
    made.append(build("matmul", *tile, True))
with open(f"{OUT}/kernels.json", "w") as file:
    json.dump(dict(made), file)
