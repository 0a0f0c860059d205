"""`longreach generate`: writes on from a prompt of any length."""

import sys
import warnings
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from longreach.cli._options import AS_IT_IS, Loading, MaxNewTokens, Seed, Temperature, TopK, TopP, loads_model
from longreach.cli._output import print_pieces
from longreach.core.errors import InputError
from longreach.core.lengths import parse_length
from longreach.core.spec import check_spec
from longreach.decoding.sampling import Sampling


@loads_model
def generate(
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
    source: Annotated[str | None, typer.Argument(metavar="[-]", help="- reads the prompt from standard input.")] = None,
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="The prompt.")] = None,
    file: Annotated[Path | None, typer.Option(metavar="FILE", help="The prompt as a file, UTF-8.")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Write under a method, as yarn:factor=8, instead of one that longreach applies to the checkpoint; what its config says "
            "stays. factor=auto: as prompt and answer need it.",
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    chat: Annotated[bool, typer.Option("--chat", help="Give the prompt as a user's message, in the checkpoint's chat template.")] = False,
    chunk_size: Annotated[int | None, typer.Option(min=1, help="Tokens of the prompt read at a time. [default: 512]")] = None,
    loading: Loading = AS_IT_IS,
) -> None:
    """Write on from a prompt, as it is produced, until the model ends its text or Ctrl-C. The prompt is read whole, in chunks."""
    words = _read_prompt(source, prompt, file)
    if not words.strip():
        raise InputError("the prompt is empty")
    most = None if max_new_tokens is None else parse_length(max_new_tokens)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    if method:
        check_spec(method)

    from longreach.cli._progress import BarProgress
    from longreach.decoding.reading import CHUNK
    from longreach.decoding.writing import plan, read_prompt, write

    loaded = loading.load(model, apply_method=method is None)
    if chunk_size is not None and loaded.model.config.is_encoder_decoder:
        raise InputError(f"--chunk-size has no effect on {model}: an encoder reads its text whole")
    ids, sets = read_prompt(*loaded, words, chat=chat, method=method)
    task = plan(loaded.model, model, ids, method=method, max_new_tokens=most, sets=sets)
    for concern in task.concerns:
        typer.echo(f"warning: {concern}", err=True)
    warnings.filterwarnings("ignore", message=".* tokens are read under")  # said above, of the whole text, and once
    with BarProgress() as progress:
        size = CHUNK if chunk_size is None else chunk_size
        pieces = write(*loaded, task, sampling=sampling, chunk_size=size, progress=progress)
        first = next(pieces, "")
    print_pieces(chain([first], pieces))


def _read_prompt(source: str | None, prompt: str | None, file: Path | None) -> str:
    """The prompt, from the one place that is given."""
    if source not in (None, "-"):
        raise InputError(f"unexpected {source!r}; give a text with --prompt, a file with --file, or - for standard input")
    if sum(given is not None for given in (source, prompt, file)) != 1:
        raise InputError("give the prompt in one place: --prompt TEXT, --file FILE, or - for standard input")
    if prompt is not None:
        return prompt
    name = "standard input" if file is None else str(file)
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
