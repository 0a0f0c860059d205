"""Context length probing: what every earlier token adds to a prediction, on a page where one chooses a word.

Paper: Black-box language model explanation by context length probing, 2023, arXiv:2212.14815
Cost: a window of context read from every token of the text on.   Limits: importance is counted from the near to the far, token by token.
Differs from the paper: special tokens that stand before a text (BOS) stand before every window, and are the context of length 0.
"""

import json
import math
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longreach.cli._options import AS_IT_IS, ChunkSize, Loading, loads_model
from longreach.cli._places import check_texts
from longreach.core.errors import InputError
from longreach.core.lengths import parse_length
from longreach.core.method import MethodInfo
from longreach.core.spec import check_spec

if TYPE_CHECKING:
    from longreach.analysis.context_probe import ContextProbe

INFO = MethodInfo(title="Black-box language model explanation by context length probing", paper="arXiv:2212.14815")

_TOKENS, _CONTEXT = 256, 128


@loads_model
def context_probe(
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
    text: Annotated[Path | None, typer.Option(metavar="FILE", help="Real text, UTF-8. [default: from this Python's documentation]")] = None,
    tokens: Annotated[str, typer.Option(metavar="LENGTH", help="Of the text's beginning.")] = str(_TOKENS),
    context: Annotated[str, typer.Option(metavar="LENGTH", help="The longest context.")] = str(_CONTEXT),
    method: Annotated[str, typer.Option(metavar="SPEC", help="Under a method, as yarn:factor=8.")] = "",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = Path("longreach-results/context-probe.html"),
    chunk_size: ChunkSize = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs, and write no page.")] = False,
) -> None:
    """Find what every earlier token adds to the prediction of each token, and write a page where one chooses a word to see it."""
    count, longest = parse_length(tokens), parse_length(context)
    if method:
        check_spec(method)
    check_texts([text] if text else None)

    import torch

    from longreach.analysis.context_probe import probe_contexts
    from longreach.cli._progress import BarProgress
    from longreach.core.files import write_text
    from longreach.data.stdlib import stdlib_text
    from longreach.decoding.encoder import Encoder
    from longreach.decoding.reading import CHUNK
    from longreach.engine.apply import apply
    from longreach.evaluation.text import read_texts
    from longreach.reports.probe_page import probe_page

    words = read_texts([text]) if text else stdlib_text("held-out")
    name, loaded = loading.name(model), loading.load(model, decoder_only=True)
    encoder = Encoder(loaded.tokenizer)
    ids = encoder.first_tokens(words, count)
    if len(ids) < 2:
        raise InputError("the text has fewer than two tokens, so that nothing is predicted")
    with apply(loaded.model, method, warn=False), BarProgress() as progress, warnings.catch_warnings():
        warnings.showwarning = lambda message, *place, **more: typer.echo(f"warning: {message}", err=True)
        found = probe_contexts(
            loaded.model, torch.tensor(ids), longest=longest, prefix=encoder.prefix, chunk_size=chunk_size or CHUNK, progress=progress
        )
    if as_json:
        print(json.dumps({"model": name, "method": method, "tokens": _pieces(loaded.tokenizer, ids), **_as_json(found)}, allow_nan=False))
        return
    given = [part for option, value in (("--text", text), ("--method", method)) if value for part in (option, str(value))]
    again = shlex.join(["longreach", "context-probe", model, "--tokens", tokens, "--context", context, *given])
    page = probe_page(found, _pieces(loaded.tokenizer, ids), title=f"What {name} looks back at", model=name, method=method, command=again)
    write_text(out, page)
    means = found.mean_losses
    first = next(length for length, mean in enumerate(means) if not math.isnan(mean))
    typer.echo(f"Loss after {first} tokens of context: {means[first]:.3f} nats a token; after {len(means) - 1}: {means[-1]:.3f}")
    typer.echo(f"Page: {out}")


def _pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    """The text of each token; what several tokens spell together stands at the last of them."""
    found: list[str] = []
    whole = ""
    for end in range(1, len(ids) + 1):
        text = str(tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False))
        text = text.rstrip("\ufffd")
        found.append(text[len(whole) :])
        whole = text
    return found


def _as_json(found: "ContextProbe") -> dict[str, Any]:
    """Token by token, what is known of each context length."""
    return {
        name: [[None if math.isnan(value) else round(float(value), 6) for value in row] for row in values.T]
        for name, values in (("losses", found.losses), ("divergences", found.divergences), ("importances", found.importances))
    }
