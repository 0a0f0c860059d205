"""Training sequences: a source draws the text, a position sampler its positions, and documents that share a sequence do not see each other.

Every sequence has the same length, so nothing is padded. The sources are:

- long: running text, at the sampler's positions
- short: running text at its true positions inside the trained window, which keeps the model what it was there
- recall: exercises that need something said earlier (`data.recall`), at the sampler's positions
- interleaved: chunks of several documents in turn (`data.interleave`), at the sampler's positions
- questions: text that ends in questions about itself (`data.questions`), at the sampler's positions
- bootstrap: an instruction, chunks of many documents, and what they say to it (`data.bootstrap`), at the sampler's positions
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.core.errors import InputError
from longreach.data.bootstrap import BootstrapGenerator
from longreach.data.documents import Documents, encode, plain_words, prefix
from longreach.data.interleave import interleaved
from longreach.data.questions import QuestionGenerator
from longreach.data.recall import RecallGenerator
from longreach.decoding.reading import UNPREDICTED
from longreach.training.samplers.base import Array, Geometry, PositionSampler

SOURCES = ("long", "short", "recall", "interleaved", "questions", "bootstrap")

_MIXED, _CHUNK_SHARE = 4, 8  # documents that are interleaved; chunks of each in a text
_FEWEST_WORDS = 64

Draw = Callable[[np.random.Generator, int], tuple[Array, Array]]  # (rng, length) -> ids and document numbers, [length] each


class Examples(Dataset[dict[str, Array]]):
    """Sequence `index` depends on the seed and on `index` alone, so a run that goes on sees what it would have seen.

    Args: mixture: source -> share. count: sequences of the whole run.
    """

    def __init__(
        self,
        documents: Documents,
        texts: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        *,
        mixture: Mapping[str, float],
        sampler: PositionSampler,
        geometry: Geometry,
        seed: int,
        count: int,
    ) -> None:
        self.prefix, self.geometry, self.sampler, self.seed, self.count = prefix(tokenizer), geometry, sampler, seed, count
        self.names = [name for name, share in mixture.items() if share]
        shares = np.array([mixture[name] for name in self.names], dtype=np.float64)
        self.shares = shares / shares.sum()
        needed = max(sampler.span(geometry), geometry.trained_window) + 1  # so that there is a choice
        if len(documents.ids) < needed:
            raise InputError(
                f"too little text to train on: {sampler} takes sequences from {needed} tokens, and it has {len(documents.ids)}; give more"
            )
        self.draw = _sources(self.names, documents, texts, tokenizer)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Array]:
        """`input_ids`, `position_ids` and `documents`, each [seq_len]."""
        rng = np.random.default_rng((self.seed, index))
        name = self.names[rng.choice(len(self.names), p=self.shares)]
        if name == "short":
            ids, documents, positions = self._short(rng)
        else:
            # Running text is as long as the sampler asks for; exercises have the length of the sequence, and none of it may be left out.
            whole = name in ("recall", "questions", "bootstrap")
            ids, documents = self._text(rng, name, self.geometry.seq_len if whole else self.sampler.span(self.geometry))
            indices, positions = self.sampler.sample(rng, self.geometry)
            if not whole:
                ids, documents = ids[indices], documents[indices]
        return {"input_ids": ids, "position_ids": positions, "documents": documents}

    def _text(self, rng: np.random.Generator, name: str, length: int) -> tuple[Array, Array]:
        """[length] ids with the special tokens that come first, and the number of the document that each belongs to."""
        ids, documents = self.draw[name](rng, max(1, length - len(self.prefix)))
        ids, documents = np.concatenate([self.prefix, ids]), np.concatenate([np.full(len(self.prefix), documents[0]), documents])
        return ids[:length].astype(np.int64), documents[:length]

    def _short(self, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Pieces of at most a trained window that fill the sequence, each at positions from 0 and by itself."""
        pieces: list[tuple[Array, Array, Array]] = []
        left, number = self.geometry.seq_len, 0
        while left:
            ids, documents = self._text(rng, "short", min(self.geometry.trained_window, left))
            pieces.append((ids, documents + number, np.arange(len(ids))))
            number, left = number + int(documents[-1]) + 1, left - len(ids)
        ids, documents, positions = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        return ids, documents, positions


