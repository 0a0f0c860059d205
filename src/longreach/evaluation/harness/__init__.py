"""lm-evaluation-harness both ways: our models run its tasks (`model`), and its models run ours (`tasks`).

Importing it without the package says what to install. Raises: InputError.
"""

from importlib.util import find_spec

from longreach.core.errors import InputError

if find_spec("lm_eval") is None:
    raise InputError("tasks of lm-evaluation-harness need the package lm-eval; pip install 'longreach[lm-eval]'")
