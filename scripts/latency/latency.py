#!/usr/bin/env python3
"""How long small all-reduces take on the first two GPUs of a host, alone and fused, beside cuBLAS and NCCL: `latency.py DIRECTORY`.

DIRECTORY is what `build.py` has made. Needs torch, and NCCL where torch has it. Checks first, on one GPU and on two, that results are
right and the same on all ranks. Then each figure is the median over rounds of the slower GPU's time from event to event around a
captured graph of many calls, in microseconds a call. NVLink multicast is off for all.
"""

import ctypes
import functools
import glob
import json
import os
import random
import statistics
import struct
import sys
import time

os.environ["NCCL_NVLS_ENABLE"] = "0"
# No kernel is loaded while another waits.
os.environ["CUDA_MODULE_LOADING"] = "EAGER"
import torch

HERE = sys.argv[1]
START = time.time()
KERNELS = json.load(open(f"{HERE}/kernels.json"))
BF16 = torch.bfloat16
cuda = ctypes.CDLL("libcuda.so.1")
FIELDS = """world rank blocks m n k m_share n_share k_share given a a_row a_col b b_row b_col bias c c_row output output_row bounced cells words tiles locks
staging slots slot_bytes packets packet_slots packet_bytes accumulators accumulator_elements first budget_ns abort fault operation removed
stall_rank stall_index stall_phase stall_ns""".split()


def check(status, what):
    if status != 0:
        raise RuntimeError(f"{what}: {status}")


def function(name, device, found={}):
    if (name, device) not in found:
        torch.cuda.set_device(device)
        module, made = ctypes.c_void_p(), ctypes.c_void_p()
        with open(f"{HERE}/{name}.cubin", "rb") as file:
            check(cuda.cuModuleLoadData(ctypes.byref(module), file.read()), name)
        about = KERNELS[name]
        check(cuda.cuModuleGetFunction(ctypes.byref(made), module, about["kernel"].encode()), name)
        if about["shared"]:
            check(cuda.cuFuncSetAttribute(made, 8, about["shared"]), "shared memory")
        found[name, device] = made
    return found[name, device]