def _sources(names: Sequence[str], documents: Documents, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, Draw]:
    """The sources that are asked for; what others would need is not made."""
    eos = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else encode(tokenizer, "\n")[-1]

    def alone(make: Callable[[np.random.Generator, int], Any]) -> Draw:
        def draw(rng: np.random.Generator, length: int) -> tuple[Array, Array]:
            return np.array(make(rng, length)), np.zeros(length, dtype=np.int32)

        return draw

    found: dict[str, Draw] = {"long": documents.span, "short": documents.span}
    if "recall" in names:
        words = plain_words(texts)
        if len(words) < _FEWEST_WORDS:
            raise InputError(
                f"recall exercises are made of at least {_FEWEST_WORDS} plain words (3 to 9 letters a-z) and the text has {len(words)}; "
                "give more text, or leave recall out of the mixture"
            )
        recall = RecallGenerator(encode=lambda text: encode(tokenizer, text), filler=documents.ids, words=np.array(words), eos=eos)
        found["recall"] = alone(recall.sample)
    makers: dict[str, type[QuestionGenerator | BootstrapGenerator]] = {"questions": QuestionGenerator, "bootstrap": BootstrapGenerator}
    for name, maker in makers.items():
        if name in names:
            made = maker(
                encode=lambda text: encode(tokenizer, text), decode=lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)),
                documents=documents, eos=eos,
            )  # fmt: skip
            found[name] = alone(made.sample)
    found["interleaved"] = alone(
        lambda rng, length: interleaved(rng, documents, length, mixed=_MIXED, chunk=max(1, length // (_MIXED * _CHUNK_SHARE)))
    )
    return found


def collate(rows: Sequence[Mapping[str, Array]], model: PreTrainedModel, *, apart: bool = True) -> dict[str, Any]:
    """A batch: `input_ids`, `position_ids`, `labels` [B, T] and `attention_mask`; only the first token of a document is not predicted.

    Args: apart: documents do not see each other.
    """
    ids, documents = (torch.from_numpy(np.stack([row[key] for row in rows])).long() for key in ("input_ids", "documents"))
    positions = np.stack([row["position_ids"] for row in rows])
    labels = ids.clone()
    labels[:, 1:][documents[:, 1:] != documents[:, :-1]] = UNPREDICTED
    return {
        "input_ids": ids,
        "position_ids": torch.from_numpy(positions.astype(np.int64 if positions.dtype.kind == "i" else np.float32)),
        "labels": labels,
        "attention_mask": document_mask(documents, model) if apart else torch.ones_like(documents),
    }


def document_mask(documents: Tensor, model: PreTrainedModel) -> Tensor | dict[str, Tensor]:
    """The attention mask under which each token sees those before it in its own document; [B, T] of ones where each row is one.

    It is never None: without a mask transformers takes positions that skip for several sequences in one row, and parts them.
    """
    if bool((documents == documents[:, :1]).all()):
        return torch.ones_like(documents)
    length = documents.shape[1]
    order = torch.arange(length)
    distance = order[:, None] - order
    seen = (documents[:, None, :, None] == documents[:, None, None, :]) & (distance >= 0)  # [B, 1, T, T]
    config = model.config.get_text_config()
    additive = config._attn_implementation == "eager"
    if "sliding_attention" not in (getattr(config, "layer_types", None) or ()):
        return _as_added(seen, model) if additive else seen
    masks = {"full_attention": seen, "sliding_attention": seen & (distance < config.sliding_window)}
    return {name: _as_added(mask, model) if additive else mask for name, mask in masks.items()}


def _as_added(mask: Tensor, model: PreTrainedModel) -> Tensor:
    """0 where the mask is true and the lowest number elsewhere."""
    return torch.zeros(mask.shape, dtype=model.dtype).masked_fill(~mask, torch.finfo(model.dtype).min)
