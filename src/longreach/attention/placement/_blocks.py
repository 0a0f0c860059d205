"""Where the blocks of source code begin, found while it is read: what comes later changes nothing, so that a model can write it."""

_LINE, _INDENT, _INSIDE, _STRING, _ESCAPED = range(5)
_HEADERS = ("def ", "class ", "async def ")
_PREFIXES = sorted({header[:size] for header in _HEADERS for size in range(1, len(header))})
_PARTS = len(_PREFIXES)
_FIRST_PART = 3  # states from here on: the line begins with that much of a header

State = tuple[int, int]  # where in a line the text ends, and how many braces are open
START: State = (_LINE, 0)


def python(state: State, text: str) -> tuple[State, bool]:
    """The state after `text`, and whether a line in it begins with `def`, `class` or `async def`, after any indentation."""
    at, header = state[0], False
    for char in text.replace("\t", " "):
        part = _PREFIXES[at - _FIRST_PART] if at >= _FIRST_PART else ""
        if char in "\r\n":
            at = _LINE
        elif at == _INSIDE or (char == " " and (not part or part[-1] == " ")):
            pass
        elif part + char in _HEADERS:
            at, header = _INSIDE, True
        else:
            at = _FIRST_PART + _PREFIXES.index(part + char) if part + char in _PREFIXES else _INSIDE
    return (at, 0), header


def braces(state: State, text: str) -> tuple[State, bool]:
    """The state after `text`, and whether a `}` in it, the first of its line, leaves at most one brace open.

    So methods end, classes, functions, and the loops and branches of functions outside of classes. Braces in strings of double quotes do
    not count; a `}` at the very beginning of a line closes all.
    """
    at, depth = state
    end = False
    for char in text:
        if char in "\r\n":
            at = _LINE
        elif at in (_STRING, _ESCAPED):
            at = _STRING if at == _ESCAPED or char not in '\\"' else _ESCAPED if char == "\\" else _INSIDE
        elif char in " \t":
            at = _INDENT if at == _LINE else at
        elif char == "}":
            depth = 0 if at == _LINE else max(0, depth - 1)
            at, end = _INSIDE, end or (at != _INSIDE and depth <= 1)
        else:
            depth += char == "{"
            at = _STRING if char == '"' else _INSIDE
    return (at, depth), end


SYNTAXES = {"python": python, "braces": braces}
