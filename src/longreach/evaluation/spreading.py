"""Spreads an evaluation over processes, or over the workers of a Ray cluster: each loads the model, and takes its share of the passages.

All append to one file of rows, so that the rows are those of a single process, and a stopped sweep goes on, with any number of workers.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from longreach.core.errors import InputError

_WORKERS = re.compile(r"(ray:)?([1-9]\d{0,4})")


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Args: count: how many. ray: of a Ray cluster, and not processes of this machine."""

    count: int
    ray: bool = False

    @classmethod
    def parse(cls, text: str) -> "Workers":
        """From `4` or `ray:4`. Raises: InputError."""
        match = _WORKERS.fullmatch(text.strip())
        if match is None:
            raise InputError(f"--workers {text}: write a number of processes, as 4, or ray:4 for workers of a Ray cluster")
        return cls(count=int(match[2]), ray=bool(match[1]))


def spread(workers: Workers, load: Mapping[str, Any], options: Mapping[str, Any], methods: Sequence[str], rows: Path) -> None:
    """Ask all questions that are not among the rows.

    Args: load: arguments of `longreach.load`. options: of `evaluate`. methods: specs. rows: the file, which every worker must reach.
    Raises: InputError where Ray is not installed; what a worker raises.
    """
    shares = [(load, options, tuple(methods), str(rows), (number, workers.count)) for number in range(workers.count)]
    (_by_ray if workers.ray else _by_processes)(take_share, shares)


def take_share(load: Mapping[str, Any], options: Mapping[str, Any], methods: Sequence[str], rows: str, share: tuple[int, int]) -> int:
    """Load the model, and ask what falls to this share; how many rows came of it."""
    import longreach
    from longreach.evaluation.rows import Rows

    loaded, store, found = longreach.load(**load), Rows(Path(rows)), 0
    for method in methods:
        found += len(longreach.evaluate(loaded.model, loaded.tokenizer, method=method, rows=store, share=share, **options).rows)
    return found


def _by_processes(take: Callable[..., int], shares: Sequence[tuple[Any, ...]]) -> None:
    """In new processes, which share the cores."""
    threads = str(max(1, (os.cpu_count() or 1) // len(shares)))
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or threads  # read by torch where a process first imports it
    try:
        with ProcessPoolExecutor(len(shares), mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(take, *share) for share in shares]
            done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
            for future in waiting:
                future.cancel()
            for future in done:
                future.result()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]


def _by_ray(take: Callable[..., int], shares: Sequence[tuple[Any, ...]]) -> None:
    """On a cluster that `RAY_ADDRESS` names, or on this machine."""
    try:
        import ray  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise InputError("--workers ray:N needs Ray; pip install 'longreach[ray]'") from None
    began = not ray.is_initialized()
    if began:
        ray.init(logging_level="error", log_to_driver=False)
    try:
        ray.get([ray.remote(take).remote(*share) for share in shares])
    finally:
        if began:
            ray.shutdown()
