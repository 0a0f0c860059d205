"""Reach: how far a bias lets a query look, by theory, and how far a model really looks, by the gradient.

Paper: Dissecting Transformer Length Extrapolation via the Lens of Receptive Field Analysis, 2022, arXiv:2212.10356
Cost: one backward pass a text; the theory needs no model.   Limits: a gradient says what a prediction hangs on, not what is understood.
Differs from the paper: the first tokens are left out (analysis/receptive_field.py); the theory is that of arXiv:2307.10156.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import longreach
from longreach.cli._options import AS_IT_IS, Loading, loads_model
from longreach.core.errors import InputError
from longreach.core.lengths import parse_length
from longreach.core.method import MethodInfo
from longreach.core.spec import check_spec, parse, unparse

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from longreach.analysis.reach import Reach
    from longreach.analysis.receptive_field import MeasuredField
    from longreach.analysis.series import Field
    from longreach.checkpoints.checkpoint import Checkpoint
    from longreach.core.bands import LayerContext
    from longreach.core.method import Method
    from longreach.evaluation.text import Ids

INFO = MethodInfo(title="Dissecting Transformer Length Extrapolation via the Lens of Receptive Field Analysis", paper="arXiv:2212.10356")

_HEADS = 8
_SAMPLES = 8
_LONGEST = 4096  # tokens, where no length is given: all of them need gradients at once


@loads_model
def reach(
    of: Annotated[str | None, typer.Option(metavar="SPEC", help="A method with a bias or a window, as rpe_family:series=type1.")] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Measure a model, too, plain and under SPEC.")] = None,
    epsilon: Annotated[float, typer.Option(help="The share that may lie beyond a receptive field, 0 to 1.")] = 0.01,
    num_heads: Annotated[int | None, typer.Option(min=1, help="Heads of a layer, without a model. [default: 8]")] = None,
    length: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Tokens the model reads. [default: the trained window, 4096 at most]")
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Real text, UTF-8; may be repeated. [default: this Python's documentation and held-out source]"),
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Texts the model reads. [default: 8]")] = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Say whether the weights of a bias have a finite sum (then a model trained with it extrapolates) and within how many tokens they lie;
    for a model, measure by the gradient how many of the last tokens its predictions hang on.
    """
    given = {"--length": length, "--text": text, "--samples": samples}
    of_model = [*(name for name, value in given.items() if value is not None), *loading.given()]
    _check(of, model, epsilon, num_heads, of_model)
    tokens = None if length is None else parse_length(length)
    if of:
        check_spec(of)
    if model is None:
        stack = parse(of or "")
        print(_theory(_need(stack, _context(None, num_heads or _HEADS), epsilon), as_json))
        return
    from longreach.analysis.reach import reach_of
    from longreach.engine.weights import check_weights
    from longreach.evaluation.text import read_texts

    words = read_texts(text) if text else None
    loaded = loading.load(model)
    context = _context(loaded.model, _HEADS)
    tokens = tokens or min(context.trained_window, _LONGEST)
    stack = parse(of, trained_window=context.trained_window, target=tokens) if of else ()
    check_weights(stack, loaded.model, [context])
    theory = reach_of(stack, context, epsilon) if stack else None
    texts = _texts(loaded, tokens, words, samples or _SAMPLES)
    found = _measured(loaded.model, stack, texts, epsilon, max(1, theory.sinks if theory else 0))
    _report(theory, found, loading.name(model), unparse(stack), epsilon, as_json)


def _check(of: str | None, model: str | None, epsilon: float, num_heads: int | None, of_model: Sequence[str]) -> None:
    """Refuse what has no effect or is out of range.

    Raises: InputError.
    """
    if of is None and model is None:
        raise InputError("nothing to look at; give a method with --of SPEC, a model with --model MODEL, or both")
    if not 0 < epsilon < 1:
        raise InputError(f"--epsilon {epsilon:g} must be between 0 and 1")
    if model is None and of_model:
        raise InputError(f"{of_model[0]} has no effect without --model")
    if model is not None and num_heads is not None:
        raise InputError("--num-heads has no effect with --model, which has its own")


def _need(stack: "Sequence[Method]", context: "LayerContext", epsilon: float) -> "Reach":
    """The reach of a stack.

    Raises: InputError where it has none.
    """
    from longreach.analysis.reach import reach_of
    from longreach.engine.weights import needs_weights

    if learned := needs_weights(stack):
        raise InputError(f"{learned[0].spec} learns its bias; give --model MODEL, one that was trained with it")
    found = reach_of(stack, context, epsilon)
    if found is None:
        raise InputError(f"{_none(unparse(stack))}; give --model MODEL to measure how far a model looks under it")
    return found


def _none(spec: str) -> str:
    return f"{spec} neither biases logits by the distance nor limits what is seen, so it has no theoretical receptive field"


def _context(model: "PreTrainedModel | None", num_heads: int) -> "LayerContext":
    """What a method is told of the first layer with full attention."""
    from longreach.core.bands import LayerContext
    from longreach.core.errors import UnsupportedError
    from longreach.engine.contexts import contexts
    from longreach.engine.examine import examine
    from longreach.engine.window import window_of

    if model is not None:
        try:
            trained = window_of(model)
            return next(context for context in contexts(model, examine(model, trained), trained) if context.first)
        except UnsupportedError:  # its gradients can be measured all the same
            config: Any = model.config.get_text_config()
            num_heads = getattr(config, "num_attention_heads", num_heads)
    return LayerContext(
        layer_idx=0, num_layers=1, num_heads=num_heads, num_kv_heads=num_heads, head_dim=64, hidden_size=64 * num_heads,
        trained_window=512 if model is None else window_of(model), first=True,
    )  # fmt: skip