def shard(total, world, rank):
    size = -(-total // world)
    return min(total, rank * size), min(total, (rank + 1) * size)


def tensor_map(address, sizes, stride, box):
    raw = ctypes.create_string_buffer(192)
    at = ctypes.addressof(raw) + 63 & ~63
    two = ctypes.c_uint32 * 2
    status = cuda.cuTensorMapEncodeTiled(
        ctypes.c_void_p(at), 9, 2, ctypes.c_void_p(address), (ctypes.c_uint64 * 2)(*sizes), (ctypes.c_uint64 * 1)(stride),
        two(*box), two(1, 1), 0, 3, 2, 0)
    check(status, "tensor map")
    return ctypes.string_at(at, 128)


class Operation:
    """An all-reduce of up to `m` rows on ranks that have a device each, with its workspace."""

    def __init__(self, name, devices, m, n, first=1):
        self.name, self.devices, self.n, self.about = name, devices, n, KERNELS[name]
        world = len(devices)
        tile = self.about["m"] * self.about["n"] * 2
        tiles = -(-m // self.about["m"]) * -(-n // self.about["n"])
        kind = self.about["kernel"]
        slots = -(-tiles // world) if kind == "iris_two_shot" else tiles if kind == "iris_one_shot" else 0
        rows = min(self.about["m"], m)
        packet_slots = tiles if kind == "iris_one_shot_packets" else 0
        packet_bytes = rows * self.about["n"] * 4
        up = lambda bytes: -(-bytes // 1024) * 1024
        words = 4096
        staging = up(words + 4 * world * (5 + 2 * slots))
        packets = staging + 2 * world * slots * tile
        self.output = up(packets + 2 * world * packet_slots * packet_bytes)
        self.pitch = n
        self.heaps = [torch.zeros(self.output + m * n * 2, dtype=torch.uint8, device=f"cuda:{d}") for d in devices]
        for heap in self.heaps:
            heap[staging:packets] = 0xFF
        self.faults = [torch.zeros(14, dtype=torch.int64, device=f"cuda:{d}") for d in devices]
        here = max(devices.count(d) for d in devices)
        self.common = dict(
            world=world, n=n, cells=0, words=words, tiles=slots, staging=staging, slots=slots, slot_bytes=tile,
            packets=packets if packet_slots else 0, packet_slots=packet_slots, packet_bytes=packet_bytes, first=first,
            budget_ns=2_000_000_000, operation=1)
        self.most = 132 // here

    def call(self, rank, m, a, b, bias, c):
        """A launch, to be made on a stream as often as one likes. Without `b`, `a` is what is reduced."""
        device, about, world = self.devices[rank], self.about, len(self.devices)
        tiles = -(-m // about["m"]) * -(-self.n // about["n"])
        values = dict(
            self.common, m_share=-(-m // world), n_share=-(-self.n // world), k_share=-(-self.k // world), rank=rank, blocks=min(self.most, tiles), m=m, k=self.k, given=int(b is None), a=a.data_ptr(), a_row=a.stride(0),
            a_col=a.stride(1), bias=0 if bias is None else bias.data_ptr(), c=c.data_ptr(), c_row=c.stride(0), output=self.output,
            output_row=self.pitch, fault=self.faults[rank].data_ptr())
        if b is not None:
            values.update(b=b.data_ptr(), b_row=b.stride(0), b_col=b.stride(1))
        heaps = [heap.data_ptr() for heap in self.heaps] + [0] * (16 - len(self.heaps))
        blob = struct.pack("<60Q", *heaps, *[values.get(field, 0) for field in FIELDS])
        if about["fast"]:
            deep = b.stride(0) == 1 and b.stride(1) != 1
            box = min(about["m"], -(-m // 8) * 8)
            depth = a.shape[1]
            maps = b"\0" * 256
            if depth:
                torch.cuda.set_device(device)
                maps = tensor_map(a.data_ptr(), (depth, m), a.stride(0) * 2, (64, box))
                maps += (tensor_map(b.data_ptr(), (depth, self.n), b.stride(1) * 2, (64, about["n"])) if deep
                         else tensor_map(b.data_ptr(), (self.n, depth), b.stride(0) * 2, (64, 64)))
            # What tiles are copied into; the others store theirs.
            into = {"iris_two_shot": (heaps[rank] + self.output, self.pitch), "iris_matmul": (c.data_ptr(), c.stride(0))}.get(about["kernel"])
            maps += tensor_map(into[0], (self.n, m), into[1] * 2, (64, 64)) if into else b"\0" * 128
            maps += b"\0" * 128
            blob += struct.pack("<5Q", 1, int(deep), box * 128, 0, int(into is not None)) + b"\0" * 56 + maps
        raw = ctypes.create_string_buffer(len(blob) + 64)
        at = ctypes.addressof(raw) + 63 & ~63
        ctypes.memmove(at, blob, len(blob))
        pointer = (ctypes.c_void_p * 1)(at)
        kernel, blocks = function(self.name, device), values["blocks"]

        def launch(stream, keep=(raw, a, b, bias, c)):
            check(cuda.cuLaunchKernel(kernel, blocks, 1, 1, about["threads"], 1, 1, about["shared"], ctypes.c_void_p(stream), pointer, None),
                  self.name)

        return launch

    def fault(self):
        return [fault.tolist() for fault in self.faults if fault[0].item() != 0]

    def result(self, rank, m, c):
        """Where the result of a call is."""
        if self.about["kernel"] != "iris_two_shot":
            return c
        return self.heaps[rank][self.output:].view(BF16)[: m * self.pitch].view(m, self.pitch)


@functools.lru_cache(64)
def matrices(m, n, k, seed):
    """A, B, the bias and the result: integers, of which all sums are exact."""
    random = torch.Generator().manual_seed(seed)
    a = torch.randint(-2, 3, (m, k), generator=random).to(BF16)
    b = torch.randint(-1, 2, (k, n), generator=random).to(BF16)
    bias = torch.randint(-8, 9, (n,), generator=random).to(BF16)
    return a, b, bias, (a.float() @ b.float() + bias.float()).to(BF16)


def operands(device, rank, world, m, n, k, deep, seed):
    """A rank's parts of matrices that are the same everywhere."""
    a, b, bias, result = matrices(m, n, k, seed)
    low, high = shard(k, world, rank)
    pitch = max(8, -(-(high - low) // 8) * 8)
    own_a = torch.zeros(m, pitch, dtype=BF16, device=f"cuda:{device}")[:, : high - low]
    own_a.copy_(a[:, low:high])
    own_b = b[low:high].to(f"cuda:{device}")
    if deep:
        own_b = torch.zeros(n, pitch, dtype=BF16, device=f"cuda:{device}")[:, : high - low].copy_(own_b.t()).t()
    return own_a, own_b, bias.to(f"cuda:{device}"), result


def correct(name, devices, rows, n, k, deep=False, first=1):
    """Calls of different sizes back to back; what is wrong with them."""
    world = len(devices)
    operation = Operation(name, devices, max(rows), n, first)
    operation.k = k
    streams = [torch.cuda.Stream(device=d) for d in devices]
    launches, results = [], []
    for index, m in enumerate(rows):
        for rank, device in enumerate(devices):
            a, b, bias, expected = operands(device, rank, world, m, n, k, deep, index * 7 + 1)
            c = torch.full((m, n), float("nan"), dtype=BF16, device=f"cuda:{device}")
            launches.append((rank, operation.call(rank, m, a, b, bias, c)))
            results.append((index, rank, c, expected))
    for d in set(devices):
        torch.cuda.synchronize(d)
    for rank, launch in launches:
        torch.cuda.set_device(devices[rank])
        launch(streams[rank].cuda_stream)
    for d in set(devices):
        torch.cuda.synchronize(d)
    if operation.fault():
        return f"fault {operation.fault()}"
    for index, rank, c, expected in results:
        if operation.about["kernel"] == "iris_two_shot" and index + 1 < len(rows):
            continue
        found = operation.result(rank, rows[index], c).cpu()
        if not torch.equal(found, expected):
            return f"call {index}, rank {rank}: {int((found != expected).sum())} of {found.numel()} wrong"
    return ""


class Nccl:
    def __init__(self, devices):
        places = []
        try:
            import nvidia
            places = [f for p in nvidia.__path__ for f in glob.glob(p + "/nccl/lib/libnccl.so.2")]
        except ImportError:
            pass
        self.library = ctypes.CDLL((places + ["libnccl.so.2"])[0])
        self.comms = (ctypes.c_void_p * len(devices))()
        check(self.library.ncclCommInitAll(self.comms, len(devices), (ctypes.c_int * len(devices))(*devices)), "NCCL")

    def all_reduce(self, tensors, streams):
        check(self.library.ncclGroupStart(), "NCCL")
        for tensor, comm, stream in zip(tensors, self.comms, streams):
            at = ctypes.c_void_p(tensor.data_ptr())
            status = self.library.ncclAllReduce(at, at, ctypes.c_size_t(tensor.numel()), 9, 0, ctypes.c_void_p(comm), ctypes.c_void_p(stream))
            check(status, "NCCL")
        check(self.library.ncclGroupEnd(), "NCCL")


class Timed:
    """A graph on each device, of `calls` calls of `each(call, streams)`."""

    def __init__(self, devices, streams, calls, each):
        self.devices, self.streams, self.calls = devices, streams, calls
        raw = [stream.cuda_stream for stream in streams]
        each(0, raw)
        self.synchronize()
        for device, stream in zip(devices, raw):
            torch.cuda.set_device(device)
            check(cuda.cuStreamBeginCapture_v2(ctypes.c_void_p(stream), 2), "capture")
        for call in range(calls):
            each(call, raw)
        self.graphs = []
        for device, stream in zip(devices, raw):
            torch.cuda.set_device(device)
            graph, runs = ctypes.c_void_p(), ctypes.c_void_p()
            check(cuda.cuStreamEndCapture(ctypes.c_void_p(stream), ctypes.byref(graph)), "capture")
            check(cuda.cuGraphInstantiateWithFlags(ctypes.byref(runs), graph, ctypes.c_ulonglong(0)), "graph")
            self.graphs.append(runs)
        self.events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in devices]
        self.times = []

    def synchronize(self):
        for device in self.devices:
            torch.cuda.synchronize(device)

    def round(self):
        self.synchronize()
        for at, device in enumerate(self.devices):
            torch.cuda.set_device(device)
            self.events[at][0].record(self.streams[at])
            check(cuda.cuGraphLaunch(self.graphs[at], ctypes.c_void_p(self.streams[at].cuda_stream)), "graph")
            self.events[at][1].record(self.streams[at])
        self.synchronize()
        self.times.append(max(first.elapsed_time(last) for first, last in self.events) * 1e3 / self.calls)


def rounds(timed, count=9):
    for _ in range(count):
        for one in random.sample(list(timed.values()), len(timed)):
            one.round()
    return {name: statistics.median(one.times) for name, one in timed.items()}


def on_each(devices, streams, launches):
    """Each device's own launch of a call."""

    def each(call, raw):
        for rank, device in enumerate(devices):
            torch.cuda.set_device(device)
            mine = launches[rank]
            mine[call % len(mine)](raw[rank])

    return each


def alone(devices, nccl, kib):
    """The collective alone, of a matrix that is given."""
    m, n = (1, kib * 512) if kib < 64 else (kib // 16, 8192)
    streams = [torch.cuda.Stream(device=d) for d in devices]
    inputs = [torch.randint(-8, 9, (m, n), device=f"cuda:{d}").to(BF16) for d in devices]
    expected = sum(x.cpu().float() for x in inputs).to(BF16)
    timed, keep = {}, []
    for name in ["one_shot_packets-64x64-portable", "one_shot-64x64-portable", "two_shot-64x64-portable"]:
        operation = Operation(name, devices, m, n)
        operation.k = len(devices)
        outputs = [torch.empty(m, n, dtype=BF16, device=f"cuda:{d}") for d in devices]
        launches = [[operation.call(rank, m, inputs[rank], None, None, outputs[rank])] for rank in range(len(devices))]
        timed[name.split("-")[0]] = Timed(devices, streams, 200, on_each(devices, streams, launches))
        keep.append((operation, outputs))
    sums = [torch.zeros(m, n, dtype=BF16, device=f"cuda:{d}") for d in devices]
    timed["NCCL"] = Timed(devices, streams, 200, lambda _, raw: nccl.all_reduce(sums, raw))
    found = rounds(timed)
    wrong = ""
    for operation, outputs in keep:
        if operation.fault():
            wrong += f" {operation.name}: {operation.fault()}"
        elif any(not torch.equal(operation.result(rank, m, c).cpu(), expected) for rank, c in enumerate(outputs)):
            wrong += f" {operation.name}: WRONG"
    print(f"{kib:5} KiB  " + "  ".join(f"{name} {took:6.2f}" for name, took in found.items()) + wrong, flush=True)


def fused(devices, nccl, m, n, k, deep):
    """A product and the all-reduce of its partial sums; `k` is each rank's depth. Weights are rotated, and do not lie in L2."""
    world, sets = len(devices), 3
    streams = [torch.cuda.Stream(device=d) for d in devices]
    scale = k ** -0.25
    a = [[(torch.randn(m, k, device=f"cuda:{d}") * scale).to(BF16) for _ in range(sets)] for d in devices]
    b = [[(torch.randn(*((n, k) if deep else (k, n)), device=f"cuda:{d}") * scale).to(BF16) for _ in range(sets)] for d in devices]
    if deep:
        b = [[x.t() for x in mine] for mine in b]
    tile = "64x64" if m <= 64 else "128x64"
    timed, keep = {}, []
    for name in ["one_shot_packets", "one_shot", "two_shot"]:
        operation = Operation(f"{name}-{tile}-fast", devices, m, n)
        operation.k = k * world
        outputs = [[torch.empty(m, n, dtype=BF16, device=f"cuda:{d}") for _ in range(sets)] for d in devices]
        launches = [[operation.call(rank, m, a[rank][at], b[rank][at], None, outputs[rank][at]) for at in range(sets)] for rank in range(world)]
        timed[name] = Timed(devices, streams, 60, on_each(devices, streams, launches))
        keep.append((operation, outputs))
    alone = Operation(f"matmul-{tile}-fast", [devices[0]], m, n)
    alone.k = k
    products = [torch.empty(m, n, dtype=BF16, device=f"cuda:{d}") for d in devices]
    launches = [[alone.call(0, m, a[0][at], b[0][at], None, products[0]) for at in range(sets)]]
    timed["our product"] = Timed(devices[:1], streams[:1], 60, on_each(devices[:1], streams[:1], launches))

    def multiply(call, raw):
        for rank, device in enumerate(devices):
            torch.cuda.set_device(device)
            with torch.cuda.stream(streams[rank]):
                torch.mm(a[rank][call % sets], b[rank][call % sets], out=products[rank])

    def both(call, raw):
        multiply(call, raw)
        nccl.all_reduce(products, raw)

    timed["cuBLAS"] = Timed(devices, streams, 60, multiply)
    timed["NCCL"] = Timed(devices, streams, 60, lambda _, raw: nccl.all_reduce(products, raw))
    timed["cuBLAS, NCCL"] = Timed(devices, streams, 60, both)
    found = rounds(timed)
    said = "  ".join(f"{name} {took:6.2f}" for name, took in found.items())
    expected = sum((a[r][0].float() @ b[r][0].float()).to(BF16).cpu().float() for r in range(world)).to(BF16).float()
    for operation, outputs in keep[:2]:
        results = [outputs[rank][0].cpu() for rank in range(world)]
        off = float((results[0].float() - expected).norm() / expected.norm())
        if operation.fault() or off > 5e-3 or any(not torch.equal(results[0], other) for other in results):
            said += f" {operation.name}: WRONG, {off:.1e} off, {operation.fault()}"
    ratio = found["cuBLAS, NCCL"] / found["one_shot_packets"]
    print(f"({m}, {n}, {k}) b {'deep' if deep else 'wide'}  {said}  speed-up {ratio:.2f}", flush=True)


def main():
    count = torch.cuda.device_count()
    print(torch.cuda.get_device_name(), count, flush=True)
    devices = [0, 1][:count]
    for d in devices:
        for peer in devices:
            torch.cuda.set_device(d)
            torch.zeros(1, device=f"cuda:{d}")
            context = ctypes.c_void_p()
            torch.cuda.set_device(peer)
            torch.zeros(1, device=f"cuda:{peer}")
            check(cuda.cuCtxGetCurrent(ctypes.byref(context)), "context")
            torch.cuda.set_device(d)
            if d != peer:
                status = cuda.cuCtxEnablePeerAccess(context, 0)
                if status not in (0, 704):
                    raise RuntimeError(f"peer access: {status}")
    largest = 2147483647
    runs = right = 0
    for name in ["one_shot_packets-64x64-fast", "one_shot_packets-64x64-portable", "one_shot_packets-128x64-fast", "one_shot_packets-128x64-portable"]:
        places = [[0], [0, 0], [0, 0, 0], [0] * 5] + ([devices] if count > 1 else [])
        for place in places:
            for rows, n, k, deep, first in [([16, 1, 64, 7, 16, 128, 3, 64], 520, 456, True, 1), ([60, 200, 5, 8, 8, 60], 328, 136, False, largest - 2),
                                            ([16] * 30, 1024, 512, False, largest - 11), ([9, 64, 1], 64, 3, True, 3)]:
                runs += 1
                try:
                    wrong = correct(name, place, rows, n, k, deep, first)
                except RuntimeError as error:
                    print(name, place, rows, n, k, error, flush=True)
                    sys.exit(1)
                right += wrong == ""
                if wrong:
                    print(f"  {name} on {place}, {rows}, ({n}, {k}), deep {deep}: {wrong[:300]}", flush=True)
    print(f"{right} of {runs} right, {time.time() - START:.0f} s", flush=True)
    if count < 2:
        return
    nccl = Nccl(devices)
    for kib in [8, 16, 64, 128, 256, 512, 1024]:
        alone(devices, nccl, kib)
    print(f"{time.time() - START:.0f} s", flush=True)
    for m in (16, 128):
        for deep in (False, True):
            fused(devices, nccl, m, 8192, 3584, deep)
    print(f"{time.time() - START:.0f} s", flush=True)


main()
