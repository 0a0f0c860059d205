"""The page of a context probe: one chooses a word and sees what its prediction hung on. One file that opens offline."""

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longreach.analysis.context_probe import ContextProbe

_DIGITS = 3  # of numbers on the page


def probe_page(probe: "ContextProbe", words: Sequence[str], *, title: str, model: str, method: str, command: str) -> str:
    """HTML. Args: words: the text of each token, which together are the text. command: that makes the page again."""
    style, script = (files("longreach.reports").joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "probe.js"))
    longest = len(probe.losses) - 1
    data = {
        "importances": _columns(probe.importances.T), "losses": _columns(probe.losses.T), "longest": longest,
        "means": _columns([probe.mean_losses])[0],
    }  # fmt: skip
    under = f" under {method}" if method else ""
    tokens = "".join(  # spans, for buttons do not break lines where the text does
        f'<span class="token" role="button" tabindex="{-1 if at else 0}" aria-pressed="false" data-at="{at}">{escape(word)}</span>'
        for at, word in enumerate(words)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{style}
{_STYLE}</style>
</head>
<body>
<main>
<header><h1>{escape(title)}</h1>
<p class="soft">{escape(model)}{escape(under)}: every token was predicted from the 1 to {longest} tokens before it. Choose a token
to see which of them its prediction hung on.</p></header>
<section aria-label="Text"><div class="text" id="text">{tokens}</div>
<p class="note" id="said" role="status">No token is chosen. The arrow keys go from token to token.</p>
<p class="note"><span class="key helps">&nbsp;&nbsp;</span> brings the prediction nearer to that with the longest context;
<span class="key hurts">&nbsp;&nbsp;</span> takes it farther away.</p></section>
<section><h2>Loss of the chosen token by context</h2><figure><svg id="curve" class="chart" viewBox="0 0 760 220" role="img"
aria-label="Loss of the chosen token by length of the context"></svg><figcaption>Nats, by tokens of context.</figcaption></figure></section>
<section><h2>Mean loss by context</h2><figure><svg id="means" class="chart" viewBox="0 0 760 220" role="img"
aria-label="Mean loss by length of the context"></svg><figcaption>Nats, by tokens of context, over the {len(words) - longest} tokens that
have the longest one.</figcaption></figure></section>
<section><h2>Again</h2><pre><code>{escape(command)}</code></pre>
<p class="note">Method: Black-box language model explanation by context length probing, arXiv:2212.14815.</p></section>
<script type="application/json" id="data">{json.dumps(data, separators=(",", ":"))}</script>
<script>
{script}</script>
</main>
</body>
</html>
"""


def _columns(values: Iterable[Iterable[float]]) -> list[list[float | None]]:
    """Rounded, and None for what is not known, without those at the end of a row."""
    found = []
    for row in values:
        one = [None if math.isnan(value) else round(float(value), _DIGITS) for value in row]
        while one and one[-1] is None:
            one.pop()
        found.append(one)
    return found


_STYLE = """
.text { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 16px 20px; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.token { cursor: pointer; border-radius: 3px; }
.token:hover { outline: 1px solid var(--soft); }
.token:focus-visible { outline: 2px solid var(--accent); }
.token[aria-pressed="true"] { outline: 2px solid var(--ink); font-weight: 650; }
.token.far { opacity: 0.45; }
.key { border-radius: 3px; padding: 0 4px; }
.key.helps { background: var(--accent); } .key.hurts { background: var(--bad); }
#curve path, #means path { fill: none; stroke: var(--accent); stroke-width: 2.4; }
"""
