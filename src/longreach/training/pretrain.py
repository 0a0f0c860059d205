"""Pretraining of a small language model from scratch.

Optimizers: Muon (Jordan et al. 2024; `torch.optim.Muon`) for the matrices inside the layers, AdamW for embeddings and norms.
Schedule: warm-up, stable, decay (WSD; Hu et al. 2024, arXiv:2404.06395), so that a longer run can continue from the state kept
right before the decay.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from longreach.engine.contexts import HOLDER
from longreach.engine.engine import follow
from longreach.training.checkpoint import load_checkpoint, save_checkpoint

# step -> ids [B, seq_len + 1], or all that the model takes, labels included; the same step always gives the same batch
Batch = Callable[[int], Tensor | dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Args: tokens: to train on. batch_size: sequences a step. seq_len: tokens a sequence. lr: peak rate of both optimizers.
    warmup, decay: shares of the run. save_every: seconds between checkpoints. log_every: steps between rows of
    the log; every tenth has the validation. compile: use torch.compile where it works.
    """

    tokens: int
    batch_size: int = 32
    seq_len: int = 512
    lr: float = 3e-3
    weight_decay: float = 0.1
    warmup: float = 0.02
    decay: float = 0.25
    max_grad_norm: float = 1.0
    save_every: float = 120.0
    log_every: int = 20
    compile: bool = True

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return math.ceil(self.tokens / (self.batch_size * self.seq_len))

    def rate(self, step: int) -> float:
        """Learning rate at `step`, as a share of the peak."""
        warm = max(1, round(self.warmup * self.steps))
        return min(1.0, (step + 1) / warm, (self.steps - step) / self._cool(self.steps))

    @property
    def decay_start(self) -> int:
        """First step of the decay; a longer run goes on from here."""
        return self.steps - self._cool(self.steps)

    def decayed(self, step: int, steps: int) -> bool:
        """Whether a run of `steps` steps in all had begun to decay at `step`."""
        return step > steps - self._cool(steps)

    def _cool(self, steps: int) -> int:
        return max(1, round(self.decay * steps))


def pretrain(
    model: PreTrainedModel, batch: Batch, config: PretrainConfig, folder: Path, *, evaluate: Callable[[nn.Module], float],
    positions: Callable[[int], Tensor] | None = None,
) -> None:  # fmt: skip
    """Train `model` in place. State and `loss.jsonl` live in `folder`; called again after a kill, it goes on from there.

    Args: evaluate: bits per byte of held-out text. positions: step -> position ids [B, seq_len] (default: from 0 on), for ids alone.
    """
    device = next(model.parameters()).device
    optimizers = _optimizers(model, config)
    latest, stable = folder / "latest.pt", folder / "stable.pt"
    state = load_checkpoint(latest)
    if state is not None and state["steps"] != config.steps and config.decayed(state["step"], state["steps"]):
        state = load_checkpoint(stable)  # the run was lengthened: its decay must not count
    step = 0
    if state is not None:
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step = state["step"]
    forward = _compiled(model) if config.compile else model
    seconds = state["seconds"] if state is not None else 0.0
    saved_at = begun = time.monotonic()
    model.train()

    def save(path: Path) -> None:
        save_checkpoint(path, {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step,
                               "steps": config.steps, "seconds": seconds + time.monotonic() - begun})  # fmt: skip

    while step < config.steps:
        if step == config.decay_start:
            save(stable)
        rate = config.rate(step)
        loss = _loss(forward, batch(step), None if positions is None else positions(step), device)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.lr * rate
            optimizer.step()
            optimizer.zero_grad()
        follow(model)
        step += 1
        if step % config.log_every == 0 or step == config.steps:
            elapsed = seconds + time.monotonic() - begun
            row = {
                "step": step,
                "tokens": step * config.batch_size * config.seq_len,
                "loss": loss.item(),
                "lr": config.lr * rate,
                "seconds": elapsed,
            }
            if step % (config.log_every * 10) == 0 or step == config.steps:
                model.eval()
                row["valid_bits_per_byte"] = evaluate(model)
                model.train()
            _log(folder / "loss.jsonl", row, left=(config.steps - step) * elapsed / step)
        if time.monotonic() - saved_at > config.save_every:
            save(latest)
            saved_at = time.monotonic()
    save(latest)
    model.eval()


def _optimizers(model: nn.Module, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    layers = (".layers.", ".h.", ".block.")  # GPT-2 calls them h, and T5 block
    tables = {id(p) for module in model.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    matrices = [(name, p) for name, p in model.named_parameters() if p.ndim == 2 and id(p) not in tables and HOLDER not in name]
    inside = [p for name, p in matrices if any(part in name for part in layers)]
    chosen = {id(p) for p in inside}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(inside, lr=config.lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=config.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _loss(forward: Callable[..., Any], batch: Tensor | dict[str, Tensor], positions: Tensor | None, device: torch.device) -> Tensor:
    if isinstance(batch, Tensor):
        # Without a mask transformers takes positions that skip for several sequences in one row, and parts them.
        placed = {} if positions is None else {"position_ids": positions, "attention_mask": torch.ones_like(positions)}
        given, labels = {"input_ids": batch[:, :-1], **placed}, batch[:, 1:]
    else:
        given = dict(batch)
        labels = given.pop("labels")
    # A CPU without instructions for it takes ten times as long.
    fast = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with torch.autocast(device.type, torch.bfloat16, enabled=fast):
        logits = forward(**{name: value.to(device) for name, value in given.items()}, use_cache=False).logits
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.to(device).flatten())


def _compiled(model: PreTrainedModel) -> Callable[..., Any]:
    """The model, compiled where torch can: inductor needs a C++ compiler on a CPU."""
    if next(model.parameters()).device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        return model
    compiled: Callable[..., Any] = torch.compile(model)
    return compiled


def _log(path: Path, row: dict[str, Any], *, left: float) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    shown = " ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
    print(f"{shown}  left {left / 60:.1f} min", flush=True)
