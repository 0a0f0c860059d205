"""Retrieval heads: the heads that look at a fact where it stands, far back, while the model writes it down.

Source: Retrieval Head Mechanistically Explains Long-Context Factuality, 2024, arXiv:2404.15574. A number is stated at some depth of a text
and asked for at its end; a head's score is the share of its attention that goes to the fact, from the tokens that the number is written
after. Heads that share keys are one, with the highest of their scores.

Differs from the paper: it counts how often the most attended token is the one that is copied; the share of attention needs fewer texts.
"""

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.analysis.single_heads import observed
from longreach.core.errors import InputError, UnsupportedError
from longreach.core.progress import SILENT, Progress
from longreach.decoding.encoder import Encoder
from longreach.engine.apply import applied
from longreach.engine.engine import NAME
from longreach.engine.examine import examine
from longreach.evaluation.tasks.retrieval.needle import Needle
from longreach.evaluation.text import cut_windows


def retrieval_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    trained_window: int,
    *,
    length: int,
    samples: int,
    seed: int = 0,
    progress: Progress = SILENT,
) -> list[list[float]]:
    """The score, 0 to 1, of each key-value head of each layer with full attention.

    Args: text: real text to put the facts into. length: tokens of a prompt. samples: facts, at depths from the beginning to the end.
    Raises: UnsupportedError for a model that the engine cannot run, or under a method that computes attention; InputError for a text or a
    length that is too short.
    """
    attentions = examine(model, trained_window)
    if any(NAME in vars(attention.module) for attention in attentions):
        why = "it does not attend by the model's own attention, where heads are found"
        raise UnsupportedError(applied(model), type(model).__name__, why, "choose a positions method, as yarn, or none")
    encoder, task = Encoder(tokenizer), Needle()
    windows = cut_windows(encoder, text, length, samples)
    sums: dict[int, Tensor] = {}
    fact, answer = slice(0), slice(0)

    def observe(layer: int, q: Tensor, k: Tensor, scale: float) -> None:
        if attentions[layer].window is None:
            logits = q[0, :, answer].unflatten(0, (k.shape[1], -1)).float() @ k[0, :, None].float().mT * scale  # [K, H / K, n, T]
            seen = torch.arange(k.shape[2], device=k.device) <= torch.arange(answer.start, answer.stop, device=k.device)[:, None]
            share = logits.masked_fill(~seen, float("-inf")).softmax(-1)[..., fact].sum(-1).mean(-1)
            sums[layer] = sums.get(layer, 0.0) + share.amax(1).double().cpu()

    with torch.no_grad(), observed(model, attentions, observe):
        for sample in range(samples):
            frame, depth = task.frame(encoder, seed, sample), (sample + 0.5) / samples
            given = task.prompt(encoder, length=length, depth=depth, seed=seed, sample=sample, haystack=windows[sample % len(windows)])
            ids, written = given.ids, given.answers[given.right]
            begin = _place(ids, frame.fact)
            fact, answer = slice(begin, begin + len(frame.fact)), slice(len(ids) - 1, len(ids) + len(written) - 1)
            both = np.concatenate([ids, np.array(written[:-1], dtype=np.int32)])
            model(torch.from_numpy(both)[None].long().to(model.device), use_cache=False, logits_to_keep=1)
            progress.advance(length)
    if not sums:
        raise UnsupportedError("duo", type(model).__name__, "no layer sees the whole text", "choose another model")
    return [(sums[layer] / samples).tolist() for layer in sorted(sums)]


def _place(ids: np.ndarray, fact: list[int]) -> int:
    """Where the fact begins."""
    found = np.lib.stride_tricks.sliding_window_view(ids, len(fact))
    (places,) = (found == np.array(fact)).all(1).nonzero()
    if not len(places):
        raise InputError("the tokenizer writes a fact otherwise inside a text; heads that retrieve cannot be found with it")
    return int(places[0])
