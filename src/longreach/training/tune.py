"""Continued training that extends a model: transformers' Trainer over sampled positions, under a positions method.

A run lives in a folder of its own: `run.json` (what it is), `loss.jsonl` and `loss.png` (how it goes), checkpoints. Called again with the
same settings it goes on from its last whole checkpoint and ends where it would have ended.
"""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from longreach.cache.trained.base import AmongTexts
from longreach.core.errors import InputError, LongreachError
from longreach.core.files import write_text
from longreach.core.progress import SILENT, Progress
from longreach.data.documents import Ids, tokenized
from longreach.data.sources import Texts
from longreach.engine.apply import apply, runs_attention, unwrapped
from longreach.engine.engine import follow
from longreach.engine.fingerprint import fingerprint
from longreach.engine.head import LOGITS
from longreach.engine.tables import position_tables
from longreach.engine.weights import equip, needs_weights, own_weights
from longreach.training.adapters import add_adapters, merged
from longreach.training.among import Among
from longreach.training.chunked_loss import ChunkedLoss, chunked_loss
from longreach.training.examples import Examples, collate
from longreach.training.gate import Gate, held_out_windows, short_loss
from longreach.training.loss_log import LossLog
from longreach.training.plan import TuneConfig, TuningPlan, plan, trains_alone, window_before_table

SAVE_EVERY = 120.0  # seconds

Probe = Callable[[PreTrainedModel, str], Any]

