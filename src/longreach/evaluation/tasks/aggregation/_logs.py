"""Logs made from templates, or read from a file, and how a parsed log is scored."""

import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from longreach.core.errors import InputError

ANY = "<*>"

_TEMPLATES = """
Accepted password for {user} from {ip} port 22
Failed password for {user} from {ip} port 22
Connection closed by {ip} after {number} ms
Connection refused by {ip} after {number} ms
Session {hex} opened for user {user} on tty1
Session {hex} closed for user {user} on tty1
Started job {hex} on node {host} with 4 workers
Finished job {hex} on node {host} in {number} s
Block {hex} replicated from {host} to {host}
Block {hex} deleted on {host}
Disk usage of {path} is at {number} percent
Disk check of {path} found 0 errors
Service {service} changed to state {state}
Service {service} restarted by {user}
GET {path} returned 200 in {number} ms
POST {path} returned 201 in {number} ms
Cache {service} evicted {number} entries of size 512
Cache {service} loaded {number} entries of size 512
Queue {service} has {number} messages, limit 1000
Worker {number} took task {hex} from queue {service}
Backup of {path} to {host} took {number} s
Temperature of sensor {number} on {host} is {number} C
Certificate for {host} expires in {number} days
Retrying request {hex} to {host}, attempt {number} of 5
"""
TEMPLATES = tuple(_TEMPLATES.strip().splitlines())
_USERS = (
    "root",
    "admin",
    "guest",
    "deploy",
    "backup",
    "alice",
    "bruno",
    "carla",
    "dmitri",
    "erika",
    "farid",
    "www-data",
    "postgres",
    "nobody",
)
_SERVICES = ("billing", "search", "mail", "auth", "metrics", "images", "orders", "gateway", "scheduler", "reports", "profiles", "payments")
_STATES = ("active", "idle", "degraded", "stopped", "maintenance", "starting")
_FOLDERS = ("/var/log", "/srv/data", "/home/shared", "/opt/app", "/mnt/backup", "/usr/share")


class Message(NamedTuple):
    """A message, and its template, with `<*>` for each part that varies."""

    content: str
    template: str


def template_of(pattern: str) -> str:
    """The template of a pattern with named parts."""
    return " ".join(_starred(word) for word in pattern.split())


def _starred(word: str) -> str:
    return f"{ANY}{word[word.index('}') + 1 :]}" if word.startswith("{") else word


def made(pattern: str, rng: np.random.Generator) -> Message:
    """A message of a pattern."""
    return Message(" ".join(_filled(word, rng) for word in pattern.split()), template_of(pattern))


def _filled(word: str, rng: np.random.Generator) -> str:
    if not word.startswith("{"):
        return word
    name, _, rest = word[1:].partition("}")
    lists = {"user": _USERS, "service": _SERVICES, "state": _STATES}
    if name in lists:
        value = lists[name][int(rng.integers(len(lists[name])))]
    elif name == "ip":
        value = ".".join(map(str, [10, *rng.integers(1, 255, size=3).tolist()]))
    elif name == "hex":
        value = rng.bytes(4).hex()
    elif name == "host":
        value = f"node{int(rng.integers(1, 200)):03}"
    elif name == "path":
        value = f"{_FOLDERS[int(rng.integers(len(_FOLDERS)))]}/part-{int(rng.integers(1, 1000))}"
    else:
        value = str(int(rng.integers(1, 1000)))
    return value + rest


def of_file(path: Path) -> tuple[Message, ...]:
    """The messages of a CSV file with the columns `Content` and `EventTemplate`, as Loghub's structured logs.

    Raises: InputError where it has no such columns or no lines.
    """
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, changed: int) -> tuple[Message, ...]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        if not {"Content", "EventTemplate"} <= set(rows.fieldnames or ()):
            raise InputError(f"{path} has no columns Content and EventTemplate; give a structured log as Loghub has them")
        found = tuple(Message(_plain(row["Content"]), _plain(row["EventTemplate"])) for row in rows if row["Content"])
    if not found:
        raise InputError(f"{path} has no messages")
    return found


def _plain(text: Any) -> str:
    return " ".join(str(text).split())


def parsed(lines: Sequence[Message], templates: Sequence[str]) -> list[str | None]:
    """For each line the template that fits it, of several the one with most letters of its own; None where none fits."""
    split = [(template, template.split(ANY)) for template in dict.fromkeys(templates)]
    split.sort(key=lambda one: -len(one[0].replace(ANY, "")))
    return [next((template for template, parts in split if _fits(parts, line.content)), None) for line in lines]


def _fits(parts: Sequence[str], text: str) -> bool:
    """Whether a text is made of the parts with anything between them, or nothing, as in some of Loghub's messages."""
    if len(parts) == 1:
        return text == parts[0]
    first, *middle, last = parts
    if not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return at <= end


class Scores(NamedTuple):
    """Grouping accuracy and its F1 over templates; parsing accuracy and its F1 over templates. All 0 to 1."""

    ga: float
    fga: float
    pa: float
    fta: float


def scores(lines: Sequence[Message], found: Sequence[str | None]) -> Scores:
    """Of a log whose lines were given templates. A line that was given none is in no group.

    ga: share of lines whose group has all lines of their true template, and no others. fga: F1 of such groups. pa: share of lines with
    exactly the true template. fta: F1 of templates that are true ones of exactly the lines of their group.
    """
    true, group = Counter(line.template for line in lines), Counter(found)
    given, said = defaultdict[str, set[str | None]](set), defaultdict[str | None, set[str]](set)
    for line, one in zip(lines, found, strict=True):
        given[line.template].add(one)
        said[one].add(line.template)
    grouped = [
        template for template, ones in given.items() if len(ones) == 1 for one in ones if one is not None and group[one] == true[template]
    ]
    exact = sum(line.template == one for line, one in zip(lines, found, strict=True))
    correct = sum(one is not None and templates == {one} for one, templates in said.items())
    groups = len(said) - (None in said)
    return Scores(
        ga=sum(true[template] for template in grouped) / len(lines), fga=_f1(len(grouped), groups, len(true)), pa=exact / len(lines),
        fta=_f1(correct, groups, len(true)),
    )  # fmt: skip


def _f1(correct: int, found: int, true: int) -> float:
    return 2 * correct / (found + true)
