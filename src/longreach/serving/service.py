"""What a server is made of: a model with its profiles, a scheduler, files and limits; and how a request becomes a job."""

import copy
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from transformers import PreTrainedTokenizerBase

from longreach.conversation.messages import Turn, split
from longreach.conversation.overflow.base import Excerpt, Room, Talk
from longreach.conversation.prompt import Prompts, summary_request
from longreach.conversation.reply import Omitted, Receipt
from longreach.core.errors import InputError
from longreach.core.progress import Progress
from longreach.endpoint.base import ChatModel
from longreach.serving.asks import REFUSE, ChatAsk, ClientAsk, CompletionAsk
from longreach.serving.errors import too_long, wrong
from longreach.serving.files import AttachedDocument, FileStore
from longreach.serving.job import Job, JobEvent, ThinkingBudget
from longreach.serving.metrics import Metrics
from longreach.serving.parts import opening_document, whole_messages
from longreach.serving.profiles import Profile, Profiles
from longreach.serving.scheduler import Scheduler
from longreach.serving.shelved import ServedLibrary, ShelvedDocument, prompt_of_document
from longreach.serving.waiting import run_job

T = TypeVar("T")
RESERVE = 256  # tokens that a window has to leave for an answer where nobody says how long it may get
LONGEST = 1024  # tokens of an answer where nobody says


class ReadDocument(Protocol):
    """A workflow that answers a question from documents that are longer than the window."""

    def __call__(
        self, chat_model: ChatModel, documents: Sequence[AttachedDocument], question: str, spec: str, most: int | None, progress: Progress
    ) -> tuple[str, dict[str, Any]]:
        """(answer, ledger: what was read and what was not, as JSON). Args: most: tokens of the answer; None: not said.

        Raises: LongreachError; InputError for a spec that does not parse.
        """


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of a server. Args: body: bytes of a request. seconds: that a request may take; None: any. grace: seconds for what is under way when
    the server closes.
    """

    body: int = 32 << 20
    seconds: float | None = None
    grace: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A request that fits.

    Args: receipt: what was left out of a chat; None for a completion. stops: also those of the plain template. document: of a library,
    that the prompt begins with.
    """

    ids: tuple[int, ...]
    profile: Profile
    most: int
    stops: tuple[str, ...]
    strips: bool = False
    receipt: Receipt | None = None
    thinking: ThinkingBudget | None = None
    document: ShelvedDocument | None = None


