"""`longreach chat`: a conversation with a model, line by line."""

import io
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longreach.cli._options import AS_IT_IS, Loading, Seed, Temperature, TopK, TopP, loads_model
from longreach.core.errors import InputError, LongreachError
from longreach.core.lengths import parse_length
from longreach.core.spec import check_spec
from longreach.decoding.sampling import Sampling

if TYPE_CHECKING:
    from longreach.conversation.answer import Answer
    from longreach.conversation.conversation import Conversation
    from longreach.core.progress import Progress

_COMMANDS = "/tokens, /save FILE, /load FILE, /quit"


@loads_model
def chat(
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
    method: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Converse under a method, as yarn:factor=8, instead of one that longreach applies to it."),
    ] = None,
    overflow: Annotated[
        str,
        typer.Option(metavar="POLICY", help="When the window is full: whole_turns, refuse, summarise, sinks or infllm."),
    ] = "whole_turns",
    window: Annotated[
        str | None,
        typer.Option(metavar="LENGTH", help="Tokens of conversation and answer. [default: what the model or the method reaches]"),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="The system prompt.")] = None,
    max_new_tokens: Annotated[
        str | None,
        typer.Option(metavar="N", help="Tokens of an answer at most; so many are kept free. [default: what is left, 256 at least]"),
    ] = None,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    loading: Loading = AS_IT_IS,
) -> None:
    """Converse with a model: each line is a message, from a pipe, too. What no longer fits is told, by turn and tokens.

    Commands: /tokens (what is in the window), /save FILE and /load FILE (the messages as JSON), /quit. Ctrl-C ends an answer.
    """
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    most = None if max_new_tokens is None else parse_length(max_new_tokens)
    size = None if window is None else parse_length(window)
    if method:
        check_spec(method)
    if system is not None and not system.strip():
        raise InputError("the system prompt is empty")
    from longreach.conversation.overflow.base import overflow_of

    policy = overflow_of(overflow)
    lines = _lines()

    from longreach.conversation.conversation import RESERVE, Conversation
    from longreach.conversation.prompt import PLAIN

    loaded = loading.load(model, apply_method=method is None)
    options: dict[str, Any] = {"method": method, "overflow": policy, "window": size, "reserve": most or RESERVE, "system": system}

    def begin(**changes: Any) -> Conversation:
        return _told(lambda: Conversation(*loaded, **{**options, **changes}))

    conversation = begin()
    if conversation.plain:
        typer.echo(f"{model} has no chat template; it is asked as {PLAIN}", err=True)

    def ask(talk: Conversation, said: str, progress: "Progress") -> "Answer":
        return talk.stream(said, sampling=sampling, max_new_tokens=most, progress=progress)

    _Session(conversation, begin, ask).run(lines)


