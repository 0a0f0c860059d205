"""How a passage and a question become the ids of a prompt: by the tokenizer's chat template, or as plain text to be completed."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from longreach.core.errors import InputError
from longreach.decoding.encoder import Encoder
from longreach.evaluation.asking.passage import Ask, Turn

_HERE = "\u241ehere\u241e"  # stands for what the user says while the template is taken apart
_NAMES = {"user": "User", "assistant": "Assistant"}


@dataclass(frozen=True)
class Form:
    """Prompts of one tokenizer, made of parts that are encoded one by one, so that every question has the same ids before it.

    The passage is text: what spells a special token in it stays text.

    Args: chat: by the chat template. Raises: InputError where there is none, or one that changes what is said.
    """

    tokenizer: PreTrainedTokenizerBase
    chat: bool

    def __post_init__(self) -> None:
        if self.chat and not self.tokenizer.chat_template:
            raise InputError("the tokenizer has no chat template; ask it as a plain model (--template none)")
        if self.chat:
            self._around(())

    @cached_property
    def _text(self) -> Encoder:
        return Encoder(self.tokenizer)

    @cached_property
    def _markup(self) -> Encoder:
        return Encoder(self.tokenizer, special=True)

    def before_ids(self, turns: Sequence[Turn] = ()) -> list[int]:
        """What stands before the passage: special tokens, earlier messages, the beginning of the user's."""
        turns = tuple(turns)
        if turns not in self._known:
            self._known.clear()  # one conversation is asked for again and again, and may be long
            self._known[turns] = self._before(turns)
        return self._known[turns]

    @cached_property
    def _known(self) -> dict[tuple[Turn, ...], list[int]]:
        return {}

    def _before(self, turns: tuple[Turn, ...]) -> list[int]:
        if not self.chat:
            said = "".join(f"{_NAMES[turn.role]}: {turn.text}\n" for turn in turns)
            return [*self._text.prefix, *(self._text.encode(said) if said else [])]
        return self._markup.encode(self._around(turns)[0])

    def passage_ids(self, text: str) -> list[int]:
        """The passage itself."""
        return self._text.encode_inside(text) if self.chat else self._text.encode(text)

    def passage_lengths(self, texts: Sequence[str]) -> list[int]:
        """How many ids each part of a passage has by itself."""
        return self._text.lengths(texts)

    def ask_ids(self, ask: Ask) -> list[int]:
        """The question, what makes the model answer, and how the answer begins."""
        return self._parts(ask)[0]

    def choice_ids(self, ask: Ask) -> tuple[list[int], list[list[int]]]:
        """What comes before a choice (the question with all that the choices begin with in common), and the rest of each choice.

        Raises: InputError for choices that this tokenizer does not tell apart.
        """
        fixed, opening = self._parts(ask)[1:]
        joint = " " if opening and not opening[-1].isspace() else ""
        full = [self._text.encode_inside(f"{opening}{joint}{choice}") for choice in ask.choices]
        shared = 0
        while all(len(ids) > shared + 1 for ids in full) and len({ids[shared] for ids in full}) == 1:
            shared += 1
        rests = [ids[shared:] for ids in full]
        if len({tuple(rest) for rest in rests}) < len(rests):
            raise InputError(f"the tokenizer does not tell the choices {ask.choices[:3]} ... apart")
        return [*fixed, *full[0][:shared]], rests

    def _parts(self, ask: Ask) -> tuple[list[int], list[int], str]:
        """All ids of a question; those before the text that an answer is written after; and that text."""
        if self.chat:
            fixed = [*self._text.encode_inside(f"\n\n{ask.text}"), *self._markup.encode(self._around(())[1])]
            opening = ask.opening
        else:  # one text to the tokenizer, so that a word and the space before it stay one token
            fixed, opening = [], f"\n\n{ask.text}\n{ask.opening or 'Answer:'}"
        return [*fixed, *(self._text.encode_inside(opening) if opening else [])], fixed, opening

    def _around(self, turns: tuple[Turn, ...]) -> tuple[str, str]:
        """What the template writes before and after the user's last words."""
        messages = [*({"role": turn.role, "content": turn.text} for turn in turns), {"role": "user", "content": _HERE}]
        whole = str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        if whole.count(_HERE) != 1:
            raise InputError("the chat template does not repeat what the user says as it is; ask it as a plain model (--template none)")
        before, _, after = whole.partition(_HERE)
        return before, after

    @property
    def stops(self) -> tuple[str, ...]:
        """Where an answer ends in this form, whatever was asked."""
        return () if self.chat else tuple(f"\n{name}:" for name in _NAMES.values())
