"""The most memory that a block of code holds at a time, beyond what was held when it began.

`cuda`: what torch allocated on the device. `VmHWM`: the resident set of this process by the kernel's own high-water mark (Linux).
`sampled`: the resident set looked at every few milliseconds, elsewhere; a short peak can be missed.
"""

import ctypes
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import torch

Source = Literal["cuda", "VmHWM", "sampled"]

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_SAMPLE_EVERY = 0.005  # seconds


def source(device: torch.device) -> Source:
    """How memory is measured for work on `device`."""
    if device.type == "cuda":
        return "cuda"
    try:
        _RESET.write_text("5")
    except OSError:  # not Linux, or a container that forbids it
        return "sampled"
    return "VmHWM"


class PeakMemory:
    """`with PeakMemory(device) as peak: ...`, then `peak.bytes`. Blocks do not nest."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.source: Source = source(device)
        self.bytes = 0
        self._start = 0
        self._sampler: _Sampler | None = None

    def __enter__(self) -> Self:
        if self.source == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start = torch.cuda.memory_allocated(self.device)
            return self
        _return_freed_memory()
        if self.source == "VmHWM":
            _RESET.write_text("5")
            self._start = _status("VmRSS")
        else:
            self._sampler = _Sampler()
            self._start = self._sampler.peak
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.look()
        if self._sampler is not None:
            self._sampler.stop()

    def look(self) -> int:
        """`bytes` up to now."""
        if self.source == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = _status("VmHWM") if self._sampler is None else self._sampler.look()
        self.bytes = max(0, peak - self._start)
        return self.bytes


class _Sampler:
    """Watches the resident set from a thread of its own."""

    def __init__(self) -> None:
        import psutil  # type: ignore[import-untyped]

        self._process = psutil.Process()
        self._done = threading.Event()
        self.peak: int = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_EVERY):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def look(self) -> int:
        self.peak = max(self.peak, self._process.memory_info().rss)
        return self.peak

    def stop(self) -> None:
        self._done.set()
        self._thread.join()


def _return_freed_memory() -> None:
    """Give freed heap back to the system: what an earlier block left there would hide this block's first allocations."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # the GNU C library has it
        trim(0)


def _status(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")
