"""Reads documents that are longer than the window: with the reading workflows, whose calls stand in the queue of the server."""

from collections.abc import Sequence
from typing import Any

from longreach.core.progress import Progress
from longreach.endpoint.base import ChatModel
from longreach.serving.files import AttachedDocument
from longreach.workflows.run import reading
from longreach.workflows.spans import Document


def read_document(
    chat_model: ChatModel, documents: Sequence[AttachedDocument], question: str, spec: str, most: int | None, progress: Progress
) -> tuple[str, dict[str, Any]]:
    """(answer, ledger). Args: most: tokens of the answer. Raises: as `longreach.reading`, and what the calls fail with."""
    named = [Document(name=document.name, text=document.text) for document in documents]
    run = reading(chat_model, named, question, workflow=spec, answer_tokens=most, progress=progress)
    return run.answer(), run.ledger.to_dict()
