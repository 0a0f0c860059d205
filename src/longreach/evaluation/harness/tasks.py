"""Text tasks as the harness knows tasks: one for each task and length, marked as longreach marks them."""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.task import ConfigurableTask
from transformers import PreTrainedTokenizerBase

from longreach.core.lengths import format_length
from longreach.evaluation.asking.cutting import Side
from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.form import Form
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters, Tokens
from longreach.evaluation.course import PASSAGES
from longreach.evaluation.evaluate import parse_lengths, parse_text_tasks, text_for
from longreach.evaluation.text_task import TextTask


def harness_tasks(
    tasks: str | Sequence[TextTask],
    *,
    lengths: str | Sequence[int],
    tokenizer: PreTrainedTokenizerBase | None = None,
    passages: int = PASSAGES,
    seed: int = 0,
    text: str | None = None,
    truncate: Side | None = None,
) -> list[ConfigurableTask]:
    """Tasks for `simple_evaluate(tasks=...)`, in which a document is a question with its passage. Answers are generated.

    Args: tasks, lengths, text, truncate: as of `longreach.evaluation.evaluate.evaluate`. tokenizer: lengths count its tokens (default:
    characters). passages: of each task and length, or as many as there are. seed: of all that is random.
    Raises: NoRoom where a length does not hold a task; InputError for what does not fit.
    """
    chosen = parse_text_tasks(tasks) if isinstance(tasks, str) else tuple(tasks)
    steps = parse_lengths(lengths) if isinstance(lengths, str) else tuple(lengths)
    units = Characters() if tokenizer is None else Tokens(Form(tokenizer, chat=False))
    real = text_for(chosen, text)
    filler = Filler(real, units) if real else None
    found = []
    for task in chosen:
        for length in steps:
            there = task.available()
            spaces = (
                Space(task=task.spec, length=length, units=units, seed=seed, number=number, text=filler, truncate=truncate)
                for number in range(passages if there is None else min(there, passages))
            )
            found.append(_task(task, f"longreach_{task.spec}_{format_length(length)}", [task.passage(space) for space in spaces]))
    return found


def _task(task: TextTask, name: str, passages: Sequence[Passage]) -> ConfigurableTask:
    asked = [(passage, ask) for passage in passages for ask in passage.asks]
    rows = [{"prompt": _prompt(passage, ask), "target": ask.right, "number": number} for number, (passage, ask) in enumerate(asked)]
    stops = dict.fromkeys(stop for _, ask in asked for stop in ask.until if stop.strip() and all(stop in one.until for _, one in asked))
    metrics = dict.fromkeys(metric for _, ask in asked for metric in task.metrics(ask))

    def mark(document: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
        ask = asked[document["number"]][1]
        return dict(zip(task.metrics(ask), task.marks(ask, _answer(ask, results[0])), strict=True))

    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": lambda **_: {"test": HarnessDocuments(rows)},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": lambda document: document["prompt"],
            "doc_to_target": lambda document: document["target"],
            "process_results": mark,
            "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics],
            "generation_kwargs": {
                "until": list(stops), "max_gen_toks": max(ask.most_tokens for _, ask in asked), "do_sample": False,
            },
        }
    )  # fmt: skip


class HarnessDocuments(list[dict[str, Any]]):
    """Documents of a task, with as much of a `datasets.Dataset` as the harness looks at; long prompts are not copied."""

    @property
    def features(self) -> dict[str, Any]:
        """The names of what each has."""
        return dict.fromkeys(self[0])


def _prompt(passage: Passage, ask: Ask) -> str:
    said = "".join(f"{turn.role.capitalize()}: {turn.text}\n" for turn in passage.turns)
    return f"{said}{passage.text}\n\n{ask.text}\n{ask.opening or 'Answer:'}"


def _answer(ask: Ask, written: str) -> str:
    """To the first stop of its own question after its beginning."""
    begun = len(written) - len(written.lstrip())
    ends = [place for stop in ask.until if (place := written.find(stop, begun)) >= 0]
    return written[: min(ends)] if ends else written
