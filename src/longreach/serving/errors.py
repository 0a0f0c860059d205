"""Errors as clients of OpenAI's protocol expect them."""

from typing import Any

from longreach.core.errors import InputError, LongreachError, SpecError
from longreach.endpoint.errors import ContextLengthError
from longreach.serving.job import ServerBusyError, ServerClosingError, ServerFullError

_WAIT = 5  # seconds after which a client may try again


class ApiError(LongreachError):
    """What a client is told, as JSON.

    Args: status: of HTTP. kind: OpenAI's `type`. param: the field that is wrong. code: a word for programs.
    """

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
    ) -> None:
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        super().__init__(message)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Of the reply."""
        if self.status in (429, 503):
            return {"Retry-After": str(_WAIT)}
        return {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}


def wrong(param: str | None, message: str, code: str | None = None) -> ApiError:
    """A request that has to be changed."""
    return ApiError(400, message, param=param, code=code)


def too_long(window: int | None, prompt: int, answer: int, what: str, remedy: str = "") -> ApiError:
    """A request that does not fit into the largest window, in OpenAI's words. Args: what: the tokens of the prompt are in."""
    said = (
        f"This model's maximum context length is {window} tokens. However, you requested {prompt + answer} tokens "
        f"({prompt} in the {what}, {answer} in the completion). Please reduce the length of the {what} or completion."
    )
    return wrong(what, said + remedy, "context_length_exceeded")


def api_error(error: Exception) -> ApiError:
    """An error of whatever kind as what a client is told."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ServerFullError):
        return ApiError(429, str(error), kind="rate_limit_error", code="rate_limit_exceeded")
    if isinstance(error, ServerClosingError):
        return ApiError(503, f"{error}; try another one", kind="server_error", code="server_closing")
    if isinstance(error, ServerBusyError):
        return ApiError(504, str(error), kind="server_error", code="timeout")
    if isinstance(error, ContextLengthError):
        return wrong(None, _one_line(error), "context_length_exceeded")
    if isinstance(error, InputError | SpecError):
        return wrong(None, _one_line(error))
    if isinstance(error, LongreachError):
        return ApiError(500, _one_line(error), kind="server_error")
    return ApiError(500, "an error inside the server; its log has it", kind="server_error")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
