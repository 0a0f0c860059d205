"""How fast a machine multiplies and reads memory: measured in about a second, once in a process."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch

_SECONDS = 0.4  # for each of the two
_BYTES = {"cpu": 1 << 28, "cuda": 1 << 31}  # read at a time: more than caches hold
_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Args: flops: floating-point operations a second of a product of matrices. reads: bytes a second of a matrix times a vector."""

    flops: float
    reads: float


@lru_cache
def machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """What `device` does in `dtype`, the best of several tries."""
    side = _SIDE.get(device.type, 1024)
    square = torch.ones(side, side, device=device, dtype=dtype)
    rows = _BYTES.get(device.type, 1 << 28) // (4096 * dtype.itemsize)
    tall, vector = torch.ones(rows, 4096, device=device, dtype=dtype), torch.ones(4096, device=device, dtype=dtype)
    flops = 2 * side**3 / _least(lambda: square @ square)
    return Machine(flops=flops, reads=tall.nbytes / _least(lambda: tall @ vector))


def _least(work: Callable[[], torch.Tensor]) -> float:
    """Seconds of the fastest try; the first, which prepares, does not count."""
    best, begun = float("inf"), None
    while begun is None or time.perf_counter() - begun < _SECONDS:
        start = time.perf_counter()
        work().flatten()[0].item()  # a device may still be at work
        if begun is not None:
            best = min(best, time.perf_counter() - start)
        begun = begun or time.perf_counter()
    return best
