"""Logits of a checkpoint folder by transformers alone. Run as a program, it stands for a reader that has no longreach."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

TOKENS = 64
REACH = 2048  # positions are spread over so many tokens at most: beyond, float32 angles alone differ by more than the tolerance


def plain_logits(model: PreTrainedModel, target: int) -> Tensor:
    """[64, V] logits of fixed ids, whose positions are spread evenly up to `target`."""
    text = model.config.get_text_config()
    ids = torch.randint(text.vocab_size, (1, TOKENS), generator=torch.Generator().manual_seed(0))
    positions = torch.linspace(0, min(target, REACH) - 1, TOKENS).long()[None]
    with torch.no_grad():  # with a mask, gaps between positions are not taken for packed sequences
        out = model(input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False)
    return out.logits[0].float()


def main(folder: str, target: str, out: str) -> None:
    """Write the logits of the checkpoint in `folder`, loaded in float32, to the file `out` (.npy)."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    np.save(Path(out), plain_logits(model, int(target)).numpy())
    if "longreach" in sys.modules:
        sys.exit("longreach was imported, so this proves nothing")


if __name__ == "__main__":
    main(*sys.argv[1:])
