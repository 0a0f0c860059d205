"""Logits of a checkpoint folder by transformers alone. Run as a program, it stands for a reader that has no longreach."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

TOKENS = 64
_WHOLE = 512


def plain_logits(model: PreTrainedModel, reach: int) -> Tensor:
    """[64, V] logits of fixed ids, whose positions are spread evenly below `reach`; hidden states where there are no logits.

    Encoder-decoders, which take no positions, read as many ids as they have positions, at most 512.
    """
    text = model.config.get_text_config()
    count = min(reach, _WHOLE) if model.config.is_encoder_decoder else TOKENS
    ids = torch.randint(text.vocab_size, (1, count), generator=torch.Generator().manual_seed(0))
    # With a mask, gaps between positions are not taken for packed sequences.
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids
    else:
        inputs["position_ids"] = torch.linspace(0, reach - 1, TOKENS).long()[None]
    with torch.no_grad():
        read: Any = getattr(model, "get_text_features", model)  # where a text tower stands beside others
        out = read(**inputs)
    found: Tensor = out.logits if "logits" in out else out.last_hidden_state
    return found[0].float()


def rotary(model: PreTrainedModel) -> dict[str, Tensor]:
    """By name, what the rotary embeddings turn by as the last pass left them: `inv_freq`, and the factor on cos and sin."""
    found = {}
    for owner, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name.endswith("inv_freq") and "original" not in name:
                found[f"{owner}.{name}"] = buffer.clone()
                scaling = name.removesuffix("inv_freq") + "attention_scaling"
                found[f"{owner}.{scaling}"] = torch.tensor(float(getattr(module, scaling, 1.0)), dtype=torch.float64)
    return found


def load(folder: str | Path, **options: Any) -> PreTrainedModel:
    """The checkpoint as the class that its config names, in float32."""
    config = options.pop("config", None) or AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, (config.architectures or ["AutoModelForCausalLM"])[0])
    loaded: PreTrainedModel = kind.from_pretrained(folder, config=config, dtype=torch.float32, **options).eval()
    return loaded


def main(folder: str, out: str, *reaches: str) -> None:
    """Write to `out` (.npz) what the checkpoint in `folder` does in float32 for each reach: N/logits [64, V], N/NAME of `rotary`."""
    model, found = load(folder), {}
    for index, reach in enumerate(reaches):
        found[f"{index}/logits"] = plain_logits(model, int(reach))
        found |= {f"{index}/{name}": value for name, value in rotary(model).items()}
    arrays: dict[str, Any] = {name: value.numpy() for name, value in found.items()}
    np.savez(Path(out), **arrays)
    if "longreach" in sys.modules:
        sys.exit("longreach was imported, so this proves nothing")


if __name__ == "__main__":
    main(*sys.argv[1:])
