"""The page of a ledger: bars that show what was read of each document, what was not, and what the answer goes back to. One file."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

JsonLedger = Mapping[str, Any]

_WIDTH, _HEIGHT = 760, 28
_NARROWEST = 2.0  # pixels of a place, so that short ones are seen in long documents
_LISTED = 40  # places of a kind that are listed
_SAYS = {
    "support": "the answer goes back to",
    "read": "was read, and the answer does not go back to it",
    "unread": "was never read",
}


def ledger_page(ledger: JsonLedger, answer: str, *, title: str, command: str) -> str:
    """HTML. Args: ledger: `Ledger.to_dict()`. answer: that was given, or the text that was written. command: that makes it again."""
    style = files("longreach.reports").joinpath("report.css").read_text(encoding="utf-8")
    parts = [_header(ledger, title), _answer(ledger, answer), _bars(ledger), _places(ledger), _calls(ledger)]
    content = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}{_STYLE}</style>\n</head>\n<body>\n<main>\n{content}\n"
        f"<section><h2>Again</h2><pre><code>{escape(command)}</code></pre></section>\n</main>\n</body>\n</html>\n"
    )


def _header(ledger: JsonLedger, title: str) -> str:
    cost = ledger["cost"]
    counted = "" if ledger["exact"] else " Tokens are estimates."
    recorded = f" {ledger['replayed']} of the calls were answered from a recording." if ledger["replayed"] else ""
    cut = f" {ledger['cut']} answers ended at their limit of tokens." if ledger["cut"] else ""
    made_up = f" {ledger['made_up']} sentences of notes named numbers that the text lacks." if ledger["made_up"] else ""
    return (
        f'<header><h1>{escape(title)}</h1><p class="soft">Workflow {escape(ledger["workflow"])} in windows of {ledger["window"]:,} tokens: '
        f"{cost['calls']:,} calls, {cost['read']:,} tokens read and {cost['written']:,} written."
        f"{counted}{recorded}{cut}{made_up}</p></header>"
    )


def _answer(ledger: JsonLedger, answer: str) -> str:
    stopped = f'<p class="stopped">It did not end: {escape(ledger["stopped"])}</p>' if ledger["stopped"] else ""
    said = f'<p class="answer">{escape(answer)}</p>' if answer else ""
    return f'<section><h2>Task</h2><p class="answer">{escape(ledger["task"])}</p><h2>Answer</h2>{said}{stopped}</section>'


def _bars(ledger: JsonLedger) -> str:
    if not ledger["documents"]:
        return ""
    bars = "\n".join(_bar(ledger, number, document) for number, document in enumerate(ledger["documents"]))
    key = " ".join(f'<span class="key {kind}"></span> {escape(words)}' for kind, words in _SAYS.items())
    return f'<section><h2>What was read: {ledger["coverage"]:.0%} of the text</h2><p class="note">{key}</p>{bars}</section>'


def _bar(ledger: JsonLedger, number: int, document: Mapping[str, Any]) -> str:
    length = max(1, document["characters"])
    drawn = []
    for kind in ("read", "unread", "support"):
        for span in ledger[kind]:
            if span["document"] == number:
                left, width = span["start"] / length * _WIDTH, max(_NARROWEST, (span["end"] - span["start"]) / length * _WIDTH)
                hint = f"{kind}, characters {span['start']:,} to {span['end']:,}: {span['excerpt']}"
                drawn.append(
                    f'<rect class="{kind}" x="{min(left, _WIDTH - width):.2f}" y="0" width="{width:.2f}" height="{_HEIGHT}">'
                    f"<title>{escape(hint)}</title></rect>"
                )
    said = f"{document['name']}: {document['characters']:,} characters"
    return (
        f'<figure><svg class="strip" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(said)}">'
        f"{''.join(drawn)}</svg><figcaption>{escape(said)}</figcaption></figure>"
    )


def _places(ledger: JsonLedger) -> str:
    """The places in words: a bar alone tells nothing to who cannot see it."""
    lists = []
    for kind in ("support", "unread"):
        spans: Sequence[Mapping[str, Any]] = ledger[kind]
        if not spans:
            continue
        items = "".join(
            f"<li><b>{escape(ledger['documents'][span['document']]['name'])}</b>, characters {span['start']:,} to {span['end']:,}: "
            f"{escape(span['excerpt'])}</li>"
            for span in spans[:_LISTED]
        )
        more = f"<p>… and {len(spans) - _LISTED} more.</p>" if len(spans) > _LISTED else ""
        words = "What the answer goes back to" if kind == "support" else "What was never read"
        lists.append(f"<section><h2>{words}</h2><ul>{items}</ul>{more}</section>")
    return "\n".join(lists)


def _calls(ledger: JsonLedger) -> str:
    rows = "".join(
        f"<tr><td>{call['number']}</td><td>{escape(call['role'])}</td><td>{call['read']:,}</td><td>{call['written']:,}</td>"
        f"<td>{'yes' if call['cut'] else ''}</td></tr>"
        for call in ledger["calls"]
    )
    head = "<tr><th>call</th><th>for</th><th>tokens read</th><th>written</th><th>cut at its limit</th></tr>"
    return (
        f'<section><details><summary>All {len(ledger["calls"])} calls</summary><div class="scroll"><table><thead>{head}</thead>'
        f"<tbody>{rows}</tbody></table></div></details></section>"
    )


_STYLE = """
:root { --support: #b4530a; --read: #7fa6c9; --unread: #e3e0da; }
@media (prefers-color-scheme: dark) { :root { --support: #f0a050; --read: #4d7394; --unread: #3a3833; } }
.strip { width: 100%; height: 28px; display: block; border-radius: 4px; }
rect.support, .key.support { fill: var(--support); background: var(--support); }
rect.read, .key.read { fill: var(--read); background: var(--read); }
rect.unread, .key.unread { fill: var(--unread); background: var(--unread); }
.key { display: inline-block; width: 1em; height: 1em; border-radius: 3px; vertical-align: -0.1em; margin-left: 0.8em; }
.key:first-child { margin-left: 0; }
.answer { white-space: pre-wrap; overflow-wrap: anywhere; }
.stopped { font-weight: 600; }
.scroll { overflow-x: auto; }
figure { margin: 0.6em 0; }
li { overflow-wrap: anywhere; margin: 0.3em 0; }
"""
