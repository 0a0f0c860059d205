"""What people read for what was measured, the same on every page and in every table."""

from typing import Any

RISE = "Loss increase past the window"  # nats a token, above the stock model's loss on the same tokens read inside its window
RISE_COLUMN = "loss increase\npast the window"  # the same over a column of a terminal
NEEDLES = "Needles found"  # right answers of questions about a fact in the text, by likelihood, at the target
NEEDLES_COLUMN = "needles found"
MEMORY_SOURCES = {  # by how evaluation/memory.py measured it
    "cuda": "what torch allocated on the GPU",
    "VmHWM": "by how much this process grew (Linux's high-water mark)",
    "sampled": "by how much this process grew, looked at every few milliseconds: short peaks can be missed",
}


def found(method: dict[str, Any]) -> str:
    """The needles that a method of a report found; empty where it was not asked."""
    retrieval = method["retrieval"]
    return f"{retrieval['right']} of {retrieval['questions']}" if retrieval else ""