@dataclass(kw_only=True)
class Service:
    """A model that is served.

    Args: name: that clients call it by. keys: of which a request has to have one; none: everybody may ask. card: of the model, as JSON.
    read_document: workflow for documents that do not fit; None: the server has none.
    """

    name: str
    profiles: Profiles
    tokenizer: PreTrainedTokenizerBase
    scheduler: Scheduler
    files: FileStore
    limits: Limits = field(default_factory=Limits)
    keys: tuple[str, ...] = ()
    card: dict[str, Any] | None = None
    read_document: ReadDocument | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    _encoding: AbstractContextManager[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Find out whether threads may share the tokenizer: one of the tokenizers library changes only with how it is asked."""
        self._encoding = threading.Lock()
        self.encoded("a", special=True)
        if self.tokenizer.is_fast:
            self._encoding = nullcontext()

    @property
    def metrics(self) -> Metrics:
        """What is counted."""
        return self.scheduler.metrics

    def job(self, prepared: Prepared, ask: ClientAsk, sink: Callable[[JobEvent], None]) -> Job:
        """A prepared request as the scheduler takes it."""
        seconds, document = self.limits.seconds, prepared.document
        return Job(
            ids=prepared.ids, profile=prepared.profile, most=prepared.most, sink=sink, least=ask.least, sampling=ask.sampling,
            stops=prepared.stops, strips=prepared.strips, choices=ask.choices, logprobs=ask.logprobs,
            thinking=prepared.thinking,
            deadline=None if seconds is None else time.monotonic() + seconds,
            begun=None if document is None else document.taken, whole=None if document is None else document.length,
        )  # fmt: skip

    def count(self, text: str, *, special: bool = False) -> int:
        """Tokens of a text. Args: special: with those that mark its beginning or end."""
        return len(self.encoded(text, special=special))

    def encoded(self, text: str, *, special: bool) -> list[int]:
        """The ids of a text, whole however long it is."""
        with self._encoding:
            ids: list[int] = self.tokenizer(text, add_special_tokens=special, truncation=False, verbose=False)["input_ids"]
        return ids

    def decoded(self, token: int) -> str:
        """A token as text, special ones, too."""
        return str(self.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def prepare_completion(self, ask: CompletionAsk) -> Prepared:
        """Fit a completion into a window. Raises: ApiError."""
        ids = list(ask.prompt) if isinstance(ask.prompt, tuple) else self.encoded(ask.prompt, special=True)
        self.check_ids(ids)
        profile, most = self._room(len(ids), ask.most, "prompt")
        return Prepared(ids=tuple(ids), profile=profile, most=most, stops=ask.stops)

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raise ApiError for ids that the model does not have."""
        size = self.profiles.widest.model.config.get_text_config().vocab_size
        if not ids:
            raise wrong("prompt", "prompt has no tokens")
        if max(ids) >= size:
            raise wrong("prompt", f"prompt has a token id beyond the {size} of the model")

    def prepare_chat(self, ask: ChatAsk) -> Prepared:
        """Fit a chat into a window, by its overflow policy where it is too long. Raises: ApiError."""
        prompts = self.prompts(ask.tools)
        messages, document = whole_messages(ask.messages), opening_document(ask.messages)
        with self._encoding:
            ids = self._chat_ids(prompts, messages, ask.goes_on, document)
        receipt = Receipt(policy=ask.overflow.spec)
        if document is None and not self._fits(len(ids), ask.most):
            excerpt = self._excerpt(ask, prompts, messages, len(ids))
            receipt = excerpt.receipt
            with self._encoding:
                ids = self._chat_ids(prompts, excerpt.messages, ask.goes_on)
        profile, most = self._room(len(ids), ask.most, "messages", document)
        stops = (*ask.stops, *prompts.stops)
        strips = prompts.plain and not ask.goes_on
        thinking = None if ask.thinking is None else self._thinking(ask.thinking, ids)
        return Prepared(
            ids=tuple(ids), profile=profile, most=most, stops=stops, strips=strips, receipt=receipt, thinking=thinking,
            document=document,
        )  # fmt: skip

    def prompts(self, tools: Sequence[dict[str, Any]] = ()) -> Prompts:
        """What makes prompts of messages. Raises: ApiError for tools that the template cannot offer."""
        try:
            return Prompts(self.tokenizer, list(tools))
        except InputError as error:
            raise wrong("tools", f"tools: {error}") from None

    def _thinking(self, tokens: int, ids: Sequence[int]) -> ThinkingBudget:
        """A budget for thoughts behind a prompt. Raises: ApiError for a model without marks around them."""
        begin, end = (self._mark(mark) for mark in ("<think>", "</think>"))
        if end is None:
            raise wrong("longreach.thinking_budget", "longreach.thinking_budget: this model has no token </think> that ends thoughts")
        last = next((each for each in reversed(ids) if each in (begin, end)), None)
        return ThinkingBudget(tokens=tokens, begin=begin, end=end, begun=last is not None and last == begin)

    def _mark(self, mark: str) -> int | None:
        """The id of a mark that is one token; None where it is none."""
        ids = self.encoded(mark, special=False)
        return ids[0] if len(ids) == 1 else None

    def fits(self, ask: ChatAsk) -> bool:
        """Whether a chat fits as it is. Raises: ApiError for one that the template refuses."""
        prompts = self.prompts(ask.tools)
        with self._encoding:
            return self._fits(len(self._chat_ids(prompts, whole_messages(ask.messages), ask.goes_on)), ask.most)

    def _chat_ids(
        self, prompts: Prompts, messages: list[dict[str, Any]], goes_on: bool, document: ShelvedDocument | None = None
    ) -> list[int]:
        try:
            text = prompts.text(messages[:-1]) + str(messages[-1]["content"] or "") if goes_on else prompts.text(messages)
            if document is not None:
                return prompt_of_document(document, text, self.tokenizer)
        except InputError as error:
            raise wrong("messages", f"messages: {error}") from None
        ids: list[int] = self.tokenizer(text, add_special_tokens=prompts.plain, truncation=False, verbose=False)["input_ids"]
        return ids

    def _fits(self, prompt: int, most: int | None) -> bool:
        return self.profiles.smallest(prompt + (1 if most is None else most)) is not None

    def _room(self, prompt: int, most: int | None, what: str, document: ShelvedDocument | None = None) -> tuple[Profile, int]:
        """The smallest profile that covers a prompt and its answer, and the tokens that the answer may have. Raises: ApiError.

        A document of a library is gone on from under the profile that has read it.
        """
        if document is not None:
            profile: Profile | None = document.profile if document.profile.covers(prompt + (most or 1)) else None
        else:
            profile = self.profiles.smallest(prompt + (most or RESERVE))
            if profile is None and most is None:
                profile = self.profiles.smallest(prompt + 1)
        if profile is None:
            raise too_long(self.profiles.window if document is None else document.profile.window, prompt, most or 1, what)
        left = LONGEST if profile.window is None else profile.window - prompt
        return profile, most or min(left, LONGEST)

    def _excerpt(self, ask: ChatAsk, prompts: Prompts, messages: list[dict[str, Any]], tokens: int) -> Excerpt:
        """What the overflow policy leaves of a chat. Raises: ApiError where that does not fit either."""
        window = self.profiles.window or 0
        refusal = too_long(window, tokens, ask.most or 1, "messages", _remedy(ask))
        reserve = ask.most or min(RESERVE, max(1, window // 4))
        if reserve >= window or ask.goes_on:
            raise refusal
        system, turns = split(messages)
        talk = Talk(
            system=system,
            turns=turns,
            room=Room(window=window, reserve=reserve),
            count=lambda given: self._locked(lambda: prompts.count(given)),
            parts=lambda turn, total: self._locked(lambda: prompts.by_message(system, turn, total)),
            system_tokens=self._locked(lambda: prompts.system_tokens(system)),
            summarise=lambda given, before, most: self._summary(prompts, given, before, most),
        )
        try:
            return ask.overflow.fit(talk)
        except InputError:
            raise refusal from None

    def _summary(self, prompts: Prompts, turns: Sequence[Turn], before: str, most: int) -> tuple[str, int] | None:
        """A summary in the model's own words, and its tokens; None where the turns do not fit into the window."""
        ids = self._locked(lambda: prompts.ids(summary_request(turns, before)))
        profile = self.profiles.smallest(len(ids) + most)
        if profile is None:
            return None
        written = run_job(self.scheduler, ids=tuple(ids), profile=profile, most=most, stops=prompts.stops)
        found = written.text.strip()
        return found, self.count(found)

    def asked_of_documents(self, ask: ChatAsk) -> tuple[str, Receipt]:
        """What a workflow is asked, the system prompt and the last message, and which messages of the chat it does not see."""
        last = max(number for number, each in enumerate(ask.messages) if each.message["role"] == "user")
        system = [each.said for each in ask.messages if each.message["role"] == "system"]
        left, turn = list[Omitted](), 0
        for number, each in enumerate(ask.messages):
            role = each.message["role"]
            turn += role == "user"
            if role != "system" and number != last:
                left.append(Omitted(turn=max(turn, 1), role=role, tokens=self.count(each.said)))
        question = "\n\n".join([*system, ask.messages[last].said])
        return question, Receipt(policy=f"read={ask.read}", left_out=tuple(left))

    def _locked(self, work: Callable[[], T]) -> T:
        with self._encoding:
            return work()


def _remedy(ask: ChatAsk) -> str:
    """What else could be done about a chat that is too long."""
    ways = ["longreach.overflow: whole_turns leaves out the oldest turns"] if ask.overflow.name() == REFUSE else []
    if any(message.documents for message in ask.messages):
        ways.append("longreach.read names a workflow that reads documents in parts")
    return f" ({'; '.join(ways)})" if ways else ""


def make_service(
    name: str,
    profiles: Profiles,
    tokenizer: PreTrainedTokenizerBase,
    *,
    file_bytes: int = 64 << 20,
    library: ServedLibrary | None = None,
    limits: Limits | None = None,
    keys: Sequence[str] = (),
    card: dict[str, Any] | None = None,
    read_document: ReadDocument | None = None,
    **scheduling: Any,
) -> Service:
    """A service with a scheduler of its own. Args: scheduling: of `Scheduler`."""
    scheduler = Scheduler(profiles.all, copy.deepcopy(tokenizer), **scheduling)
    return Service(
        name=name, profiles=profiles, tokenizer=tokenizer, scheduler=scheduler, files=FileStore(file_bytes, library),
        limits=limits or Limits(), keys=tuple(keys), card=card, read_document=read_document,
    )  # fmt: skip