_WHOLE = "whole"  # a file in a checkpoint, written last
_TOKENS = "tokens.npz"
_TRAINED = "trained.safetensors"


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Args: model: with adapters merged; no method is applied to it. resumed: the step that the run went on from (0: from the start).

    probed: what the probe found of the model `before`, `untrained` under the methods, and `after`; empty without a probe.
    """

    model: PreTrainedModel
    plan: TuningPlan
    gate: Gate
    resumed: int
    trained_parameters: int
    probed: Mapping[str, Any] = field(default_factory=dict)


def tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    config: TuneConfig,
    folder: Path,
    *,
    held_out: str,
    probe: Probe | None = None,
    save_every: float = SAVE_EVERY,
    tokens: Path | None = None,
    progress: Progress = SILENT,
) -> Tuned:
    """Train `model` in place, and measure what it lost inside its trained window.

    Args: texts: to train on. folder: of the run. held_out: text to measure on. probe: looks at the model before and after, with what is
    applied to it, and is told in words which it is; it returns JSON values. save_every: seconds between checkpoints. tokens: a file
    (`.npz`) for those of `texts`, which runs on the same texts may share (default: one in the run's folder).
    Raises: InputError for what does not fit, and where `folder` holds another run; UnsupportedError; LongreachError where the loss is no
    number.
    """
    chosen, windows, examples, facts = _prepared(model, tokenizer, texts, config, folder, held_out, tokens, progress)
    run = _open_run(folder, facts, model)
    set_seed(config.seed)
    equip(model, chosen.methods)
    _look_before(model, chosen, windows, run, folder, probe, progress)
    set_seed(config.seed)
    trained, adapted = model, False
    learning = {method.name() for method in needs_weights(chosen.methods)}
    if not config.full:
        if trains_alone(chosen.methods):
            model.requires_grad_(False)
        else:
            trained, adapted = add_adapters(model, rank=config.rank, alpha=config.alpha, targets=config.targets, parts=config.parts), True
        for name, weight in own_weights(model).items():
            weight.requires_grad_(name.split(".")[-2] in learning)
    if window_before_table(model) is not None:
        for table in position_tables(model):  # adapters leave it out, and most of its rows are new
            table.module.weight.requires_grad_(True)
    with apply(model, chosen.methods, warn=False), _restored(model):
        callbacks = [Among(method) for method in chosen.methods if isinstance(method, AmongTexts)]
        resumed = _train(
            trained, examples, config, folder, bf16=run["bf16"], save_every=save_every, progress=progress, callbacks=callbacks
        )  # fmt: skip
    count = sum(parameter.numel() for parameter in trained.parameters() if parameter.requires_grad)
    whole = (merged(trained) if adapted else trained.requires_grad_(True)).eval()
    with apply(whole, chosen.methods, warn=False):
        after = short_loss(whole, windows, progress, "loss inside the window after training")
        probed = {} if probe is None else {**run["probed"], "after": probe(whole, "after training")}
    gate = Gate(before=run["before"], untrained=run["untrained"], after=after)
    return Tuned(model=whole, plan=chosen, gate=gate, resumed=resumed, trained_parameters=count, probed=probed)


def _look_before(
    model: PreTrainedModel,
    chosen: TuningPlan,
    windows: list[Ids],
    run: dict[str, Any],
    folder: Path,
    probe: Probe | None,
    progress: Progress,
) -> None:
    """Add to the run, where it has not got it yet, what the untrained model is without its methods and under them."""
    for name, methods in (("before", ()), ("untrained", chosen.methods)):
        words = f"under {chosen.spec}, untrained" if methods else "before training"
        same = name == "untrained" and not methods  # a table of positions is trained under no method
        with apply(model, methods, warn=False):
            if run.get(name) is None:
                run[name] = run["before"] if same else short_loss(model, windows, progress, f"loss inside the window {words}")
                _write(folder / "run.json", run)
            if probe is not None and name not in run.setdefault("probed", {}):
                run["probed"][name] = run["probed"]["before"] if same else probe(model, words)
                _write(folder / "run.json", run)


def check(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Texts, config: TuneConfig, folder: Path, *, held_out: str
) -> None:
    """Refuse, before anything is trained, what `tune` would refuse. Without a method in the config, a run under any method may go on.

    Raises: as `tune`.
    """
    *_, facts = _prepared(model, tokenizer, texts, config, folder, held_out)
    if not config.method:
        del facts["method"]
    _read_run(folder, facts)


def last_step(folder: Path) -> int:
    """The step that the run in the folder would go on from."""
    last = _last_checkpoint(folder)
    return 0 if last is None else _step(last)


def method_of_run(folder: Path) -> str | None:
    """The spec that the run in the folder trains under; None where there is no run."""
    run = _read_run(folder, {})
    return None if run is None else str(run["facts"]["method"])


def _prepared(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Texts,
    config: TuneConfig,
    folder: Path,
    held_out: str,
    tokens: Path | None = None,
    progress: Progress = SILENT,
) -> tuple[TuningPlan, list[Ids], Examples, dict[str, Any]]:
    """The plan, the held-out windows, the sequences, and what makes this run the one that it is, as JSON values."""
    chosen = plan(model, config)
    _check_folder(folder)
    windows = held_out_windows(held_out, tokenizer, chosen.geometry.trained_window)
    documents = tokenized(texts, tokenizer, tokens or folder / _TOKENS, progress)
    examples = Examples(
        documents, texts.contents, tokenizer, mixture=config.mixture, sampler=chosen.sampler, geometry=chosen.geometry,
        seed=config.seed, count=config.steps * config.batch_size,
    )  # fmt: skip
    facts = {**asdict(config), "method": chosen.spec, "weights": fingerprint(model), "data": documents.key,
             "held_out": hashlib.sha256(held_out.encode()).hexdigest()[:16]}  # fmt: skip
    return chosen, windows, examples, json.loads(json.dumps(facts))


def _train(
    model: Any, examples: Examples, config: TuneConfig, folder: Path, *, bf16: bool, save_every: float, progress: Progress,
    callbacks: Sequence[TrainerCallback] = (),
) -> int:  # fmt: skip
    """Train to the last step, and return the step that this began at."""
    last = _last_checkpoint(folder)
    done = _step(last) if last is not None else 0
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch_size // config.accumulate,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.rate,
        lr_scheduler_type=config.schedule if config.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(config.warmup * config.steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        train_sampling_strategy="sequential",  # an example's number says what it holds
        bf16=bf16,
        use_cpu=next(model.parameters()).device.type == "cpu",
        logging_steps=max(1, config.steps // 200),
        save_strategy="no",  # by the clock, below
        save_total_limit=2,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
    )
    tokens = config.batch_size * examples.geometry.seq_len
    if done < config.steps:
        progress.start("tuning", (config.steps - done) * tokens)
    watch = _Watch(LossLog(folder, done), tokens, save_every, progress)
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=examples,
        data_collator=partial(collate, model=model, apart=not runs_attention(model)),
        callbacks=[watch, *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    if done < config.steps:
        if arguments.n_gpu <= 1:  # copies of the model on several devices are not taken apart
            trainer.chunked = _loss_of(model, examples, config)
        try:
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
        except torch.OutOfMemoryError as error:
            forward = f"{tokens // config.accumulate} tokens in a forward pass"
            parts = "a larger accumulate, shorter sequences" if config.accumulate < config.batch_size else "shorter sequences"
            raise LongreachError(f"the device's memory is too small to train on {forward}; use {parts} or a smaller model") from error
    elif last is not None:
        trainer._load_from_checkpoint(str(last))
    watch.log.draw()
    return done


def _loss_of(model: Any, examples: Examples, config: TuneConfig) -> ChunkedLoss | None:
    """The loss in chunks of tokens, where a forward pass has more of them than a chunk and the model comes apart; None: the model's own."""
    tokens = config.batch_size // config.accumulate * examples.geometry.seq_len
    chunk = max(1, LOGITS // unwrapped(model).config.get_text_config().vocab_size)
    return chunked_loss(unwrapped(model), model, examples[0]["input_ids"], chunk=chunk) if tokens > chunk else None


class _Trainer(Trainer):
    """Keeps in its checkpoints what is trained, and nothing else of the model. `chunked`: computes the loss, in place of the model."""

    chunked: ChunkedLoss | None = None

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        if self.chunked is None or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        with self.accelerator.autocast():  # the head is not run through `model`, which has it
            return self.chunked(model, inputs, num_items_in_batch if self.model_accepts_loss_kwargs else None)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        model: Any = self.accelerator.unwrap_model(self.model)
        weights = {name: value.detach().cpu().contiguous() for name, value in model.named_parameters() if value.requires_grad}
        save_file(weights, folder / _TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / _TRAINED)
        parameters = dict(self.accelerator.unwrap_model(model or self.model).named_parameters())
        with torch.no_grad():
            for name, value in saved.items():
                parameters[name].copy_(value)


class _Watch(TrainerCallback):
    """Logs, draws progress, saves by the clock, and marks checkpoints as whole."""

    def __init__(self, log: LossLog, tokens: int, save_every: float, progress: Progress) -> None:
        self.log, self.tokens, self.save_every, self.progress = log, tokens, save_every, progress
        self.saved_at = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        follow(model)
        self.progress.advance(self.tokens)
        if state.global_step >= state.max_steps or time.monotonic() - self.saved_at >= self.save_every:
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not loss < float("inf"):  # written so that it also catches nan
            raise LongreachError(f"the loss is {loss} at step {state.global_step}; use a smaller learning rate, or float32")
        self.log.add(step=state.global_step, tokens=state.global_step * self.tokens, loss=loss, lr=float(logs["learning_rate"]))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _WHOLE).touch()
        self.saved_at = time.monotonic()


def _last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; those that a kill cut off are deleted."""
    whole = []
    for place in folder.glob("checkpoint-*"):
        if (place / _WHOLE).is_file():
            whole.append(place)
        else:
            shutil.rmtree(place)
    return max(whole, key=_step, default=None)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _check_folder(folder: Path) -> None:
    """Raise InputError where the folder holds anything but a run."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if stray := [name for name in names if "run.json" not in names and not name.startswith((_TOKENS, "run.json"))]:
        raise InputError(f"{folder} is no tuning run (it holds {stray[0]}); choose another folder")


def _open_run(folder: Path, facts: dict[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """The run in the folder, or a new one.

    Raises: InputError where the folder holds a run of other settings.
    """
    run = _read_run(folder, facts)
    if run is None:
        run = {"facts": facts, "bf16": _bf16_is_faster(model), "before": None}
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "run.json", run)
    return run


def _read_run(folder: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """The run in the folder, if there is one. Raises: InputError where it is a run of other facts."""
    file = folder / "run.json"
    if not file.is_file():
        return None
    run: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if other := [key for key, value in facts.items() if run["facts"].get(key) != value]:
        was = ", ".join(f"{key}={run['facts'].get(key)}" for key in other)
        raise InputError(f"{folder} holds a run with other settings ({was}); give those to go on, delete it, or choose another folder")
    return run


def _write(file: Path, run: dict[str, Any]) -> None:
    write_text(file, json.dumps(run, indent=2) + "\n")


def _bf16_is_faster(model: PreTrainedModel) -> bool:
    """Whether matrices of the model's size multiply faster in bfloat16 on its device; false where it is not float32."""
    device = model.device
    if model.dtype != torch.float32:
        return False
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu":
        return False
    size = model.config.get_text_config().hidden_size
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(1024, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            left @ right
            times.append(time.perf_counter() - began)
        seconds[dtype] = min(times)
    return seconds[torch.bfloat16] < 0.8 * seconds[torch.float32]


@contextlib.contextmanager
def _restored(model: PreTrainedModel) -> Iterator[None]:
    """What the Trainer leaves behind comes back: no cache in the config, training mode, its mixed precision around `forward`."""
    cache, forward = model.config.use_cache, vars(model).get("forward")
    try:
        yield
    finally:
        model.config.use_cache = cache
        for name in ("forward", "_original_forward"):
            vars(model).pop(name, None)
        if forward is not None:
            vars(model)["forward"] = forward
        model.eval()
