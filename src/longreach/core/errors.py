"""What users are told when something cannot work: one line, with the remedy."""


class LongreachError(Exception):
    """Base of the errors that the command line prints as one line (exit code 2)."""


class SpecError(LongreachError, ValueError):
    """A spec string that does not parse, or a setting outside its range."""


class UnsupportedError(LongreachError):
    """A method that cannot work on this model or beside that other method.

    Args: method: its spec. model: what it was applied to. why: the fact that rules it out. try_instead: the remedy.
    """

    def __init__(self, method: str, model: str, why: str, try_instead: str) -> None:
        self.method, self.model, self.why, self.try_instead = method, model, why, try_instead
        super().__init__(f"{method} cannot be used with {model}: {self.reason}")

    @property
    def reason(self) -> str:
        """Why not, and what to do about it."""
        return f"{self.why}; {self.try_instead}"


class CheckpointError(LongreachError):
    """A checkpoint that is missing, incomplete, unsafe to load or too large."""


class InputError(LongreachError, ValueError):
    """A file, text or option that a command cannot work with."""
