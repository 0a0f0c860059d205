"""What people read for what was measured, the same on every page and in every table."""

RISE = "Loss increase past the window"  # nats a token, above the stock model's loss on the same tokens read inside its window
RISE_COLUMN = "loss increase\npast the window"  # the same over a column of a terminal
MEMORY_SOURCES = {  # by how evaluation/memory.py measured it
    "cuda": "what torch allocated on the GPU",
    "VmHWM": "by how much this process grew (Linux's high-water mark)",
    "sampled": "by how much this process grew, looked at every few milliseconds: short peaks can be missed",
}
