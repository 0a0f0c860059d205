"""What a client asks for, read from the body of its request and checked; nothing here needs the model."""

from dataclasses import dataclass
from typing import Any

from longreach.conversation.overflow.base import OverflowPolicy, overflow_of
from longreach.core.errors import InputError, SpecError
from longreach.decoding.sampling import GREEDY, Sampling
from longreach.endpoint.base import MOST_LOGPROBS
from longreach.serving.errors import wrong
from longreach.serving.fields import Fields
from longreach.serving.files import FileStore
from longreach.serving.parts import AskedMessage, read_messages

REFUSE = "refuse"  # what happens to a chat that is too long where nobody says
_TOKENS = 1 << 24  # no text has more
_CHOICES = 16
_STOPS, _STOP_LENGTH = 16, 256  # stop texts, and characters of one
_COLDEST = 0.01  # below, logits divided by it may not be finite
_SEEDS = 2**63
_TOOLS = 128
_COMPLETION = 16  # tokens of a completion where nobody says, as OpenAI has it

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "parallel_tool_calls": (True,),
}
"""Fields that are taken with values under which nothing changes."""


@dataclass(frozen=True, kw_only=True)
class ClientAsk:
    """What chats and completions have in common.

    Args: most: tokens of an answer; None: not said. least: tokens before which it does not end. choices: answers. usage: whether a stream
    ends with the counts of tokens. logprobs: alternatives of each token; None: no log-probabilities. overflow: what happens to a chat that
    is too long. read: the spec of a workflow for documents that do not fit. progress: whether a stream tells how far reading is. thinking:
    tokens that the model may think before it answers; None: any.
    """

    model: str
    most: int | None
    least: int
    sampling: Sampling
    stops: tuple[str, ...]
    choices: int
    stream: bool
    usage: bool
    logprobs: int | None
    overflow: OverflowPolicy
    read: str | None
    progress: bool
    thinking: int | None


@dataclass(frozen=True, kw_only=True)
class ChatAsk(ClientAsk):
    """A chat. Args: tools: that the model may call. goes_on: whether the answer goes on from the last message."""

    messages: tuple[AskedMessage, ...]
    tools: tuple[dict[str, Any], ...]
    goes_on: bool


@dataclass(frozen=True, kw_only=True)
class CompletionAsk(ClientAsk):
    """A text to go on from. Args: prompt: as text, or as ids."""

    prompt: str | tuple[int, ...]


def chat_ask(body: Any, files: FileStore) -> ChatAsk:
    """Read a chat. Raises: ApiError that names the field."""
    fields = Fields(body)
    messages = read_messages(fields.items("messages", 100_000), files)
    tools = _tools(fields)
    goes_on = _goes_on(fields, messages)
    most = _one_of(fields, "max_completion_tokens", "max_tokens")
    tops = fields.whole("top_logprobs", 0, MOST_LOGPROBS)
    wanted = fields.flag("logprobs")
    if tops is not None and not wanted:
        raise wrong("top_logprobs", "top_logprobs needs logprobs: true")
    logprobs = (tops or 0) if wanted else None
    common = _common(fields, most, logprobs)
    return ChatAsk(messages=messages, tools=tools, goes_on=goes_on, **common)


def completion_ask(body: Any) -> CompletionAsk:
    """Read a text to go on from. Raises: ApiError that names the field."""
    fields = Fields(body)
    prompt = prompt_of(fields)
    fields.only({"echo": (False,), "suffix": (), "best_of": (1,)})
    most = fields.whole("max_tokens", 1, _TOKENS) or _COMPLETION
    common = _common(fields, most, fields.whole("logprobs", 0, MOST_LOGPROBS))
    for name, field in (("read", "read"), ("thinking", "thinking_budget")):
        if common[name] is not None:
            raise wrong(f"longreach.{field}", f"longreach.{field} is for chats")
    return CompletionAsk(prompt=prompt, **common)


