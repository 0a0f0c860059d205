"""Training among texts, as a policy asks for it: before each step the engine is told how many texts of the batch meet."""

from typing import Any

from transformers import TrainerCallback

from longreach.cache.trained.base import AmongTexts
from longreach.engine.among import set_texts


class Among(TrainerCallback):
    """Args: policy: is applied to the model while it is trained."""

    def __init__(self, policy: AmongTexts) -> None:
        self.policy = policy

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Set it for the step that begins; it stays for the backward pass, which may compute layers again."""
        set_texts(model, self.policy.texts_at(state.global_step / state.max_steps))
