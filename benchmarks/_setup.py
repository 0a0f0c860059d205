"""The model that all benchmarks share, filled caches, and interleaved timing."""

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

from longreach.decoding.reading import new_cache, prefill
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument

HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY = 512, 8, 8, 4, 4096
HEAD_DIM = HIDDEN // HEADS


@dataclass(frozen=True)
class Contender:
    """Something to time. spec: longreach method, or "" for stock transformers. static: a StaticCache. read: by longreach, without one."""

    name: str
    spec: str = ""
    static: bool = False
    read: bool = False


def make_model(dtype: torch.dtype, vocabulary: int = VOCABULARY) -> LlamaForCausalLM:
    """A random Llama of 28M parameters (more with a larger vocabulary)."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=HIDDEN, intermediate_size=1408, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, max_position_embeddings=512, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).eval()


class Run:
    """A contender with its own copy of the model, applied until `close`."""

    def __init__(self, contender: Contender, dtype: torch.dtype) -> None:
        self.contender, self.dtype = contender, dtype
        self.model = make_model(dtype)
        self._undo = ExitStack()
        if contender.spec:
            self._undo.enter_context(apply(self.model, contender.spec))

    def close(self) -> None:
        """Undo the method."""
        self._undo.close()

    def prefill(self, length: int, chunk: int) -> Cache:
        """Read `length` random tokens into a new cache; logits of the last one only."""
        ids = torch.randint(0, VOCABULARY, (1, length))
        cache = new_cache(self.model) if self.contender.spec or self.contender.read else DynamicCache(config=self.model.config)
        if self.contender.read:
            prefill(self.model, ids, cache=cache, chunk_size=chunk)
            return cache
        for start in range(0, length, chunk):
            self.model(ids[:, start : start + chunk], **cache_argument(self.model, cache), use_cache=True, logits_to_keep=1)
        return cache

    def filled_cache(self, length: int) -> Cache:
        """A cache that holds `length` tokens: a few real ones, then random keys and values, as fast as memory allows."""
        room = (
            StaticCache(config=self.model.config, max_cache_len=length + 64)
            if self.contender.static
            else DynamicCache(config=self.model.config)
        )
        self.model(torch.randint(0, VOCABULARY, (1, 8)), **cache_argument(self.model, room), use_cache=True)
        for start in range(8, length, 4096):
            count = min(4096, length - start)
            for index, layer in enumerate(room.layers):
                keys, values = (torch.randn(1, KV_HEADS, count, HEAD_DIM, dtype=self.dtype) for _ in range(2))
                if self.contender.spec:
                    layer.update(keys, values)
                    channels = dict.fromkeys(layer.plan.maps, keys) | {"v": values} | ({"raw": keys} if layer.plan.raw else {})
                    layer.write(channels, dict.fromkeys(layer.plan.sink_maps, keys) | {"v": values})
                    if layer.plan.chunk is not None:
                        layer.queries.append({"q": torch.randn(1, HEADS, count, HEAD_DIM, dtype=self.dtype)})
                        layer.summaries = torch.randn(1, HEADS, layer.tokens // layer.plan.chunk, HEAD_DIM, dtype=self.dtype)
                    layer.forget()
                else:
                    room.update(keys, values, index)
        return room

    def decode(self, cache: Cache, tokens: int) -> None:
        """Decode `tokens` tokens, one forward pass each."""
        ids = torch.zeros(1, 1, dtype=torch.long)
        for _ in range(tokens):
            if self.contender.read:
                prefill(self.model, ids, cache=cache)
                continue
            self.model(ids, **cache_argument(self.model, cache), use_cache=True)

    def train(self, positions: torch.Tensor) -> None:
        """Forward and backward of 8 random sequences at the positions [T], under bfloat16 autocast where that is the dtype."""
        ids = torch.randint(0, VOCABULARY, (8, len(positions)))
        with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            given = {"position_ids": positions.expand_as(ids), "attention_mask": torch.ones_like(ids), "use_cache": False}
            self.model(ids, labels=ids, **given).loss.backward()
        self.model.zero_grad()


@torch.no_grad()
def interleaved(
    jobs: dict[str, Callable[[], Any]], rounds: int = 5, warm: int = 1, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each job; every round runs all of them, so that a noisy machine is noisy for all."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for round_ in range(warm + rounds):
        for name, job in jobs.items():
            begun = clock()
            job()
            if round_ >= warm:
                times[name].append(clock() - begun)
    return {name: statistics.median(values) for name, values in times.items()}
