"""How long-running work tells how far it is. The library is silent; the command line draws bars."""


class Progress:
    """Receives progress in tokens and shows nothing. Subclasses draw."""

    def start(self, label: str, total: int) -> None:
        """Work called `label` begins; it will process `total` tokens, or 0: nobody knows how many."""

    def advance(self, tokens: int) -> None:
        """So many tokens more are done."""

    def say(self, words: str) -> None:
        """Something that whoever waits wants to know."""


SILENT = Progress()
