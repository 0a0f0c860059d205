"""The repeated sentences that some retrieval tasks hide a fact in."""

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"


def in_noise(head: str, fact: str, depth: float, lines: int) -> str:
    """The head, and so many lines of noise with the fact at its depth (0 to 1) among them."""
    before = round(lines * depth)
    return f"{head}{NOISE * before}{fact}{NOISE * (lines - before)}"
