"""The report as a page: one file that opens offline, drawn from the report's structure alone."""

from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import Any

from longreach.core.lengths import format_length
from longreach.reports._charts import Point, Series, Weight, line_chart, swatch

_STOCK = "stock model"
_MOST_LINES = 8  # beside the stock model's: more cannot be told apart
Key = tuple[str, str]  # the model and the method that something was measured of


def page(data: dict[str, Any]) -> str:
    """HTML of a report (`report.report`)."""
    style = files("longreach.reports").joinpath("report.css").read_text(encoding="utf-8")
    title = f"{data['model']} at {data['target']} tokens"
    body = [_head(data), _curves(data), _table(data), _maps(data), _tuning(data), _refused(data), _how(data), _servers(data), _repeat(data)]
    content = "\n".join(part for part in body if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{content}\n"
        "</main>\n</body>\n</html>\n"
    )


def _head(data: dict[str, Any]) -> str:
    best = next((one for one in data["methods"] if one["best"]), None)
    good = data["good_enough"]
    said = f"{_name(best)} reaches {data['target']} tokens" if good and best else f"No method reaches {data['target']} tokens"
    times = data["target"] / data["trained_window"]
    purpose = "recall: any part of the text can be asked about" if data["purpose"] == "recall" else "streaming: the model reads on and on"
    return (
        f"<header><h1>{escape(data['model'])} at {data['target']} tokens</h1>"
        f'<p class="soft">Trained on {data["trained_window"]} tokens; stretched {times:.3g} times, for {purpose}.</p></header>'
        f'<section class="verdict{" good" if good else ""}" aria-label="Result"><strong>{said}</strong>'
        f"<p>{escape(data['reason'])}</p></section>"
        f"{_facts(data, best) if best else ''}"
    )


def _facts(data: dict[str, Any], best: dict[str, Any]) -> str:
    """The chosen method's numbers beside those of the model as it is, where that can read so far."""
    stock = next((one for one in data["methods"] if one["method"] == ""), best)
    changed = best is not stock
    rows = [
        ("Loss beyond the window, above inside", f"{best['rise']['mean']:+.3f} nats", f"{stock['rise']['mean']:+.3f}"),
        (f"Speed at {data['target']}", f"{best['tokens_per_s']:,.0f} tokens/s", f"{stock['tokens_per_s']:,.0f}"),
        ("Peak memory beside the model", _megabytes(best["peak_bytes"]), _megabytes(stock["peak_bytes"])),
    ]
    if best["retrieval"] is not None:
        rows.insert(0, (f"Retrieval at {data['target']}", f"{best['retrieval']['mean']:.2f}", f"{stock['retrieval']['mean']:.2f}"))
    cells = (
        f"<div><dt>{escape(name)}</dt><dd>{value}{f'<small>{_STOCK}: {before}</small>' if changed else ''}</dd></div>"
        for name, value, before in rows
    )
    return f'<dl class="facts">{"".join(cells)}</dl>'


def _curves(data: dict[str, Any]) -> str:
    drawn = _drawn(data)
    weights: dict[Key, Weight] = {_key(one): "faint" if one["screened"] else "bold" if one["best"] else "plain" for one in drawn}
    names = {_key(one): _name(one) for one in drawn}
    plain = {_key(one): _plain(one) for one in drawn}
    stock = (data["model"], "")
    if stock not in weights:  # it cannot read to the target; its curve ends before
        weights, names[stock], plain[stock] = {stock: "plain", **weights}, _STOCK, _STOCK
    numbers = {key: number for number, key in enumerate(weights)}

    def series(cells: Iterable[dict[str, Any]], value: str) -> list[Series]:
        points: dict[Key, list[Point]] = {key: [] for key in weights}
        for cell in cells:
            if _key(cell) in points:
                points[_key(cell)].append(Point(end=cell["length"], value=cell[value], low=cell["low"], high=cell["high"]))
        return [Series(label=plain[key], number=numbers[key], points=found, weight=weights[key]) for key, found in points.items() if found]

    # What was only screened read fewer texts, so its loss itself does not compare.
    losses = [row for row in data["rows"] if row["task"] == "loss" and weights.get(_key(row), "faint") != "faint"]
    rise = line_chart(
        series(data["rises"], "mean"), title="Above the stock model inside its window, nats a token",
        window=data["trained_window"], limit=data["bars"]["rise"], key="rise",
    )  # fmt: skip
    loss = line_chart(series(losses, "score"), title="Loss, nats a token", window=data["trained_window"], key="loss")
    legend = "".join(
        f"<li>{swatch(numbers[key], weight)}<span>{names[key]}{' <small>(screened)</small>' if weight == 'faint' else ''}</span></li>"
        for key, weight in weights.items()
    )
    return (
        "<section><h2>Loss against position</h2>"
        "<p>First: how much worse each token is predicted than by the stock model that reads the same tokens inside its window; at 0 "
        "nothing is lost. Second: the loss itself, of the methods measured in full; it also rises and falls with the texts. Shaded: 95 % "
        f'intervals over the texts.{_undrawn_words(data, drawn)}</p><div class="charts">{rise}{loss}</div>'
        f'<ul class="legend">{legend}</ul></section>'
    )