def prompt_of(fields: Fields) -> str | tuple[int, ...]:
    """A prompt: a text, or a list of ids; also as the only one of a list. Raises: ApiError."""
    prompt = fields.take("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(prompt, list) and prompt and all(type(each) is int and each >= 0 for each in prompt):
        return tuple(prompt)
    if isinstance(prompt, list) and len(prompt) > 1 and all(isinstance(each, str | list) for each in prompt):
        raise wrong("prompt", "prompt has several prompts; send one in each request")
    raise wrong("prompt", "prompt must be a text or a list of token ids, and not empty")


def _common(fields: Fields, most: int | None, logprobs: int | None) -> dict[str, Any]:
    stream = fields.flag("stream")
    options = fields.inner("stream_options")
    if options is not None and not stream:
        raise wrong("stream_options", "stream_options needs stream: true")
    usage = options is not None and options.flag("include_usage")
    if options is not None:
        options.only({"include_obfuscation": (False,)})
        options.done()
    least = fields.whole("min_tokens", 0, _TOKENS) or 0
    if most is not None and least > most:
        raise wrong("min_tokens", f"min_tokens={least} is more than the {most} tokens that may be written")
    found: dict[str, Any] = {
        "model": fields.needed_text("model"),
        "most": most,
        "least": least,
        "sampling": _sampling(fields),
        "stops": fields.texts("stop", _STOPS, _STOP_LENGTH),
        "choices": fields.whole("n", 1, _CHOICES) or 1,
        "stream": stream,
        "usage": usage,
        "logprobs": logprobs,
        **_own(fields, stream),
    }
    fields.text("user")  # names a customer, and changes no answer
    fields.only(_NEUTRAL)
    fields.done()
    return found


def _own(fields: Fields, stream: bool) -> dict[str, Any]:
    """What lies under `longreach`."""
    own = fields.inner("longreach") or Fields({}, "longreach")
    overflow, read, progress = own.text("overflow"), own.text("read"), own.flag("progress")
    thinking = own.whole("thinking_budget", 0, _TOKENS)
    own.done()
    if progress and not stream:
        raise wrong("longreach.progress", "longreach.progress needs stream: true")
    try:
        policy = overflow_of(overflow or REFUSE)
    except SpecError as error:
        raise wrong("longreach.overflow", f"longreach.overflow: {error}") from None
    if policy.keeps_text:
        why = "reads under a method of its own, for as long as a chat lasts; start the server with --method"
        raise wrong("longreach.overflow", f"longreach.overflow: {policy.spec} {why} {policy.name()}:... instead, or choose whole_turns")
    return {"overflow": policy, "read": read, "progress": progress, "thinking": thinking}


def _sampling(fields: Fields) -> Sampling:
    """As OpenAI has it: a temperature of 1 where nobody says another. At 0 the likeliest token is taken, whatever else is asked for."""
    temperature = fields.number("temperature", 0, 2)
    temperature = 1.0 if temperature is None else temperature
    top_p, top_k, seed = fields.number("top_p", 0, 1), fields.whole("top_k", 1, 1 << 31), fields.whole("seed", 0, _SEEDS - 1)
    if top_p == 0:
        raise wrong("top_p", "top_p must be above 0; temperature: 0 takes the likeliest token")
    if temperature == 0:
        return GREEDY
    if temperature < _COLDEST:
        raise wrong("temperature", f"temperature must be 0, or from {_COLDEST} to 2")
    try:
        return Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    except InputError as error:
        raise wrong(None, str(error)) from None


def _one_of(fields: Fields, name: str, other: str) -> int | None:
    """The number under one of two names. Raises: ApiError where both say something else."""
    one, two = fields.whole(name, 1, _TOKENS), fields.whole(other, 1, _TOKENS)
    if one is not None and two is not None and one != two:
        raise wrong(other, f"{name} and {other} mean the same, and are not equal; leave one out")
    return two if one is None else one


def _tools(fields: Fields) -> tuple[dict[str, Any], ...]:
    """The tools that are offered."""
    tools, choice = fields.items("tools", _TOOLS) or [], fields.take("tool_choice")
    for number, tool in enumerate(tools):
        each = Fields(tool, f"tools[{number}]")
        kind, function = each.text("type"), each.inner("function")
        if kind != "function" or function is None:
            raise wrong(each.where, f'{each.where} must be {{"type": "function", "function": {{"name": ...}}}}')
        if not function.needed_text("name").strip():
            raise wrong(function.path("name"), f"{function.path('name')} is empty")
    if choice not in (None, "none", "auto"):
        raise wrong("tool_choice", "tool_choice may be none or auto; this server cannot make a model call a tool", "unsupported_parameter")
    return () if choice == "none" else tuple(tools)


def _goes_on(fields: Fields, messages: tuple[AskedMessage, ...]) -> bool:
    """Whether the answer goes on from the last message, in vLLM's words."""
    begins, goes_on = fields.take("add_generation_prompt"), fields.flag("continue_final_message")
    if begins not in (None, True, False) or (begins is False) != goes_on:
        raise wrong("add_generation_prompt", "add_generation_prompt: false goes with continue_final_message: true, to go on from an answer")
    if goes_on and messages[-1].message["role"] != "assistant":
        raise wrong("continue_final_message", "continue_final_message needs a last message of the assistant")
    return goes_on
