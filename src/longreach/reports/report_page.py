"""The report as a page: one file that opens offline, drawn from the report's structure alone."""

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import Any

from longreach.core.lengths import format_length
from longreach.reports._charts import COLOURS, Point, Series, line_chart
from longreach.reports._use import code, use_section
from longreach.reports.words import MEMORY_SOURCES, NEEDLES, RISE, found

_STOCK = "stock model"
Key = tuple[str, str]  # the model and the method that something was measured of


def page(data: dict[str, Any]) -> str:
    """HTML of a report (`report.report`)."""
    style = files("longreach.reports").joinpath("report.css").read_text(encoding="utf-8")
    data = {**data, "methods": _in_order(data)}
    body = [
        _head(data), use_section(data), _facts(data), _maps(data), _curves(data), _table(data), _tuning(data), _refused(data), _how(data),
        _repeat(data),
    ]  # fmt: skip
    content = "\n".join(part for part in body if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(_title(data))}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{content}\n"
        "</main>\n</body>\n</html>\n"
    )


def _in_order(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The chosen method first, then the model as it is, then the others from good to bad."""
    return sorted(data["methods"], key=lambda one: (not one["best"], one["screened"], _key(one) != (data["model"], "")))  # stable


def _title(data: dict[str, Any]) -> str:
    return f"{data['model']} at {data['target']} tokens"


def _best(data: dict[str, Any]) -> dict[str, Any] | None:
    return next((one for one in data["methods"] if one["best"]), None)


def _head(data: dict[str, Any]) -> str:
    best, target = _best(data), data["target"]
    if data["good_enough"] and best:
        said = f"{_name(best)} reaches {target} tokens" if best["label"] else f"The model reaches {target} tokens as it is"
    elif data["undecided"] and best:
        said = f"It cannot be told yet whether {_name(best)} reaches {target} tokens"
    else:
        said = f"No method reaches {target} tokens"
    times = target / data["trained_window"]
    purpose = "any part of the text can be asked about (recall)" if data["purpose"] == "recall" else "the model reads on and on (streaming)"
    return (
        f"<header><h1>{escape(_title(data))}</h1>"
        f'<p class="soft">Trained on {data["trained_window"]} tokens; stretched {times:.3g} times, so that {purpose}.</p></header>'
        f'<section class="verdict{" good" if data["good_enough"] else ""}" aria-label="Result"><strong>{said}</strong>'
        f"<p>{escape(data['reason'])}</p></section>"
    )


def _facts(data: dict[str, Any]) -> str:
    """The best method's numbers beside those of the model as it is, where that can read so far."""
    best = _best(data)
    if best is None:
        return ""
    stock = next((one for one in data["methods"] if _key(one) == (data["model"], "")), best)
    memory = _megabytes(stock["peak_bytes"]) if stock["memory_compares"] else f"{stock['inputs_at_once']} at once, does not compare"
    rows = [
        (RISE, f"{best['rise']['mean']:+.3f} nats", f"{stock['rise']['mean']:+.3f}"),
        (f"Speed at {data['target']} tokens", f"{best['tokens_per_s']:,.0f} tokens/s", f"{stock['tokens_per_s']:,.0f}"),
        ("Peak memory on top of the weights", _megabytes(best["peak_bytes"]), memory),
    ]
    if best["retrieval"] is not None:
        rows.insert(0, (f"{NEEDLES} at {best['length']} tokens", found(best), _found_at(stock, best["length"])))
    cells = (
        f"<div><dt>{escape(name)}</dt><dd>{value}{f'<small>{_STOCK}: {before}</small>' if best is not stock else ''}</dd></div>"
        for name, value, before in rows
    )
    return f'<dl class="facts">{"".join(cells)}</dl>'


def _curves(data: dict[str, Any]) -> str:
    """How the loss goes with the position, of what was measured in full."""
    full = [one for one in data["methods"] if not one["screened"]]
    stock = (data["model"], "")
    keys = [stock, *(_key(one) for one in full if _key(one) != stock)][:COLOURS]  # the stock model's curve may end before the target
    labels = {_key(one): one["label"] for one in full} | {stock: _STOCK}
    best = _best(data)
    points: dict[Key, list[Point]] = {key: [] for key in keys}
    for cell in data["rises"]:
        if _key(cell) in points:
            points[_key(cell)].append(Point(end=cell["length"], value=cell["mean"], low=cell["low"], high=cell["high"]))
    chart = line_chart(
        [
            Series(label=labels[key], number=keys.index(key), points=found, bold=best is not None and _key(best) == key)
            for key, found in points.items()
            if found
        ],
        title=f"{RISE}, nats a token", window=data["trained_window"], limit=data["bars"]["rise"], key="rise",
    )  # fmt: skip
    more = len({_key(one) for one in full} - set(keys))
    undrawn = f" {more} more {'is' if more == 1 else 'are'} in the table." if more else ""
    return (
        "<section><h2>Loss by position in the text</h2>"
        "<p>How much worse each token is predicted than by the stock model when that reads the same tokens within its trained window. At 0 "
        f"nothing is lost; where a line climbs, a method ends. Shaded: 95 % intervals over blocks of text.{undrawn}</p>"
        f"{chart}</section>"
    )


def _table(data: dict[str, Any]) -> str:
    full, screened = ([one for one in data["methods"] if one["screened"] is kind] for kind in (False, True))
    recall = _asked(data)
    window, target = data["trained_window"], data["target"]
    same = "by the stock model (the model without a method) when it reads the same tokens within its trained window"
    meanings = {
        **({NEEDLES: f"right answers to questions about facts in the text, at {target} tokens"} if recall else {}),
        RISE: f"nats a token: by how much the tokens from {window} to {target} are predicted worse than {same}",
        "Tokens/s": f"read and written at {target} tokens",
        "Memory": f"at {target} tokens, on top of the weights; {MEMORY_SOURCES[data['settings']['memory']]}. It stands only where as many "
        "texts were read at once as in the first row",
        "Lost on the way": f"a method that is lost before {target} tokens, as its result says, was measured up to there and no farther",
    }
    few = ""
    if screened:
        few = (
            "<details><summary>Methods that were only screened</summary><p>They were measured on one text, to choose which to measure on "
            f"more.</p>{_sheet(data, screened)}</details>"
        )
    terms = "".join(f"<dt>{name}</dt><dd>{escape(words)}</dd>" for name, words in meanings.items())
    return (
        f'<section><h2>Methods</h2>{_sheet(data, full)}<p class="note">Small print: 95 % intervals.</p><dl class="plain note">{terms}</dl>'
        f"{few}</section>"
    )


def _sheet(data: dict[str, Any], methods: Iterable[dict[str, Any]]) -> str:
    """A table with a row for each of the methods."""
    recall = _asked(data)
    names = [*([NEEDLES] if recall else []), RISE, "Tokens/s", "Memory", "Result"]
    head = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in ["Method", *names])
    body = []
    for one in methods:
        cells = [_found(one)] if recall else []
        cells += [_signed(one["rise"])]
        memory = _megabytes(one["peak_bytes"]) if one["memory_compares"] else f"<small>{one['inputs_at_once']} at once</small>"
        cells += [f"{one['tokens_per_s']:,.0f}", memory, escape(one["verdict"])]
        tags = "".join(f'<td role="cell" data-of="{name}">{cell}</td>' for name, cell in zip(names, cells, strict=True))
        best = ' class="best"' if one["best"] else ""
        body.append(f'<tr role="row"{best}><th scope="row" role="rowheader">{_name(one)}</th>{tags}</tr>')
    return (
        f'<div class="sheet"><table class="words" role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(body)}</tbody></table></div>'
    )


