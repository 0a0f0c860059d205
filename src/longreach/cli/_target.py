"""What `tune` measures at the length that it trains for: a few texts, before and after, where that does not take long."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from longreach.core.errors import InputError, LongreachError
from longreach.core.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from longreach.checkpoints.checkpoint import Checkpoint
    from longreach.evaluation.intervals import Interval
    from longreach.training.plan import TuneConfig, TuningPlan

_TEXTS = (4, 2)  # the most that there is time and room for
_SHARE = 0.1  # of the training's time that measuring may take
_QUICK = 10**12  # operations that take some ten seconds on a slow machine
_LOOKS = 3  # before training, under the methods untrained, and after


@dataclass(frozen=True)
class TargetLoss:
    """Measures the loss of the last tokens before the target, and of the same tokens read inside the window, as `longreach measure` does.

    Args: text: held out. texts: windows of it to read. window: trained on, in tokens.
    """

    tokenizer: "PreTrainedTokenizerBase"
    target: int
    window: int
    text: str
    texts: int
    progress: Progress

    def __call__(self, model: "PreTrainedModel", words: str) -> dict[str, Any]:
        """Both losses of each text in nats a token, or why there are none. Args: words: which model it is."""
        from longreach.evaluation.measure import measure, parse_tasks
        from longreach.evaluation.usable import INSIDE, LOSS

        tasks = parse_tasks(f"{LOSS}+{INSIDE}:window_size={self.window}")
        self.progress.start(f"loss at {self.target} tokens {words}", 2 * self.texts * self.target)
        try:
            rows = measure(
                model, self.tokenizer, name="tuned", to=self.target, text=self.text, windows=self.texts,
                tasks=tasks, trained_window=self.window, progress=_Within(self.progress),
            )  # fmt: skip
        except LongreachError as error:  # the training matters more
            return {"failed": str(error).partition(";")[0]}  # what to do about it is for who measures alone
        last = [row for row in rows if row.length == self.target]
        losses = [row.score for row in last if row.task == LOSS]
        return {"start": last[0].settings["start"], "losses": losses, "inside": [row.score for row in last if row.task != LOSS]}


class _Within(Progress):
    """Advances the work that is under way, whatever its parts are called."""

    def __init__(self, whole: Progress) -> None:
        self.whole = whole

    def advance(self, tokens: int) -> None:
        """So many tokens more are done."""
        self.whole.advance(tokens)


def planned(loaded: "Checkpoint", plan: "TuningPlan", config: "TuneConfig", text: str, progress: Progress) -> TargetLoss | str:
    """What measures the target, or why it is not measured. Args: text: held out."""
    from longreach.decoding.encoder import Encoder
    from longreach.evaluation.text import cut_windows

    window, encoder = plan.geometry.trained_window, Encoder(loaded.tokenizer)
    quick = [texts for texts in _TEXTS if _is_quick(loaded.model, plan, config, texts)]
    if not quick:
        return "it would take more than a tenth of the training's time"
    try:
        room = len(cut_windows(encoder, text, config.target - len(encoder.prefix), least=_TEXTS[-1]))
    except InputError:
        return f"the held-out text has no room for {_TEXTS[-1]} texts of {config.target} tokens"
    return TargetLoss(loaded.tokenizer, config.target, window, text, min(room, quick[0]), progress)


def _is_quick(model: "PreTrainedModel", plan: "TuningPlan", config: "TuneConfig", texts: int) -> bool:
    """Whether measuring so many texts takes little time, also beside the training."""
    shape = model.config.get_text_config()
    parameters = sum(parameter.numel() for parameter in model.parameters())

    def reading(tokens: int, at_once: int) -> int:
        """Operations for a forward pass: two for each parameter, and attention to half of what is read at once."""
        return 2 * tokens * (parameters + shape.num_hidden_layers * shape.hidden_size * at_once)

    target, window, seq_len = config.target, plan.geometry.trained_window, plan.geometry.seq_len
    measuring = _LOOKS * texts * (reading(target, target) + reading(2 * target, window))
    training = 3 * reading(config.steps * config.batch_size * seq_len, seq_len)  # its backward pass costs two forward ones
    return measuring <= max(_QUICK, _SHARE * training)


def result(target: TargetLoss, probed: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured, for programs. Args: probed: what the target's loss was found to be, by when."""
    from longreach.evaluation.intervals import mean_interval

    found: dict[str, Any] = {"length": target.target, "texts": target.texts}
    for name, look in probed.items():
        found[name] = look
        if "failed" not in look:
            rises = [loss - inside for loss, inside in zip(look["losses"], look["inside"], strict=True)]
            found[name] = {"loss": fmean(look["losses"]), "over_inside": mean_interval(rises)._asdict()}
            found["start"] = look["start"]
    untrained, after = probed["untrained"], probed["after"]
    if "failed" not in untrained and "failed" not in after:
        gains = [one - other for one, other in zip(untrained["losses"], after["losses"], strict=True)]
        found["gained"] = mean_interval(gains)._asdict()
    return found


def words(found: Mapping[str, Any], method: str) -> list[str]:
    """The sentences that say it to people. Args: found: as `result` has it. method: that the model was trained under, if any."""
    from longreach.evaluation.intervals import Interval

    if failed := found["after"].get("failed"):
        return [f"The loss at {found['length']} tokens was not measured: {failed}."]
    looks = {"before": "before", "untrained": f"under {method} untrained", "after": "after training"}
    losses = [
        f"not known {when} ({found[name]['failed']})" if "failed" in found[name] else f"{found[name]['loss']:.3f} {when}"
        for name, when in looks.items()
        if method or name != "untrained"
    ]
    gained = f", which {_gain(Interval(**found['gained']), found['texts'])}" if "gained" in found else ""
    standard = [
        f"{_above(Interval(**found[name]['over_inside']))} {when}"
        for name, when in (("after", "after training"), ("before", "before"))
        if "failed" not in found[name]
    ]
    tokens = f"tokens {found['start'] + 1} to {found['length']} of {found['texts']} texts"
    return [
        f"Loss at {tokens}, in nats a token: {', '.join(losses)}{gained}.",
        f"Beside the loss of the same tokens read inside the window, it is {', '.join(standard)}.",
    ]


def _gain(gained: "Interval", texts: int) -> str:
    half = gained.high - gained.mean
    if gained.low <= 0 <= gained.high:
        return f"changed it by {-gained.mean:+.3f} ± {half:.3f}: {texts} texts cannot tell that from nothing"
    return f"{'gained' if gained.mean > 0 else 'lost'} {abs(gained.mean):.3f} ± {half:.3f}"


def _above(rise: "Interval") -> str:
    return f"{abs(rise.mean):.3f} ± {rise.high - rise.mean:.3f} {'higher' if rise.mean >= 0 else 'lower'}"