def _drawn(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The stock model, the best one, and as many of the others as can be told apart: from good to bad, one setting of what was screened."""
    stock = (data["model"], "")
    chosen = [one for one in data["methods"] if one["best"] or _key(one) == stock]
    room = _MOST_LINES - sum(_key(one) != stock for one in chosen)
    stacks = {_stack(one) for one in data["methods"] if not one["screened"]}
    for one in data["methods"]:
        if room and one not in chosen and not (one["screened"] and _stack(one) in stacks):
            stacks.add(_stack(one))
            chosen.append(one)
            room -= 1
    return [one for one in data["methods"] if one in chosen]


def _stack(one: dict[str, Any]) -> tuple[str, ...]:
    """The model, and the names of the methods without their settings."""
    return one["model"], *(part.partition(":")[0] for part in one["method"].split("+"))


def _undrawn_words(data: dict[str, Any], drawn: list[dict[str, Any]]) -> str:
    more = len(data["methods"]) - len(drawn)
    return f" Only the most promising methods are drawn; {more} more {'is' if more == 1 else 'are'} in the table below." if more else ""


def _table(data: dict[str, Any]) -> str:
    batch = data["settings"]["batch_size"]
    recall = data["purpose"] == "recall"
    names = ["loss inside", "loss beyond", "above inside", *(["retrieval"] if recall else []), "tokens/s", "memory", "verdict"]
    texts = {_key(row): row["n"] for row in data["rows"] if row["task"] == "loss"}
    head = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in ["method", *names])
    body = []
    for one in data["methods"]:
        few = f"<small>{texts[_key(one)]} texts</small>" if one["screened"] else ""
        cells = [f"{one[part]['mean']:.3f}{few}" for part in ("loss_inside", "loss_beyond")]
        cells.append(_signed(one["rise"]))
        if recall:
            cells.append(_share(one["retrieval"]))
        cells += [f"{one['tokens_per_s']:,.0f}", _megabytes(one["peak_bytes"]), escape(one["verdict"])]
        tags = "".join(f'<td role="cell" data-of="{name}">{cell}</td>' for name, cell in zip(names, cells, strict=True))
        best = ' class="best"' if one["best"] else ""
        body.append(f'<tr role="row"{best}><th scope="row" role="rowheader">{_name(one)}</th>{tags}</tr>')
    return (
        f"<section><h2>Methods</h2><p>Losses in nats a token: up to {data['trained_window']} tokens, from there to {data['target']}, and "
        f"above that of the stock model on the same tokens inside its window. {_retrieval_words(data)}Speed and peak memory beside the "
        f"model at {data['target']} tokens, with up to {batch} texts at once. Small print: 95 % intervals.{_screening_words(data)}</p>"
        f'<div class="sheet"><table role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead>'
        f'<tbody role="rowgroup">{"".join(body)}</tbody></table></div></section>'
    )


def _retrieval_words(data: dict[str, Any]) -> str:
    if data["purpose"] != "recall":
        return ""
    return f"Retrieval: share of right answers at {data['target']} tokens over all depths, by {data['metric']}. "


def _screening_words(data: dict[str, Any]) -> str:
    if not any(one["screened"] for one in data["methods"]):
        return ""
    prompts = " and fewer prompts" if data["purpose"] == "recall" else ""
    return f" What was only screened read fewer texts{prompts}, fewer at once: its speed and memory do not compare."


def _maps(data: dict[str, Any]) -> str:
    rows = [row for row in data["rows"] if row["settings"]["metric"] == data["metric"]]
    if not rows:
        return ""
    task = rows[0]["task"]
    maps = [(one, _map(data, one, [row for row in rows if _key(row) == _key(one)])) for one in data["methods"]]
    full = "".join(html for one, html in maps if not one["screened"])
    screened = "".join(html for one, html in maps if one["screened"])
    wide = f'<div class="maps" style="--lengths:{len({row["length"] for row in rows})}">'
    more = f"<details><summary>Methods that were only screened</summary>{wide}{screened}</div></details>" if screened else ""
    return (
        f"<section><h2>Retrieval by depth and length</h2><p>Share of right answers ({escape(task)}): down, where the fact stands (0 is the "
        f"beginning of the text); across, the length in tokens. Lengths beyond the trained window are underlined.</p>"
        f"{wide}{full}</div>{more}</section>"
    )


def _map(data: dict[str, Any], method: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    lengths = sorted({row["length"] for row in rows})
    scores = {(row["depth"], row["length"]): row["score"] for row in rows}
    head = "".join(f'<th scope="col">{format_length(length)}</th>' for length in lengths)
    body = []
    for depth in sorted({row["depth"] for row in rows}):
        cells = "".join(_heat(scores[depth, length], past=length > data["trained_window"]) for length in lengths)
        body.append(f'<tr><th scope="row">{depth:g}</th>{cells}</tr>')
    return (
        f'<figure class="map" tabindex="0"><h3>{_name(method)}</h3>'
        f'<table aria-label="Retrieval of {escape(_plain(method))} by depth and length">'
        f'<thead><tr><th scope="col">depth</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
        f"<figcaption>{rows[0]['n']} prompts a cell</figcaption></figure>"
    )


def _heat(score: float, *, past: bool) -> str:
    kinds = " ".join(name for name, holds in (("strong", score > 0.55), ("past", past)) if holds)
    return f'<td class="{kinds}" style="--v:{score:.3f}">{score:.2f}</td>'


def _tuning(data: dict[str, Any]) -> str:
    if data["tuning"] is None:
        return ""
    return f"<section><h2>Tuning</h2>{''.join(f'<p>{escape(sentence)}</p>' for sentence in data['tuning']['words'])}</section>"


def _refused(data: dict[str, Any]) -> str:
    items = "".join(f"<dt>{_code_name(one['method'])}</dt><dd>{escape(one['why'])}</dd>" for one in data["not_applicable"])
    refused = f'<section><h2>Not applicable to this model</h2><dl class="plain">{items}</dl></section>' if items else ""
    names = ", ".join(map(_code_name, data["not_tried"]))
    return refused + (f"<section><h2>Not tried, for lack of time</h2><p>{names}</p></section>" if names else "")


def _how(data: dict[str, Any]) -> str:
    return f"<section><h2>How the choice was made</h2><p>{escape(data['rule'])}</p></section>"


def _servers(data: dict[str, Any]) -> str:
    saved = data["saved"]
    parts = []
    if saved["folder"]:
        how = (
            "any program that reads transformers checkpoints"
            if saved["exported"]
            else "longreach, which reads the method from its longreach.json"
        )
        checked = (
            "" if saved["difference"] is None else f" Checked in plain transformers: logits differ by at most {saved['difference']:.1g}."
        )
        parts.append(f"<p>Saved in <code>{escape(saved['folder'])}</code>, for {how}.{checked}</p>")
    for server, words in (saved["servers"] or {}).items():
        command = " --" in words  # else it says why there is none
        parts.append(f"<h3>{escape(server)}</h3>{_code(words) if command else f'<p>{escape(words)}</p>'}")
    return f"<section><h2>Use it</h2>{''.join(parts)}</section>" if parts else ""


def _repeat(data: dict[str, Any]) -> str:
    settings, machine = data["settings"], data["machine"]
    facts = {
        "versions": ", ".join(f"{name} {version}" for name, version in data["versions"].items()),
        "machine": f"{machine['system']}, {machine['cpus']} CPUs, {machine['threads']} threads, {machine['device']}, {machine['dtype']}",
        "text": f"{data['text']['source']}, sha256 {data['text']['sha256']}",
        "measured": f"{settings['windows']} texts; {settings['samples']} prompts of each depth and length, depths "
        f"{', '.join(f'{depth:g}' for depth in settings['depths'])}; seed {settings['seed']}",
        "run": f"{settings['chunk_size']} tokens a forward, up to {settings['batch_size']} inputs at once; memory by {settings['memory']}",
        "weights": settings["weights"],
        "date": data["date"],
    }
    items = "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    return f'<section><h2>Repeat it</h2>{_code(data["command"])}<dl class="plain">{items}</dl></section>'


def _code(words: str) -> str:
    return f"<pre><code>{escape(words)}</code></pre>"


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


def _share(interval: dict[str, Any]) -> str:
    return f"{interval['mean']:.2f}<small>{interval['low']:.2f} to {interval['high']:.2f}</small>"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