def _texts(loaded: "Checkpoint", length: int, text: str | None, samples: int) -> "list[Ids]":
    """Texts of `length` tokens to read and one to predict."""
    import numpy as np

    from longreach.data.stdlib import stdlib_text
    from longreach.decoding.encoder import Encoder
    from longreach.evaluation.text import cut_windows

    encoder = Encoder(loaded.tokenizer)
    prefix = np.array(encoder.prefix, dtype=np.int32)
    if length <= len(prefix):
        raise InputError(f"--length {length}: too short to hold a token of text")
    windows = cut_windows(encoder, text or stdlib_text("held-out"), length + 1 - len(prefix), samples)
    return [np.concatenate([prefix, window]) for window in windows]


def _measured(
    model: "PreTrainedModel", stack: "Sequence[Method]", texts: "Sequence[Ids]", epsilon: float, left_out: int
) -> "dict[str, MeasuredField]":
    """The measured field of the plain model, and under a stack; by its spec, "" for the plain one."""
    from longreach.analysis.receptive_field import measure_field
    from longreach.cli._progress import BarProgress
    from longreach.engine.window import cannot_read, position_limit

    found, length = {}, len(texts[0]) - 1
    with BarProgress() as progress:
        for spec in dict.fromkeys(("", unparse(stack))):
            with longreach.apply(model, spec):
                if (limit := position_limit(model)) is not None and length > limit:
                    raise InputError(f"the model {cannot_read(limit)}; give --length {limit} at most")
                progress.start(f"gradients under {spec}" if spec else "gradients", length * len(texts))
                found[spec] = measure_field(model, texts, epsilon, left_out=left_out, progress=progress)
    return found


def _theory(reach: "Reach", as_json: bool) -> str:
    return json.dumps(_as_json(reach), allow_nan=False) if as_json else _sentences(reach)


def _as_json(reach: "Reach | None") -> dict[str, Any] | None:
    """Infinite fields are null: their heads do not converge."""
    if reach is None:
        return None
    heads = [{**asdict(head), "tokens": None if head.tokens == math.inf else head.tokens} for head in reach.heads]
    return {**asdict(reach), "heads": heads}


def _sentences(reach: "Reach") -> str:
    """The reach in words, and by head where heads differ."""
    lines = [f"{reach.spec}, one layer"]
    share = f"{100 * (1 - reach.epsilon):g} %"
    if reach.window is not None:
        sinks = f", and the first {reach.sinks} at any distance" if reach.sinks else ""
        lines.append(f"Window: the nearest {reach.window} tokens are seen, the query's own included{sinks}; all others never.")
    if reach.heads and len(set(reach.heads)) == 1:
        lines += [f"{_verdict(reach.heads[0])}.", f"Theoretical receptive field: {_tokens(reach.heads[0])} for {share} of the weights."]
    elif reach.heads:
        count = sum(head.converges is True for head in reach.heads)
        lines.append(f"Converges in {count} of {len(reach.heads)} heads; there the sum of all weights is finite.")
        lines += [f"  head {number:>3}  {_words(head)}" for number, head in enumerate(reach.heads)]
        ordered = sorted(reach.heads, key=lambda head: math.inf if head.tokens is None else head.tokens)
        few, half, most = (_tokens(ordered[place]) for place in (0, (len(ordered) - 1) // 2, -1))
        lines.append(f"Theoretical receptive field for {share} of the weights: least {few}, median {half}, most {most}.")
    return "\n".join(lines)


def _words(head: "Field") -> str:
    verdict = {True: "converges", False: "diverges", None: "undecided"}[head.converges]
    return f"{verdict}: {_tokens(head)}"


def _verdict(head: "Field") -> str:
    if head.converges is None:
        return "Undecided: the tests cannot tell whether the sum of all weights is finite"
    if head.converges:
        return "Converges: the sum of all weights is finite, which suffices for extrapolation"
    return "Diverges: the sum of all weights grows without end"


def _tokens(head: "Field") -> str:
    if head.tokens == math.inf:
        return "without end"
    if head.tokens is None:
        return "not known" if head.converges is None else "more than 2^52 tokens"
    return f"{'' if head.exact else 'about '}{head.tokens:,.0f} tokens"


def _report(theory: "Reach | None", found: "dict[str, MeasuredField]", name: str, spec: str, epsilon: float, as_json: bool) -> None:
    from longreach.evaluation.intervals import mean_interval

    if as_json:
        measured = [{"method": of, "tokens": each.tokens, "each": each.each, "first": each.first} for of, each in found.items()]
        plain = found[""]
        common = {"model": name, "epsilon": epsilon, "length": plain.length, "left_out": plain.left_out}
        print(json.dumps({"theory": _as_json(theory), **common, "measured": measured}, allow_nan=False))
        return
    if theory is not None:
        print(f"{_sentences(theory)}\n")
    elif spec:
        print(f"{_none(spec)}.\n")
    first = found[""]
    left_out = "the first token" if first.left_out == 1 else f"the first {first.left_out} tokens"
    print(f"{name}, {first.length} tokens read, {len(first.each)} texts, {left_out} left out")
    for of, each in found.items():
        interval = mean_interval(each.each)
        half = interval.high - interval.mean
        alone = f"each text by itself: {interval.mean:.0f} ± {half:.0f}; " if math.isfinite(half) else ""
        under = f" under {of}" if of else ""
        nearest = f"the nearest {each.tokens} tokens hold {100 * (1 - epsilon):g} % of the gradient"
        print(f"Measured receptive field{under}: {nearest} ({alone}{left_out}: {100 * each.first:.0f} % of all).")
