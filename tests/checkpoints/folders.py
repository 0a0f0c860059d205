"""Tiny checkpoints on disk, with a byte-level tokenizer."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from longreach.testing.models import tiny_model

VOCABULARY = 264  # 256 bytes, three special tokens, and some to spare
SPECIAL = ("<pad>", "<bos>", "<eos>")
TEMPLATE = "{% for message in messages %}<bos>{{ message['role'] }}: {{ message['content'] }}{% endfor %}!"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, so that characters arrive in up to four pieces."""
    alphabet = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    pad, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=pad, bos_token=bos, eos_token=eos, model_max_length=128)


def tiny(family: str = "llama", **changes) -> PreTrainedModel:
    """A tiny model whose vocabulary holds the tokenizer's."""
    return tiny_model(family, **{"vocab_size": VOCABULARY, "hidden_size": 32, **changes})


def write_folder(folder: Path, family: str = "llama", **changes) -> Path:
    """A checkpoint as any other program would have saved it."""
    tiny(family, **changes).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def edit(file: Path, **changes) -> None:
    """Change entries of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def logits(model: PreTrainedModel) -> torch.Tensor:
    """Of 40 fixed ids."""
    with torch.no_grad():
        return model(torch.arange(3, 43)[None]).logits
