"""What the guide shows works: its Python, and the bodies that it sends."""

import re
from pathlib import Path

import httpx2
import pytest

from longreach.library import Library
from longreach.serving import asks
from longreach.serving.workflow import read_document
from tests.conversation.talks import talker
from tests.serving.conftest import TEMPLATE
from tests.serving.served import server

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "guide-serve.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    loaded, shelf = talker(template=TEMPLATE, max_position_embeddings=512), tmp_path_factory.mktemp("shelf")
    Library(shelf).add(*loaded, "longreach makes models work at any length.", name="readme")
    with server(loaded, ["linear:factor=4"], name="nano", chunk_size=128, read_document=read_document, library=shelf) as found:
        yield found[0]


def test_the_python_runs(url, capsys):
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL))
    exec(code.replace(ADDRESS, url), {})
    printed = capsys.readouterr().out
    assert re.search(r"^left out: turns 1-\d+ \(\d+ tokens\)", printed, re.MULTILINE)
    assert re.search(r"^0\.\d+$", printed, re.MULTILINE), "the coverage of the ledger"
    assert re.search(r"^\d+ of \d+ tokens were read before$", printed, re.MULTILINE)
    assert "{'stage': 'reading', 'done': 128, 'total': " in printed


def test_the_commands_are_answered(url):
    bodies = re.findall(rf"curl {ADDRESS}(\S+) -d '(.*?)'\n", GUIDE, re.DOTALL)
    assert len(bodies) == 2
    for path, body in bodies:
        reply = httpx2.post(f"{url}{path}", content=body, timeout=30)
        assert reply.status_code == 200, reply.text


def test_every_field_that_is_read_is_in_the_table():
    table = GUIDE[GUIDE.index("## Fields") : GUIDE.index("| field of a reply")]
    told = set(re.findall(r"`([a-z_.]+)(?:: false)?`", "".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE))))
    source = Path(asks.__file__).read_text(encoding="utf-8")
    read = set(re.findall(r'(?:fields|own|options)\.(?:text|needed_text|whole|number|flag|items|texts|inner|take)\("(\w+)"', source))
    read |= set(re.findall(r'_one_of\(fields, "(\w+)", "(\w+)"\)', source)[0])
    assert read - {"include_usage", "overflow", "read", "progress", "thinking_budget", "longreach", "stream_options"} <= told
    assert {f"longreach.{name}" for name in ("overflow", "read", "progress", "thinking_budget")} <= told
