"""What stands around a document and a question: the opening and the closing of a user's turn in the chat template."""

import hashlib
import json
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from longreach.core.errors import InputError
from longreach.decoding.encoder import Encoder

_MARK = "where the message of the user stands"
_BETWEEN = "\n\n"


@dataclass(frozen=True, kw_only=True)
class PromptFrame:
    """Around the documents and the question of one prompt. Args: opening, closing: ids of what the template puts before and behind."""

    encoder: Encoder
    opening: list[int]
    closing: list[int]

    def document(self, text: str, name: str) -> list[int]:
        """What is read of a document: the opening, and the text up to the blank line behind it. Raises: InputError for an empty one."""
        if not text.strip():
            raise InputError(f"{name} is empty")
        begins = self.opening == self.encoder.prefix  # then some tokenizers put a space before the first word
        return [*self.opening, *(self.encoder.encode if begins else self.encoder.encode_inside)(text.rstrip("\n") + _BETWEEN)]

    def question(self, text: str) -> Tensor:
        """What is read after the documents, [1, T]: the question, and the closing. Raises: InputError for an empty one."""
        if not text.strip():
            raise InputError("the question is empty")
        return torch.tensor([[*self.encoder.encode_inside(text), *self.closing]])


def frame(tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> PromptFrame:
    """Of a user's message in the tokenizer's chat template, or of plain text, which an empty line opens where no special token does.

    So there is always an opening, which can be left out of all but the first document of a prompt.
    Raises: InputError for `chat` with a template that there is not, or that does not give a user's message as it is.
    """
    encoder = Encoder(tokenizer)
    if not chat:
        return PromptFrame(encoder=encoder, opening=encoder.prefix or encoder.encode("\n"), closing=[])
    if not tokenizer.chat_template:
        raise InputError("the tokenizer has no chat template; read the document as plain text")
    whole = str(tokenizer.apply_chat_template([{"role": "user", "content": _MARK}], tokenize=False, add_generation_prompt=True))
    before, mark, behind = whole.partition(_MARK)
    if not mark or _MARK in behind:
        raise InputError("the chat template does not give a user's message as it is; read the document as plain text (--plain)")
    opening, closing = (tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"] for part in (before, behind))
    return PromptFrame(encoder=encoder, opening=opening, closing=closing)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """16 hexadecimal digits of all that decides which ids a text has, the chat template included."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.dumps(tokenizer.get_vocab(), sort_keys=True) if backend is None else backend.to_str()
    if backend is not None:  # before the tokens stands how the last call cut and padded its texts
        rules = rules.partition('"added_tokens"')[2] or rules
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    about = json.dumps([type(tokenizer).__name__, special, tokenizer.chat_template], sort_keys=True, default=str)
    return hashlib.sha256(f"{about}\n{rules}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
