"""Tiny tokenizers of the kinds that people meet, text, and a model that copies what it has read."""

from functools import cache
from types import SimpleNamespace
from weakref import WeakKeyDictionary

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import LlamaConfig, PreTrainedTokenizerFast

from longreach.data.stdlib import stdlib_text
from longreach.evaluation.tasks.retrieval._noise import NOISE
from longreach.evaluation.tasks.retrieval.passkey import _HEAD

STYLES = ("digits", "plain", "groups", "metaspace")
VOCABULARY = 700
_BOS = "<s>"


@cache
def real_text() -> str:
    """The first 300,000 characters of the held-out text."""
    return stdlib_text("held-out")[:300_000]


@cache
def tokenizer(style: str = "digits") -> PreTrainedTokenizerFast:
    """digits: each digit a token, as nano's. plain: numbers merge with the space before them, no BOS, as GPT-2's. groups: up to three
    digits a token, as Llama 3's. metaspace: a space before the first word, newlines as bytes, as Llama 2's.
    """
    bpe = Tokenizer(models.BPE(byte_fallback=style == "metaspace", unk_token="<unk>" if style == "metaspace" else None))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = [_BOS, "<unk>"]
    bpe.decoder = decoders.ByteLevel()
    if style == "digits":
        bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    elif style == "plain":
        bpe.pre_tokenizer = byte_level
    elif style == "groups":
        split = pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
        bpe.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Digits(individual_digits=True)]
        )
        bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = ["▁"]
    numbers = " ".join(str(i * 7919 % 100_000) for i in range(3000))
    texts = [real_text()[:40_000], *[_HEAD, NOISE] * 50, numbers]
    if style == "metaspace":  # newlines stay bytes
        texts = [line for text in texts for line in text.splitlines()]
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    )
    if style != "plain":
        bpe.post_processor = processors.TemplateProcessing(single=f"{_BOS} $A", pair=f"{_BOS} $A {_BOS} $B", special_tokens=[(_BOS, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=_BOS, model_max_length=512, clean_up_tokenization_spaces=False)


class Copier(nn.Module):
    """Predicts what followed the longest match of the last tokens (up to 8) among the last `window` tokens; reads `reads` tokens in all."""

    def __init__(self, window: int | None = None, trained_window: int = 512) -> None:
        super().__init__()
        self.config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=trained_window
        )
        self.window, self.reads = window, 0
        self.weight = nn.Parameter(torch.zeros(1))
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self._seen: WeakKeyDictionary[object, list[list[int]]] = WeakKeyDictionary()
        self.eval()

    def forward(self, ids, past_key_values, use_cache, logits_to_keep):
        self.reads += ids.numel()
        seen = self._seen.setdefault(past_key_values, [[] for _ in ids])
        logits = torch.zeros(len(ids), 1, VOCABULARY)
        for row, (before, new) in enumerate(zip(seen, ids.tolist(), strict=True)):
            before += new
            visible = before[-self.window :] if self.window else before
            if (following := _after_longest_match(visible)) is not None:
                logits[row, 0, following] = 10.0
        return SimpleNamespace(logits=logits)


def _after_longest_match(tokens: list[int], most: int = 8) -> int | None:
    best, following = 0, None
    for end in range(1, len(tokens)):
        length = 0
        while length < min(most, end) and tokens[end - 1 - length] == tokens[-1 - length]:
            length += 1
        if length > best:
            best, following = length, tokens[end]
    return following
