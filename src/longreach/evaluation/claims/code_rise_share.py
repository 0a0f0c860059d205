"""The rise of the loss beyond the window on source code, measured by the plain model's."""

import numpy as np
import torch

import longreach
from longreach.data.stdlib import stdlib_files
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import CHUNK, token_losses
from longreach.evaluation.claims.base import ClaimBench, Metric
from longreach.evaluation.evidence import Number, counted
from longreach.evaluation.intervals import ratio_interval
from longreach.evaluation.text import cut_windows

_TEXTS, _WINDOWS = 4, 8  # texts of source code to read, and how many trained windows of each


def take(name: str, bench: ClaimBench) -> Number:
    """Of the method as its name alone makes it."""
    window = bench.subject.window
    source = "\n\n".join(path.read_text(encoding="utf-8", errors="replace") for path in stdlib_files("held-out"))
    ids = torch.from_numpy(np.stack(cut_windows(Encoder(bench.subject.tokenizer), source, _WINDOWS * window, _TEXTS))).long()
    rises = []
    for method in ("", name):
        with longreach.apply(bench.model, method):
            losses = token_losses(bench.model, ids, chunk_size=CHUNK)
        rises.append(losses[:, window - 1 :].mean(1) - losses[:, : window - 1].mean(1))
    stock, ours = (rise.tolist() for rise in rises)
    return Number(spec=name, interval=ratio_interval(ours, stock), of=counted(stock, "text"))


METRIC = Metric(meaning="the rise of the loss beyond the window on Python source alone, as a share of the plain model's", take=take)
