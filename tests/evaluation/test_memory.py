import sys

import pytest
import torch

from longreach.evaluation import memory
from longreach.evaluation.memory import PeakMemory

CPU = torch.device("cpu")
SIZE = 64 * 2**20  # bytes


def hold(size):
    """Touch `size` bytes and let them go."""
    torch.ones(size, dtype=torch.uint8)


def test_the_source_is_named():
    assert memory.source(CPU) in ("VmHWM", "sampled")
    assert memory.source(torch.device("cuda")) == "cuda"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's high-water mark is Linux's")
@pytest.mark.parametrize("round_", [1, 2])
def test_a_peak_that_is_gone_at_the_end_is_seen_every_time(round_):
    with PeakMemory(CPU) as peak:
        hold(SIZE)
    assert SIZE * 0.95 < peak.bytes < SIZE * 1.3


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's high-water mark is Linux's")
def test_earlier_memory_does_not_count():
    kept = torch.ones(SIZE, dtype=torch.uint8)
    with PeakMemory(CPU) as peak:
        hold(SIZE // 4)
    assert kept.numel() == SIZE
    assert peak.bytes < SIZE // 2


def test_sampling_sees_what_stays(monkeypatch):
    monkeypatch.setattr(memory, "source", lambda device: "sampled")
    with PeakMemory(CPU) as peak:
        kept = torch.ones(SIZE, dtype=torch.uint8)
    assert kept.numel() == SIZE
    assert SIZE * 0.95 < peak.bytes < SIZE * 1.3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_on_the_gpu():
    with PeakMemory(torch.device("cuda")) as peak:
        torch.ones(SIZE, dtype=torch.uint8, device="cuda")
    assert peak.bytes == SIZE
