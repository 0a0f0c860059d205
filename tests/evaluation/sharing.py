"""What processes of their own run in tests: a module that imports nothing, so that they begin at once."""


def refuse(number):
    """Fail in one of several."""
    if number == 1:
        raise ValueError(f"share {number} failed")
    return number
