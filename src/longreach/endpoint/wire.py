"""OpenAI's protocol: requests as JSON, and what replies say. Servers differ; every difference that is dealt with is named here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from longreach.endpoint.base import Completion, Request, TokenLogprob

_LONG = 256  # tokens of an answer from which on it is asked for in parts, so that a slow server is not given up while it writes


@dataclass
class Dialect:
    """What a server was found to take. Args: limit: its name for the most tokens. temperature: whether it takes one. parts: whether it
    gives an answer in parts, with what it counted at the end.
    """

    limit: str = "max_tokens"
    temperature: bool = True
    parts: bool = True

    def body(self, request: Request, model: str) -> dict[str, Any]:
        """A request as JSON. Settings that are not used are left out, for some servers refuse what others do not know."""
        chat = request.prompt is None
        body: dict[str, Any] = {"model": model, "prompt": request.prompt}
        if chat:
            body = {"model": model, "messages": list(request.messages)}
        if request.prefix:  # as vLLM and SGLang want it; llama.cpp goes on from any last message of the assistant
            body["messages"].append({"role": "assistant", "content": request.prefix})
            body |= {"add_generation_prompt": False, "continue_final_message": True}
        body[self.limit if chat else "max_tokens"] = request.most_tokens
        if self.temperature:
            body["temperature"] = request.temperature
        if request.seed is not None:
            body["seed"] = request.seed
        if request.stop:
            body["stop"] = list(request.stop)
        if request.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": request.logprobs} if chat else {"logprobs": request.logprobs}
        if self.parts and request.most_tokens >= _LONG:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def adapt(self, field: str | None, body: Mapping[str, Any]) -> bool:
        """Do without a field that the server does not take; False where that is not known how, or was done already."""
        if field not in body:
            return False
        if field == "max_tokens" and "messages" in body:  # OpenAI's newer models
            self.limit = "max_completion_tokens"
            return True
        if field == "temperature":  # models that reason
            self.temperature = False
            return True
        if field in ("stream", "stream_options"):
            self.parts = False
            return True
        return False


def completion_of(reply: Mapping[str, Any], seconds: float) -> Completion | None:
    """The first choice of a reply to a chat or a prompt; None where the reply has none."""
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return None
    message = choice.get("message")
    text = _text(message) if isinstance(message, dict) else choice.get("text")
    if not isinstance(text, str):
        return None
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Completion(
        text=text,
        finish_reason=choice.get("finish_reason"),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        seconds=seconds,
        reasoning=_reasoning(message) if isinstance(message, dict) else "",
        logprobs=_logprobs(choice.get("logprobs")),
    )


def _text(message: Mapping[str, Any]) -> str | None:
    """The content: a text, parts of which some are texts, or null beside a refusal, a call of a tool or reasoning that was cut."""
    content = message.get("content")
    if content is None:
        return str(message.get("refusal") or "")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else None


def _reasoning(message: Mapping[str, Any]) -> str:
    """`reasoning_content` is DeepSeek's name for it, which vLLM, SGLang and llama.cpp took over; `reasoning` that of newer vLLM."""
    return str(message.get("reasoning_content") or message.get("reasoning") or "")


def _logprobs(said: Any) -> tuple[TokenLogprob, ...] | None:
    """Those of chats (`content`: a list of objects) or of completions (lists side by side)."""
    if not isinstance(said, dict):
        return None
    if isinstance(content := said.get("content"), list):
        return tuple(
            TokenLogprob(
                token=each["token"],
                logprob=each.get("logprob"),
                top={other["token"]: other.get("logprob") for other in each.get("top_logprobs") or ()},
            )
            for each in content
        )
    if not isinstance(tokens := said.get("tokens"), list):
        return None
    tops = said.get("top_logprobs") or [None] * len(tokens)
    return tuple(
        TokenLogprob(token=token, logprob=logprob, top=dict(top or {}))
        for token, logprob, top in zip(tokens, said["token_logprobs"], tops, strict=True)
    )


def _count(said: Any) -> int | None:
    return said if isinstance(said, int) else None