def _told(make: "Callable[[], Conversation]") -> "Conversation":
    """What `make` gives; what it warns of is told in a line each."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        conversation = make()
    for warning in told:
        typer.echo(f"warning: {warning.message}", err=True)
    return conversation


class _Session:
    """A conversation over lines. Args: begin: makes another conversation. ask: asks the model."""

    def __init__(self, talk: "Conversation", begin: "Callable[..., Conversation]", ask: "Callable[..., Answer]") -> None:
        self.talk, self.begin, self.ask = talk, begin, ask
        self.refused = 0

    def run(self, lines: Iterator[str]) -> None:
        """Until the lines end, or one says so. Exit code 2 where they come from a pipe and one was refused."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        try:
            for line in lines:
                if line.strip() == "/quit":
                    break
                try:
                    self.take(line)
                except LongreachError as error:
                    typer.echo(f"error: {' '.join(str(error).splitlines())}", err=True)
                    self.refused += 1
        finally:
            self.talk.close()
        if self.refused and not sys.stdin.isatty():
            raise typer.Exit(2)

    def take(self, line: str) -> None:
        """Do what a line says. Raises: LongreachError."""
        if not line.strip():
            return
        if not line.startswith("/"):
            self.say(line.strip())
            return
        command, _, file = line.strip().partition(" ")
        path = Path(file.strip()).expanduser()
        if command == "/tokens" and not file:
            self.tokens()
        elif command == "/save" and file:
            from longreach.conversation.messages import save_messages

            save_messages(path, self.talk.messages)
            typer.echo(f"{len(self.talk.messages)} messages written to {path}", err=True)
        elif command == "/load" and file:
            self.load(path)
        else:
            raise InputError(
                f"unknown command {line.strip()!r}; there are {_COMMANDS} (a message that begins with / has a space before it)"
            )

    def load(self, path: Path) -> None:
        """Go on with the conversation in a file."""
        from longreach.conversation.messages import load_messages

        messages = load_messages(path)
        before = self.talk
        before.close()
        try:
            self.talk = self.begin(system=None, messages=messages)
        except LongreachError:
            self.talk = self.begin(system=None, messages=before.messages)
            raise
        typer.echo(f"{len(messages)} messages read from {path}", err=True)

    def tokens(self) -> None:
        """Print what is in the window, by turn."""
        counts, room = self.talk.counts(), self.talk.room
        for each in counts:
            where = f"turn {each.turn}, {each.role}" if each.turn else each.role
            print(f"{where}: {each.tokens}{'' if each.seen else ' (left out)'}")
        total = sum(each.tokens for each in counts if each.seen)
        if room.window is None or self.talk.policy.keeps_text:
            print(f"in the cache: {total}, of which the last one sees {self.talk.policy.sight(room, total)}", flush=True)
        else:
            print(f"in the window: {total} of {room.window}, {room.reserve} of them kept for an answer", flush=True)

    def say(self, said: str) -> None:
        """Stream an answer, and tell what it was written without."""
        from longreach.cli._progress import BarProgress

        answer, last = None, ""
        with _ctrl_c() as pressed:
            try:
                with BarProgress() as progress:
                    answer = self.ask(self.talk, said, progress)
                    _show(last := next(answer, ""))
                pressed.waits = True
                while not pressed.count and (piece := next(answer, "")):
                    _show(last := piece)
                answer.close()
            except KeyboardInterrupt:  # while the prompt was read, or the second one
                pass
            finally:
                if last and not last.endswith("\n"):
                    _show("\n")
        self.tell(answer)

    def tell(self, answer: "Answer | None") -> None:
        """On stderr: the receipt, and why an answer is not whole."""
        if answer is None or answer.empty:
            typer.echo("stopped before anything was written; the message is taken back", err=True)
            return
        reply = answer.reply
        if not reply.text:
            typer.echo("the answer is empty: the model ended it at once", err=True)
        if reply.receipt:
            typer.echo(str(reply.receipt), err=True)
        if reply.anew:
            typer.echo(f"all {reply.read} tokens were read anew: {reply.anew}", err=True)
        if reply.stopped == "limit":
            typer.echo(f"stopped after {reply.written} tokens; --max-new-tokens allows more", err=True)
        elif reply.stopped == "window":
            typer.echo(f"stopped after {reply.written} tokens: the window of {self.talk.room.window} is full", err=True)
        elif reply.stopped == "cancelled":
            typer.echo(f"stopped by you after {reply.written} tokens, which are kept", err=True)


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _lines() -> Iterator[str]:
    """The lines of a terminal, which is asked for them, or of a pipe. Raises: InputError for what is not UTF-8."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        with suppress(ImportError):  # not on every system
            import readline  # noqa: F401 - lines can be edited

        while True:
            try:
                yield input("> ")
            except EOFError:
                print()
                return
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise InputError(f"line {number} of standard input is not UTF-8 text") from None


class _CtrlC:
    """Args: count: how often it was pressed. waits: whether the first time only counts, so that an answer ends between two tokens."""

    count = 0
    waits = False

    def press(self, *args: object) -> None:
        """It was pressed. Raises: KeyboardInterrupt where that does not wait."""
        self.count += 1
        if not self.waits or self.count > 1:
            raise KeyboardInterrupt


@contextmanager
def _ctrl_c() -> Iterator[_CtrlC]:
    """Inside, Ctrl-C goes to an object. An answer that ends between two tokens leaves a cache that goes on."""
    pressed = _CtrlC()
    before = signal.signal(signal.SIGINT, pressed.press)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
