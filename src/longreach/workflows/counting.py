"""Token counts of what is sent to a model: exact where it can tell, and otherwise estimates on the safe side."""

from longreach.core.errors import InputError
from longreach.endpoint.base import ChatModel

BYTES_PER_TOKEN = 3  # of UTF-8, where nobody counts: English has four and more
_MARKUP = 48  # tokens that a chat template adds, where nobody counts: a system prompt of its own among them


class WindowError(InputError):
    """A window that has no room for what a workflow has to ask; another task or text may fit."""


class TokenCounter:
    """Counts tokens as a model does. `exact` is False where they are estimates: a byte count, divided."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model
        self.exact = model.count("a") is not None
        counted = model.count_chat([{"role": "user", "content": "a"}])
        self.markup = _MARKUP if counted is None else counted - self("a")

    def __call__(self, text: str) -> int:
        """Tokens of a text."""
        counted = self._model.count(text) if self.exact and text else None
        return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN) if counted is None else counted

    def chat(self, text: str) -> int:
        """Tokens of a chat of one user's message, with what its template adds."""
        return self(text) + self.markup