def _maps(data: dict[str, Any]) -> str:
    rows = [row for row in data["rows"] if row["settings"]["metric"] == data["metric"]]
    if not rows:
        return ""
    maps = [(one, _map(data, one, of)) for one in data["methods"] if (of := [row for row in rows if _key(row) == _key(one)])]
    full = "".join(html for one, html in maps if not one["screened"])
    screened = "".join(html for one, html in maps if one["screened"])
    wide = f'<div class="maps" style="--lengths:{len({row["length"] for row in rows})}">'
    more = f"<details><summary>Methods that were only screened</summary>{wide}{screened}</div></details>" if screened else ""
    return (
        f"<section><h2>Retrieval by depth and length</h2><p>A fact is hidden in a text (<code>{escape(rows[0]['task'])}</code>), and the "
        "model is asked about it at the end. Share of right answers: down, where the fact stands (0 is the beginning of the text); across, "
        "the length of the text in tokens. Lengths past the trained window are underlined.</p>"
        f"{wide}{full}</div>{more}</section>"
    )


def _map(data: dict[str, Any], method: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    lengths = sorted({row["length"] for row in rows})
    scores = {(row["depth"], row["length"]): row["score"] for row in rows}
    head = "".join(f'<th scope="col">{format_length(length)}</th>' for length in lengths)
    body = []
    for depth in sorted({row["depth"] for row in rows}):
        cells = "".join(
            _heat(scores[depth, length], past=length > data["trained_window"]) if (depth, length) in scores else "<td></td>"
            for length in lengths
        )
        body.append(f'<tr><th scope="row">{depth:g}</th>{cells}</tr>')
    return (
        f'<figure class="map" tabindex="0"><h3>{_name(method)}</h3>'
        f'<table aria-label="Retrieval under {escape(_plain(method))} by depth and length">'
        f'<thead><tr><th scope="col">depth</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
        f"<figcaption>{_counts([row['n'] for row in rows])} a cell</figcaption></figure>"
    )


def _counts(counts: list[int]) -> str:
    least, most = min(counts), max(counts)
    return f"{most} {'question' if most == 1 else 'questions'}" if least == most else f"{least} to {most} questions"


def _heat(score: float, *, past: bool) -> str:
    kinds = " ".join(name for name, holds in (("strong", score > 0.55), ("past", past)) if holds)
    return f'<td class="{kinds}" style="--v:{score:.3f}">{score:.2f}</td>'


def _tuning(data: dict[str, Any]) -> str:
    if data["tuning"] is None:
        return ""
    return f"<section><h2>Tuning</h2>{''.join(f'<p>{escape(sentence)}</p>' for sentence in data['tuning']['words'])}</section>"


def _refused(data: dict[str, Any]) -> str:
    reasons: dict[str, list[str]] = {}
    for one in data["not_applicable"]:
        reasons.setdefault(one["why"], []).append(_code_name(one["method"]))
    items = "".join(f"<dt>{'<br>'.join(names)}</dt><dd>{escape(why)}</dd>" for why, names in reasons.items())
    refused = f'<section><h2>Not applicable to this model</h2><dl class="plain">{items}</dl></section>' if items else ""
    names = ", ".join(map(_code_name, data["not_tried"]))
    return refused + (f"<section><h2>Not tried, for lack of time</h2><p>{names}</p></section>" if names else "")


def _how(data: dict[str, Any]) -> str:
    return f"<section><h2>How the choice was made</h2><p>{escape(data['rule'])}</p></section>"


def _repeat(data: dict[str, Any]) -> str:
    settings, machine = data["settings"], data["machine"]
    facts = {
        "versions": ", ".join(f"{name} {version}" for name, version in data["versions"].items()),
        "machine": f"{machine['system']}, {machine['cpus']} CPUs, {machine['threads']} threads, {machine['device']}, {machine['dtype']}",
        "text": f"{data['text']['source']}, sha256 {data['text']['sha256']}",
        "measured": f"{_measured(settings)}depths {', '.join(f'{depth:g}' for depth in settings['depths'])}; seed {settings['seed']}",
        "run": f"{settings['chunk_size']} tokens a forward pass, up to {settings['batch_size']} texts at once",
        "weights": settings["weights"],
        "date": data["date"],
    }
    items = "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    return f'<section><h2>Repeat it</h2>{code(data["command"])}<dl class="plain">{items}</dl></section>'


def _measured(settings: dict[str, Any]) -> str:
    texts = f"{settings['windows']} {'text' if settings['windows'] == 1 else 'texts'}"
    if settings["samples"] is None:
        return f"until it was decided, on {texts} at most; "
    return f"{texts}; {settings['samples']} {'question' if settings['samples'] == 1 else 'questions'} for each depth and length of a text, "


def _asked(data: dict[str, Any]) -> bool:
    """Whether any method was judged by retrieval."""
    return any(one["retrieval"] is not None for one in data["methods"])


def _key(cell: dict[str, Any]) -> Key:
    return cell["model"], cell["method"]


def _plain(method: dict[str, Any]) -> str:
    return method["label"] or _STOCK


def _name(method: dict[str, Any]) -> str:
    """A method for people to read."""
    return _code_name(method["method"]) + escape(method["label"].removeprefix(method["method"]))


def _code_name(spec: str) -> str:
    """Long specs may break at their marks."""
    if not spec:
        return _STOCK
    text = escape(spec)
    for mark in ":,+":
        text = text.replace(mark, f"{mark}<wbr>")
    return f"<code>{text}</code>"


def _signed(interval: dict[str, Any]) -> str:
    """A mean of differences; its interval is as wide to both sides."""
    half = "" if interval["low"] is None else f"<small>± {interval['high'] - interval['mean']:.3f}</small>"
    return f"{interval['mean']:+.3f}{half}"


def _found(method: dict[str, Any]) -> str:
    """Needles, and the interval of their share."""
    interval = method["retrieval"]
    return f"{found(method)}<small>{interval['low']:.2f} to {interval['high']:.2f}</small>" if interval else ""


def _found_at(method: dict[str, Any], length: int) -> str:
    """Needles, with the length where that is another one."""
    return found(method) + ("" if method["length"] == length else f" at {method['length']} tokens")


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
