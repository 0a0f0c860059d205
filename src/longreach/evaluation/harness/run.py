"""Runs tasks of lm-evaluation-harness on a loaded model, under a method."""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval.utils import handle_non_serializable
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.core.errors import InputError, LongreachError
from longreach.core.files import write_text
from longreach.core.method import Method
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import stack_of
from longreach.decoding.reading import CHUNK
from longreach.engine.apply import apply, check_unapplied, given_model
from longreach.evaluation.harness.model import HarnessModel

_WRONG = (ValueError, LookupError, AssertionError, NotImplementedError, ImportError, OSError, TemplateError)  # what the harness raises


def load_tasks(names: Sequence[str], include_path: str | Path | None = None) -> list[Any]:
    """Tasks and groups of the harness with their data, to be run any number of times.

    Its own tasks are many thousands, and looked through only where a name is not found in `include_path`.

    Args: names: of tasks, groups and tags, patterns (`mmlu_*`), or YAML files. include_path: a folder of YAML files of one's own.
    Raises: InputError for a name that nobody knows, and for what the harness cannot load.
    """
    if include_path is not None and not Path(include_path).is_dir():
        raise InputError(f"no such folder: {include_path}")
    own = TaskManager(include_path=include_path, include_defaults=False)
    whole = {*own.all_subtasks, *(name for name in names if Path(name).is_file())}
    manager = own if whole >= set(names) else TaskManager(include_path=include_path)
    found: list[Any] = []
    for name in names:
        known = manager.match_tasks([name]) or [name] * Path(name).is_file()
        if not known:
            close = get_close_matches(name, manager.all_tasks, n=3)
            raise InputError(f"the harness has no task {name!r}" + (f"; did you mean {' or '.join(close)}?" if close else ""))
        for each in known:
            try:
                loaded = manager.load([each])
            except LongreachError:
                raise
            except Exception as error:  # its loaders raise whatever libraries of data raise
                raise InputError(f"the harness cannot load {each}: {_line(error)}") from error
            found += [loaded["groups"][each]] if each in loaded.get("groups", {}) else loaded["tasks"].values()
    return found


def run_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Any],
    *,
    method: str | Method | Iterable[str | Method] | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    chat: bool = False,
    chunk_size: int = CHUNK,
    name: str | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """The harness's results, as `lm_eval.simple_evaluate` gives them; `["config"]["longreach"]` says of what model, under what method.

    The harness seeds the random numbers of Python, numpy and torch.

    Args: model: loaded, in eval mode. tokenizer: of the model. tasks: from `load_tasks`, or `HarnessTask`s. method: to run under.
    limit: documents of each task (default: all). num_fewshot: examples before each (default: what the task says). chat: in the
    tokenizer's chat template, examples as earlier turns. chunk_size: tokens a forward. name: what results call the model. progress: is
    told of the work.
    Raises: InputError for what does not fit, and for what the harness refuses; LongreachError where memory runs out.
    """
    model, stack = given_model(model), stack_of(method)
    if stack:
        check_unapplied(model, stack)
    lm = HarnessModel(model, tokenizer, chunk_size=chunk_size, name=name, progress=progress)
    with apply(model, stack, tokenizer=tokenizer, warn=False):
        try:
            found: dict[str, Any] = simple_evaluate(
                model=lm,
                tasks=list(tasks),
                limit=limit,
                num_fewshot=num_fewshot,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
                task_manager=TaskManager(include_defaults=False),
                log_samples=False,
            )
        except LongreachError:
            raise
        except torch.OutOfMemoryError as error:
            what = f"the harness's longest texts, {chunk_size} tokens a forward"
            raise LongreachError(f"the device's memory is too small for {what}; use a smaller chunk size or shorter texts") from error
        except _WRONG as error:
            raise InputError(f"the harness stopped: {_line(error)}") from error
    return found


def write_results(results: dict[str, Any], folder: Path) -> Path:
    """Write results beside those of earlier runs, as the harness names them: FOLDER/METHOD/results_TIME.json. Raises: InputError."""
    method = re.sub(r"[^\w.=+-]+", "-", results["config"]["longreach"]["method"]) or "stock"
    when = datetime.fromtimestamp(results["date"]).strftime("%Y-%m-%dT%H-%M-%S.%f")
    path = folder / method / f"results_{when}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(results, indent=2, ensure_ascii=False, default=handle_non_serializable) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    return path


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
