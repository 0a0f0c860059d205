"""A reading workflow as the one who answers: a passage is its document, and each question its task."""

import time

from longreach.core.errors import InputError
from longreach.core.progress import SILENT, Progress
from longreach.endpoint.base import ChatModel
from longreach.endpoint.errors import EndpointError, UnusableEndpointError
from longreach.evaluation.asking.passage import Ask, Passage, Response, before_stop
from longreach.evaluation.asking.units import Units
from longreach.workflows.base import ReadingWorkflow
from longreach.workflows.counting import WindowError
from longreach.workflows.run import ReadingRun, window_of
from longreach.workflows.spans import Document


class WorkflowAnswerer:
    """Has a chat model read each passage by a workflow, in calls that each fit its window, however long the passage is.

    The answer may have as many tokens as the question gives it. A question for which the window has no room gets no answer.

    Args: model: that is asked. units: what lengths count. workflow: how passages are read. window: tokens that prompt and answer of a call
    may have together (default: what the model states). more_tokens: that an answer may take beyond those of its question, for models that
    think or talk before they answer; `units` should count them, too.
    Raises: InputError for a window that nobody knows or that holds nothing.
    """

    chooses = False

    def __init__(
        self, model: ChatModel, units: Units, workflow: ReadingWorkflow, *, window: int | None = None, more_tokens: int = 0
    ) -> None:  # fmt: skip
        if more_tokens < 0:
            raise InputError(f"more_tokens={more_tokens} must be at least 0")
        self.model, self.units, self.workflow, self.more_tokens = model, units, workflow, more_tokens
        self.window = window_of(model, window)

    @property
    def at_once(self) -> int:
        """Passages that are read at a time."""
        return self.model.concurrency

    def answers(self, passage: Passage, *, progress: Progress = SILENT) -> list[Response]:
        """One response for each question; what failed says why. Raises: UnusableEndpointError; InputError where no question could go."""
        found, each = [], self.units.count(passage.text) // len(passage.asks)
        for ask in passage.asks:
            found.append(self._answer(passage, ask))
            progress.advance(each)
        return found

    def _answer(self, passage: Passage, ask: Ask) -> Response:
        document, most, began = Document(name="text", text=passage.spoken), ask.most_tokens + self.more_tokens, time.perf_counter()
        try:
            run = ReadingRun(self.model, [document], ask.text, workflow=self.workflow, window=self.window, answer_tokens=most)
            written = run.answer()
        except UnusableEndpointError:
            raise
        except (EndpointError, WindowError) as error:
            return Response(failed=str(error))
        return Response(
            written=before_stop(written, ask.until), tokens=run.ledger.cost.tokens, seconds=time.perf_counter() - began
        )  # fmt: skip
