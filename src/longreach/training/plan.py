"""What a tuning run is: every setting in one place, checked before anything is loaded, and what follows from them for one model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from transformers import PreTrainedModel

from longreach.attention.base import AttentionPolicy, goes_by_text
from longreach.cache.base import CachePolicy
from longreach.cache.trained.base import AmongTexts, Condenses
from longreach.checkpoints.record import Record
from longreach.core import registry
from longreach.core.bands import PROBE
from longreach.core.errors import InputError, UnsupportedError
from longreach.core.lengths import factor_to
from longreach.core.method import Method
from longreach.core.spec import parse, unparse
from longreach.engine.rope_config import rope_of
from longreach.engine.weights import needs_weights
from longreach.engine.window import position_limit, trained_window
from longreach.positions.base import PositionsMethod, Rope, TableMethod, positions_of
from longreach.training.adapters import PARTS, check_targets
from longreach.training.examples import SOURCES
from longreach.training.samplers.base import Geometry, PositionSampler

_ALIKE = 1e-4  # relative spread of the ratios of frequencies that all are scaled alike


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """A tuning run. Recipes return one.

    Args: target: tokens to reach. method: positions method (default: yarn, or linear where the sampler needs it, with target / window),
    attention policies and caches that need training, or these alone; where policies have weights of their own, these are trained, and
    nothing else unless `full`.
    sampler: spec. seq_len: tokens of a training sequence (default: the sampler's). train_to: positions to train at (default: target).
    mixture: source -> share, see training.examples. steps, batch_size: sequences a step, accumulate: forward passes that a step is made
    of. lr: peak rate (default: 2e-4 for adapters, 2e-5 in full). warmup: share of the steps. schedule: how the rate falls. full: train
    every weight. rank, alpha, targets, parts: see training.adapters.
    """

    target: int
    method: str = ""
    sampler: str = "pose"
    seq_len: int | None = None
    train_to: int | None = None
    mixture: Mapping[str, float] = field(default_factory=lambda: {"long": 0.4, "short": 0.3, "recall": 0.3})
    steps: int = 1000
    batch_size: int = 16
    accumulate: int = 1
    lr: float | None = None
    warmup: float = 0.02
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    full: bool = False
    rank: int = 16
    alpha: int = 32
    targets: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "rank", "alpha"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1")
        if self.batch_size % self.accumulate:
            raise InputError(f"batch_size={self.batch_size} does not come apart into accumulate={self.accumulate} equal parts")
        if self.lr is not None and not 0 < self.lr < 1:
            raise InputError(f"lr={self.lr:g} must be above 0 and below 1")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"warmup={self.warmup:g} must be a share of the steps, from 0 to 1")
        if self.seed < 0:
            raise InputError(f"seed={self.seed} must be at least 0")
        if self.train_to is not None and self.train_to < self.target:
            raise InputError(f"train_to={self.train_to} is below the target of {self.target} tokens")
        if wrong := [name for name in self.mixture if name not in SOURCES]:
            raise InputError(f"unknown source {wrong[0]!r} in the mixture; known: {', '.join(SOURCES)}")
        if not self.mixture or min(self.mixture.values()) < 0 or not 0 < sum(self.mixture.values()) < float("inf"):
            raise InputError("the shares of a mixture are at least 0, and one of them above it: write long=0.5,short=0.5")
        if wrong := [part for part in self.parts if part not in PARTS]:
            raise InputError(f"cannot train {wrong[0]!r} beside the adapters; choose from {', '.join(PARTS)}")
        if self.full and (self.targets or self.parts):
            raise InputError("adapters' targets and parts have no effect in full training, which trains every weight")
        position_sampler(self.sampler)
        if self.method and trains_alone(stack := trainable(self.method)) and (self.targets or self.parts):
            raise InputError(f"{unparse(stack)} has weights of its own, and these are trained; adapters' targets and parts have no effect")

    @property
    def rate(self) -> float:
        """The peak learning rate."""
        return self.lr if self.lr is not None else 2e-5 if self.full else 2e-4


@dataclass(frozen=True, kw_only=True)
class TuningPlan:
    """What a config means for one model. Args: methods: it is trained under."""

    methods: tuple[Method, ...]
    sampler: PositionSampler
    geometry: Geometry

    @property
    def spec(self) -> str:
        """Of the methods."""
        return unparse(self.methods)


def plan(model: PreTrainedModel, config: TuneConfig) -> TuningPlan:
    """Resolve a config's defaults for a model.

    Raises: InputError for a target within the trained window, for a sampler and a method that do not go together, and for adapters' targets
    that match nothing; UnsupportedError for a model whose positions cannot be scaled.
    """
    lengthened = window_before_table(model)
    window = lengthened or trained_window(model.config)
    if config.target <= window:
        raise InputError(f"nothing to extend: {config.target} tokens are within the trained window of {window}; give a greater length")
    if getattr(model, "is_quantized", False):
        raise InputError("the model is quantized, and adapters cannot be merged into it without loss; tune the checkpoint it was made from")
    sampler = position_sampler(config.sampler)
    if lengthened is not None:
        return _plan_for_table(model, config, sampler, window)
    usual = "linear" if sampler.uniform_scaling else "yarn"
    stack = trainable(config.method or f"{usual}:factor={factor_to(config.target, window)}")
    method = positions_of(stack)
    if method is not None:
        rope = rope_of(model.config, method=method.spec)
        if sampler.uniform_scaling and not _uniform(method, rope, config.target):
            raise InputError(f"{sampler} needs a method that divides all positions alike, and {method} does not; choose linear")
    elif sampler.uniform_scaling:
        raise InputError(f"{sampler} needs a method that divides all positions alike; put linear before {config.method}")
    policies = [policy for policy in stack if isinstance(policy, AttentionPolicy | CachePolicy)]
    _check_policies(policies, sampler)
    _check_caches([policy for policy in policies if isinstance(policy, CachePolicy)], sampler, config)
    check_targets(model, config.targets)
    reach = config.train_to or config.target
    seq_len = sampler.seq_len(config.seq_len, window, reach)
    for policy in policies:
        if isinstance(policy, Condenses) and seq_len <= (every := policy.inserted(PROBE).every):
            raise InputError(f"{policy} condenses {every} tokens at a time, and a text of {seq_len} has none behind them; make it longer")
    ours = bool(policies) or (method is not None and method.needs_engine)
    if ours and seq_len > window and config.mixture.get("short"):  # documents are masked only by attention that is not ours
        raise InputError(
            f"{unparse(stack)} cannot tell texts of {window} tokens in sequences of {seq_len} apart; leave short out of the mixture"
        )
    return TuningPlan(methods=stack, sampler=sampler, geometry=Geometry(seq_len=seq_len, target=reach, trained_window=window))


def window_before_table(model: PreTrainedModel) -> int | None:
    """The trained window of a checkpoint that was saved with a longer table of learned positions; None for any other."""
    record: Record | None = vars(model).get("longreach_record")
    if record is None or not record.method or not any(isinstance(each, TableMethod) for each in parse(record.method)):
        return None
    return record.trained_window


def _plan_for_table(model: PreTrainedModel, config: TuneConfig, sampler: PositionSampler, window: int) -> TuningPlan:
    """The plan for a model whose table of positions is long enough already: all of its rows are trained, under no method."""
    if config.method:
        raise InputError(f"the table of positions was lengthened already, and is trained as it is; leave out the method {config.method}")
    reach, asked = position_limit(model) or 0, config.train_to or config.target
    if asked > reach:
        raise InputError(f"the table has {reach} positions, and {asked} are asked for; lengthen the model it was made from further")
    if sampler.uniform_scaling:
        raise InputError(f"{sampler} puts tokens at broken positions, and a table has whole ones; choose pose")
    check_targets(model, config.targets)
    return TuningPlan(
        methods=(),
        sampler=sampler,
        geometry=Geometry(seq_len=sampler.seq_len(config.seq_len, window, reach), target=reach, trained_window=window),
    )


def _check_policies(policies: Sequence[AttentionPolicy | CachePolicy], sampler: PositionSampler) -> None:
    """Raise InputError for policies that cannot tell where a sampler's tokens stand."""
    for policy in policies:
        if sampler.skips and goes_by_text(policy):
            raise InputError(f"{policy} goes by the whole text, and {sampler} leaves parts of it out; choose full_length")
        if sampler.uniform_scaling and policy.views(PROBE) is not None:
            raise InputError(f"{policy} counts whole tokens, and {sampler} puts tokens at broken positions; choose pose")


def _check_caches(policies: Sequence[CachePolicy], sampler: PositionSampler, config: TuneConfig) -> None:
    """Raise InputError for a cache policy whose text or batch is not whole."""
    for policy in policies:
        if sampler.skips:
            raise InputError(f"{policy} keeps a text as it goes on, and {sampler} leaves parts of it out; choose full_length")
        if isinstance(policy, AmongTexts):
            most = max(policy.texts_at(step / config.steps) for step in range(config.steps))
            if (rows := config.batch_size // config.accumulate) < most:
                why = f"{policy} trains {most} texts among each other, and a forward pass has {rows}"
                raise InputError(f"{why}; give a batch_size of at least {most * config.accumulate}, or fewer texts")


def under_the_first(model: PreTrainedModel, config: TuneConfig, specs: Iterable[str]) -> TuneConfig:
    """The config with the first positions method among these that the model can be tuned under; as it is where there is none."""
    for spec in specs:
        if not all(isinstance(method, PositionsMethod) for method in parse(spec)):
            continue
        try:
            tried = replace(config, method=spec)
            plan(model, tried)
        except (InputError, UnsupportedError):
            continue
        return tried
    return config


def position_sampler(spec: str) -> PositionSampler:
    """The sampler that a spec names.

    Raises: SpecError where it does not parse; InputError where it names something else, or several.
    """
    sampler = _only(spec)
    if not isinstance(sampler, PositionSampler):
        raise InputError(f"{spec} is no sampler but a method of the kind {sampler.kind!r}; choose {' or '.join(registry.names('sampler'))}")
    return sampler


def trainable(spec: str) -> tuple[Method, ...]:
    """The methods that a spec names, which a model can be trained under: for positions, attention policies that place tokens, or both, and
    cache policies that need training.

    Raises: SpecError; UnsupportedError for two positions methods; InputError for other kinds, and for what changes with the tokens seen.
    """
    stack = parse(spec)
    for method in stack:
        if not isinstance(method, PositionsMethod | AttentionPolicy) and not (
            isinstance(method, CachePolicy) and not method.info.training_free
        ):
            raise InputError(f"{spec} is a method of the kind {method.kind!r}; a model is tuned under a positions method, as yarn:factor=8")
    found = positions_of(stack)
    if found is None and not needs_weights(stack) and not any(method.info.changes_positions for method in stack):
        raise InputError(f"{spec} leaves positions as they are; put a positions method before it to tune under, as yarn:factor=8+{spec}")
    if found is not None and found.info.length_dependent:
        raise InputError(f"{found.spec} changes with the tokens seen, and a model is tuned at one setting; choose ntk, yarn or linear")
    return stack


def trains_alone(stack: Iterable[Method]) -> bool:
    """Whether methods have weights of their own, and these are all that has to be trained."""
    own = needs_weights(stack)
    return bool(own) and all(method.weights_alone for method in own)


def _only(spec: str) -> Method:
    stack = parse(spec, acts_on="training")
    if len(stack) > 1:
        raise InputError(f"{spec} names {len(stack)} methods; give one")
    return stack[0]


def _uniform(method: PositionsMethod, rope: Rope, target: int) -> bool:
    ratios = method.inv_freq(rope, target)[0] / rope.inv_freq()
    return float(ratios.max() / ratios.min()) - 1 < _ALIKE
