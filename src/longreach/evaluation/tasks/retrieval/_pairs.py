"""JSON objects of random keys and values, as long as a passage has room for."""

from collections.abc import Sequence

from longreach.evaluation.asking.items import uuids, woven
from longreach.evaluation.asking.passage import Ask
from longreach.evaluation.asking.space import Space

_UUID = 36  # characters


def written(key: str, values: Sequence[str]) -> str:
    """A pair as it stands in an object: a list where there are several values."""
    each = ", ".join(f'"{value}"' for value in values)
    return f'"{key}": [{each}]' if len(values) > 1 else f'"{key}": {each}'


def filled_object(space: Space, asks: Sequence[Ask], wanted: Sequence[tuple[float, str]], *, head: str, values: int = 1) -> str:
    """The head and an object of the wanted pairs, each at its depth (0 to 1), among as many of random UUIDs as there is room for.

    Where they leave a gap, a last pair has a shorter key and shorter values. Args: values: of each pair.
    Raises: NoRoom.
    """
    size = 1 + values

    def text(pairs: int, rest: int) -> str:
        drawn = uuids(space.rng("others"), size * (pairs + 1))
        others = [drawn[place : place + size] for place in range(0, len(drawn), size)]
        items = woven([written(key, own) for key, *own in others[:pairs]], wanted)
        if rest:
            key, *own = (one[: max(1, rest // size)] for one in others[-1])
            items.append(written(key, own))
        return head + "{" + ",\n ".join(items) + "}"

    return text(*space.topped(text, asks, least=1, most=size * _UUID))
