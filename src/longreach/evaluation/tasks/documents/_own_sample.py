"""A few documents with questions, as `own_questions` reads them from a file, so that everything about it can be tried without one."""

from typing import Any

from longreach.evaluation.asking.records import of_values

_FERRY = """The ferry to Holm leaves from the north pier at seven in the morning and at half past four. In winter the second crossing is
left out when the wind is above force eight, and the harbour office hangs out a black ball. Bicycles travel free; dogs pay half."""
_OVEN = """Clean the oven only when it is cold. Take out the grates and wash them by hand. The door comes off when both hinges are folded
down. The lamp is of 25 watts with a small thread, and its glass turns to the left. Never spray anything on the sensor at the back."""
_MINUTES = """Present were Ms Okafor, Mr Lindqvist and Dr Raman. The budget of the reading room was passed with two votes to one. Mr
Lindqvist will ask three carpenters for offers before the end of May. The next meeting is on the ninth of June, in the small hall."""
_TREES = """Of the four old limes in the yard three were planted in 1871, in the year the school was built. The fourth is younger: it took
the place of one that lightning struck. Each spring the gardener ties back the lowest branches, so that the bus can turn."""
_RECIPE = """For the dumplings take five hundred grams of floury potatoes, boil them in their skins, and press them while they are hot. Add
two yolks, a hundred grams of starch and nutmeg. Shape balls around a cube of fried bread. They are done when they float."""
_LETTER = """Dear Marta, the parcel came on Tuesday, and only one of the cups was broken. Jonas has glued it, and now it holds his brushes.
We are moving to Tromso in August, since the institute there gave Elin the post after all. Bring boots when you visit."""

_QUESTIONS: list[dict[str, Any]] = [
    {"text": _FERRY, "question": "Who pays half on the ferry?", "answers": ["dogs", "dogs do"]},
    {"text": _FERRY, "question": "From which pier does it leave?", "answer": "the north pier"},
    {"text": _OVEN, "question": "How many watts does the lamp have?", "answers": ["25", "25 watts"]},
    {"text": _MINUTES, "question": "Who will ask for offers?", "answer": "Lindqvist", "choices": ["Okafor", "Lindqvist", "Raman"]},
    {"text": _MINUTES, "question": "Where is the next meeting?", "answer": "in the small hall"},
    {"text": _TREES, "question": "When was the school built?", "answer": "1871"},
    {"text": _RECIPE, "question": "What is inside each dumpling?", "answers": ["fried bread", "a cube of fried bread"]},
    {"text": _LETTER, "question": "What does the broken cup hold now?", "answers": ["brushes", "Jonas's brushes"]},
]

_WORD_COUNT = """count_words(text) returns a dict from each word of a text, in lower case, to how often it stands there. Words are what
white space divides."""
_RUNS = """runs(values) returns a list of pairs: each value of a list and how often it stands there in a row, in their order."""
_MEDIAN = """median(values) returns the middle one of some numbers, or the mean of the two in the middle where their number is even."""

_PROGRAMS: list[dict[str, Any]] = [
    {
        "text": _WORD_COUNT,
        "question": "Write the function that the document describes.",
        "answer": "def count_words(text):\n    found = {}\n    for word in text.lower().split():\n"
        "        found[word] = found.get(word, 0) + 1\n    return found",
        "tests": "assert count_words('A b a') == {'a': 2, 'b': 1}\nassert count_words('') == {}",
    },
    {
        "text": _RUNS,
        "question": "Write the function that the document describes.",
        "answer": "from itertools import groupby\n\ndef runs(values):\n"
        "    return [(key, len(list(same))) for key, same in groupby(values)]",
        "tests": "assert runs([1, 1, 2, 1]) == [(1, 2), (2, 1), (1, 1)]\nassert runs([]) == []",
    },
    {
        "text": _MEDIAN,
        "question": "Write the function that the document describes.",
        "answer": "from statistics import median",
        "tests": "assert median([3, 1, 2]) == 2\nassert median([4, 1, 2, 3]) == 2.5",
    },
]

SAMPLE = {False: of_values("own", _QUESTIONS), True: of_values("own_programs", _PROGRAMS)}  # by whether it is of programs
