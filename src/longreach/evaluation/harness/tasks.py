"""Tasks of longreach as tasks of lm-evaluation-harness, for any of its models.

In Python, `lm_eval.simple_evaluate(model=..., tasks=[HarnessTask("needle", length=4096, tokenizer="gpt2")])`. For its command line, a YAML
file in a folder that `--include_path` names:

    task: needle_4k
    class: !function longreach.evaluation.harness.tasks.HarnessTask
    asks: needle:digits=7
    length: 4k
    tokenizer: HuggingFaceTB/SmolLM2-135M
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import Task, TaskConfig
from transformers import PreTrainedTokenizerBase

import longreach
from longreach.checkpoints.checkpoint import load_tokenizer
from longreach.core.errors import InputError
from longreach.core.lengths import parse_length
from longreach.data.stdlib import stdlib_text
from longreach.evaluation.asking.answerer import likeliest
from longreach.evaluation.asking.cutting import SIDES, Side
from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.form import Form
from longreach.evaluation.asking.passage import Ask, Passage, Response, before_stop
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Tokens
from longreach.evaluation.course import LIKELIHOOD, PASSAGES
from longreach.evaluation.evaluate import parse_text_tasks
from longreach.evaluation.text import read_texts
from longreach.evaluation.text_task import TextTask

_SETTINGS = ("asks", "length", "tokenizer", "passages", "seed", "text", "truncate", "chat")
_OF_HARNESS = ("task", "class", "task_alias", "metadata")  # what else its YAML files have


class HarnessTask(Task):
    """One text task at one length. Every question about a passage is a document.

    Each asks for an answer, which the task marks, and for the likelihoods of the choices, where there are some: the metrics are those of
    the task and `likelihood`, from 0 to 1, each the mean over all questions that have it. Passages, questions and prompts are those of
    `longreach eval` with the same seed and tokenizer. Two things the harness does its own way: a prompt is encoded as one text, and what
    spells a special token in it is that token.

    Args: asks: a text task, or its spec. length: tokens of a prompt with its answer. tokenizer: by which lengths are counted: of a
    checkpoint, by its name, or loaded. passages: how many, or as many as there are. seed: of all that is random. text: a file of real text
    to fill passages with (default: this Python's documentation and held-out source). truncate: where texts of a length of their own are cut
    that are too long: left, middle or right (default: they are refused). chat: prompts are written in the chat template of the harness's
    model, and counted in that of the tokenizer; otherwise they are text to be completed. name: in results (default: the spec and the
    length).
    config: all of these, from a YAML file.
    Raises: InputError for what does not fit; SpecError for a task or a length that does not parse; CheckpointError for no such tokenizer.
    """

    VERSION = longreach.__version__
    OUTPUT_TYPE = "generate_until"

    def __init__(
        self,
        asks: str | TextTask | None = None,
        *,
        length: int | str | None = None,
        tokenizer: str | PreTrainedTokenizerBase | None = None,
        passages: int = PASSAGES,
        seed: int = 0,
        text: str | Path | None = None,
        truncate: Side | None = None,
        chat: bool = False,
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if config is not None:
            HarnessTask.__init__(self, **_from_yaml(config))
            return
        with _unconfigured():
            super().__init__()
        if asks is None or length is None or tokenizer is None:
            missing = next(key for key, value in (("asks", asks), ("length", length), ("tokenizer", tokenizer)) if value is None)
            raise InputError(f"a task for the harness needs {missing}; see HarnessTask")
        if passages < 1:
            raise InputError(f"passages={passages} must be at least 1")
        self.asks = _one(asks) if isinstance(asks, str) else asks
        if text is not None and not self.asks.needs_text:
            raise InputError(f"text has no effect on {self.asks.name()}; leave it out")
        if truncate is not None and (self.asks.sized or truncate not in SIDES):
            why = "has no effect: its passages fill the length" if self.asks.sized else f"is none of {', '.join(SIDES)}"
            raise InputError(f"truncate={truncate} of {self.asks.name()} {why}")
        self.length, self.passages, self.seed, self.chat = parse_length(str(length)), passages, seed, chat
        self.text, self.truncate = None if text is None else Path(text), truncate
        loaded = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        self.units = Tokens(Form(loaded, chat))
        self._made: list[Passage] = []
        self._config = TaskConfig(
            task=name or f"{self.asks.spec}_{self.length}",
            output_type=self.OUTPUT_TYPE,
            num_fewshot=0,
            generation_kwargs={"until": [], "do_sample": False},
            metadata={
                "version": self.VERSION, "asks": self.asks.spec, "length": self.length, "tokenizer": loaded.name_or_path,
                "passages": passages, "seed": seed, "text": str(text or (self.asks.needs_text and "held-out") or ""), "truncate": truncate,
                "chat": chat,
            },
        )  # fmt: skip

    def download(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: passages are made."""

    def has_training_docs(self) -> bool:
        """No."""
        return False

    def has_validation_docs(self) -> bool:
        """No."""
        return False

    def has_test_docs(self) -> bool:
        """Yes."""
        return True

    def test_docs(self) -> list[dict[str, Any]]:
        """A document for each question: the numbers of its passage and of itself, and what is asked. Raises: NoRoom, InputError."""
        if not self._made:
            text = read_texts([self.text]) if self.text is not None else stdlib_text("held-out") if self.asks.needs_text else None
            filler = None if text is None else Filler(text, self.units)
            settings: dict[str, Any] = {
                "task": self.asks.spec,
                "length": self.length,
                "units": self.units,
                "seed": self.seed,
                "text": filler,
            }
            there = self.asks.available()
            numbers = range(self.passages if there is None else min(there, self.passages))
            self._made = [self.asks.passage(Space(number=number, truncate=self.truncate, **settings)) for number in numbers]
        return [
            {
                "passage": number,
                "question": question,
                "asked": ask.text,
                "right": ask.right,
                "choices": list(ask.choices),
                "depth": ask.depth,
            }
            for number, passage in enumerate(self._made)
            for question, ask in enumerate(passage.asks)
        ]

    def doc_to_text(self, doc: Mapping[str, Any]) -> str:
        """The prompt as text to be completed, with the beginning of the answer."""
        passage, ask = self._asked(doc)
        return passage.as_text(ask)

    def doc_to_target(self, doc: Mapping[str, Any]) -> str:
        """The right answer."""
        return str(doc["right"])

    def fewshot_context(
        self,
        doc: Mapping[str, Any],
        num_fewshot: int = 0,
        *,
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        chat_template: Callable[..., str] | None = None,
        **_: Any,
    ) -> str:
        """The prompt, in the model's chat template where the harness applies it.

        Raises: InputError for what would make prompts longer than the length, or shorter.
        """
        if num_fewshot:
            raise InputError(f"num_fewshot={num_fewshot}: passages have no examples before them, which would make them longer")
        if system_instruction:
            raise InputError("a system instruction would make prompts longer than the length; leave it out")
        if apply_chat_template != self.chat or (apply_chat_template and chat_template is None):
            given, needed = ("with", "chat: true") if apply_chat_template else ("without", "chat: false")
            raise InputError(
                f"the harness writes prompts {given} a chat template, and lengths are counted otherwise; set {needed} in the task"
            )
        if chat_template is None or not apply_chat_template:
            return self.doc_to_text(doc)
        passage, ask = self._asked(doc)
        return chat_template(passage.as_messages(ask)) + ask.opening

    def construct_requests(
        self, doc: Mapping[str, Any], ctx: str, metadata: tuple[str | None, int | None, int | None] = (None, None, None), **_: Any
    ) -> list[Instance]:
        """First the answer that is to be written, then the likelihood of each choice."""
        _passage, ask = self._asked(doc)
        given = self.config.generation_kwargs or {}
        written = {"max_gen_toks": ask.most_tokens, **given, "until": given.get("until") or list(ask.sure_stops)}
        joint = "" if ctx[-1:].isspace() or (self.chat and not ask.opening) else " "
        requests = [("generate_until", (ctx, written)), *(("loglikelihood", (ctx, f"{joint}{choice}")) for choice in ask.choices)]
        return [
            Instance(request_type=kind, doc=doc, arguments=arguments, idx=number, metadata=metadata)
            for number, (kind, arguments) in enumerate(requests)
        ]

    def process_results(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
        """The marks of one question. Args: results: what was written, then (log-likelihood, greedy) of each choice."""
        _passage, ask = self._asked(doc)
        written, *choices = results
        marks = dict(zip(self.asks.metrics(ask), self.asks.marks(ask, before_stop(written, ask.until)), strict=True))
        best = likeliest(Response(likelihoods=tuple(value for value, _ in choices)))
        if best is not None:
            marks[self._metrics(ask)[-1]] = float(ask.choices[best] == ask.right)
        return marks

    def aggregation(self) -> dict[str, Callable[..., float]]:
        """The mean of each metric, over all questions that have it."""
        return {metric: mean for passage in self._made for ask in passage.asks for metric in self._metrics(ask)}

    def higher_is_better(self) -> dict[str, bool]:
        """Yes."""
        return dict.fromkeys(self.aggregation(), True)

    def _metrics(self, ask: Ask) -> tuple[str, ...]:
        """All metrics of a question; the last one is of its choices, where it has some."""
        metrics = self.asks.metrics(ask)
        of = metrics[0][: metrics[0].rfind("/") + 1]  # a part of a benchmark
        return (*metrics, *([of + LIKELIHOOD] if ask.choices else []))

    def _asked(self, doc: Mapping[str, Any]) -> tuple[Passage, Ask]:
        passage = self._made[doc["passage"]]
        return passage, passage.asks[doc["question"]]


@contextmanager
def _unconfigured() -> Iterator[None]:
    """Inside, the harness does not tell that a config says nothing of how to write: its `Task` makes an empty one first."""
    logger = logging.getLogger(TaskConfig.__module__)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _one(spec: str) -> TextTask:
    tasks = parse_text_tasks(spec)
    if len(tasks) > 1:
        raise InputError(f"asks={spec}: one task at a time; give each a file of its own")
    return tasks[0]


def _from_yaml(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments from a YAML file. Raises: InputError for a key that nobody reads."""
    if unknown := sorted(config.keys() - {*_SETTINGS, *_OF_HARNESS}):
        raise InputError(f"{config.get('task')}: {unknown[0]} has no effect; a task of longreach has {', '.join(_SETTINGS)}")
    return {**{key: config[key] for key in _SETTINGS if key in config}, "name": config.get("task")}
