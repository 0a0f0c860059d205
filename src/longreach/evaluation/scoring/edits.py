"""Answers compared character by character."""


def edit_distance(first: str, second: str) -> int:
    """The fewest insertions, deletions and replacements of characters that make one of the other (Levenshtein).

    All characters of `first` at once, in the bits of one number (Myers, 1999; Hyyrö, 2003).

    >>> edit_distance("kitten", "sitting")
    3
    """
    if not first:
        return len(second)
    places: dict[str, int] = {}
    for place, character in enumerate(first):
        places[character] = places.get(character, 0) | 1 << place
    whole, last = (1 << len(first)) - 1, 1 << len(first) - 1
    rises, falls, distance = whole, 0, len(first)
    for character in second:
        equal = places.get(character, 0)
        down = equal | falls
        across = ((equal & rises) + rises ^ rises) | equal
        up = falls | ~(across | rises) & whole
        back = rises & across
        distance += bool(up & last) - bool(back & last)
        up, back = (up << 1 | 1) & whole, back << 1 & whole
        rises, falls = back | ~(down | up) & whole, up & down
    return distance


def edit_similarity(written: str, right: str) -> float:
    """1 for equal texts, 0 for those that have nothing in common: 1 - distance / length of the longer one."""
    longer = max(len(written), len(right))
    return 1 - edit_distance(written, right) / longer if longer else 1.0
