"""The card of one model, or a gallery of several: usable lengths by ability, drawn from the cards' JSON alone. One file, offline."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from longreach.core.lengths import format_length

JsonCard = dict[str, Any]

_ABILITIES = {
    "literal": ("Literal", "finds what stands in the text word for word"),
    "latent": ("Latent", "finds what is meant, and joins facts"),
    "ordering": ("Ordering", "knows what stands where, and what follows what"),
    "aggregation": ("Aggregation", "takes in much of the text at once"),
}
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 520, 260, 40, 16, 12, 36


def card_page(cards: Sequence[JsonCard], *, title: str, commands: Sequence[str]) -> str:
    """HTML of one or several cards (`evaluation.abilities.as_json`). Args: commands: that make them again."""
    style = files("longreach.reports").joinpath("report.css").read_text(encoding="utf-8")
    parts = [_header(cards, title), _usable(cards), _curves(cards), _maps(cards), _middle(cards), _speed(cards), _tasks(cards)]
    again = "\n".join(escape(command) for command in commands)
    content = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}{_STYLE}</style>\n</head>\n<body>\n<main>\n{content}\n"
        f"<section><h2>Again</h2><pre><code>{again}</code></pre></section>\n</main>\n</body>\n</html>\n"
    )


def name_of(card: JsonCard) -> str:
    """The model, and the method that it is under."""
    return f"{card['model']} under {card['method']}" if card["method"] else str(card["model"])


def usable_words(ability: JsonCard) -> str:
    """What is known of an ability's usable length, in a few words."""
    if ability["usable"] is None:
        return "at chance"
    if not ability["steps"]:
        return "cannot be told"
    last = ability["steps"][-1]["length"]
    reached = format_length(ability["usable"])
    return f"{reached} or more" if ability["usable"] == last else reached


def _header(cards: Sequence[JsonCard], title: str) -> str:
    units = " and ".join(dict.fromkeys(card["unit"] for card in cards))
    return (
        f'<header><h1>{escape(title)}</h1><p class="soft">How long a text may be, in {units}, for what is to be done with it. A length '
        "is usable where the whole 95 % interval keeps 85 % of the score on the shortest texts. Scores count above chance: 0 is guessing, "
        "1 is everything right.</p></header>"
    )


def _usable(cards: Sequence[JsonCard]) -> str:
    abilities = [ability for ability in _ABILITIES if any(_of(card, ability) for card in cards)]
    head = "".join(f'<th scope="col">{_ABILITIES[ability][0]}</th>' for ability in abilities)
    rows = [(card, [_usable_cell(_of(card, ability), _ABILITIES[ability][0]) for ability in abilities]) for card in cards]
    body = "".join(f'<tr><th scope="row">{escape(name_of(card))}</th>{"".join(cells)}</tr>' for card, cells in rows)
    meaning = "".join(f"<li><strong>{name}</strong> {words}.</li>" for name, words in (_ABILITIES[ability] for ability in abilities))
    return (
        f'<section><h2>Usable length</h2><div class="sheet" tabindex="0"><table><thead><tr><th scope="col">model</th>{head}'
        f'</tr></thead><tbody>{body}</tbody></table></div><ul class="note">{meaning}</ul></section>'
    )


def _usable_cell(ability: JsonCard | None, title: str) -> str:
    if ability is None:
        return f'<td data-of="{title}">not asked</td>'
    words, missed = usable_words(ability), ability["missed_at"]
    if missed:
        more = f"<small>falls short at {format_length(missed)}</small>"
    elif ability["steps"] and ability["usable"] < ability["steps"][-1]["length"]:
        more = "<small>then open</small>"
    else:
        more = ""
    return f'<td data-of="{title}"><strong>{words}</strong>{more}</td>'


def _of(card: JsonCard, ability: str) -> JsonCard | None:
    return next((one for one in card["abilities"] if one["ability"] == ability), None)


def _curves(cards: Sequence[JsonCard]) -> str:
    figures = [
        _figure(f"{_ABILITIES[ability][0]}", [(name_of(card), found) for card in cards if (found := _of(card, ability)) and found["steps"]])
        for ability in _ABILITIES
    ]
    shown = "".join(figure for figure in figures if figure)
    return f'<section><h2>Scores by length</h2><div class="grid2">{shown}</div></section>' if shown else ""


def _figure(title: str, lines: Sequence[tuple[str, JsonCard]]) -> str:
    """A score above chance against the length on a logarithmic axis, with bands, and the bar of a single line."""
    if not lines:
        return ""
    lengths = sorted({step["length"] for _, one in lines for step in one["steps"]})
    places = {length: _LEFT + (_WIDTH - _LEFT - _RIGHT) * (at / max(1, len(lengths) - 1)) for at, length in enumerate(lengths)}

    def y(score: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - min(1.0, max(-0.1, score))) / 1.1

    grid = "".join(
        f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}"/><text x="{_LEFT - 6}" y="{y(tick) + 5:.1f}" text-anchor="end">'
        f"{tick:g}</text>"
        for tick in (0, 0.5, 1)
    )
    axis = "".join(
        f'<text x="{x:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{format_length(length)}</text>' for length, x in places.items()
    )
    drawn, names = [], []
    for number, (name, one) in enumerate(lines):
        steps = one["steps"]
        upper = [f"{places[step['length']]:.1f} {y(step['high']):.1f}" for step in steps]
        lower = [f"{places[step['length']]:.1f} {y(step['low']):.1f}" for step in reversed(steps)]
        middle = "L".join(f"{places[step['length']]:.1f} {y(step['mean']):.1f}" for step in steps)
        dots = "".join(f'<circle class="mark" cx="{places[step["length"]]:.1f}" cy="{y(step["mean"]):.1f}" r="4"/>' for step in steps)
        bar = f'<path class="limit" d="M{_LEFT} {y(one["bar"]):.1f}H{_WIDTH - _RIGHT}"/>' if len(lines) == 1 else ""
        colour = f"c{number % 7 + 1}"
        band = f'<path class="band" d="M{"L".join([*upper, *lower])}Z"/>'
        drawn.append(f'{bar}<g class="line {colour}">{band}<path d="M{middle}"/>{dots}</g>')
        names.append(f'<span class="{colour}"><i></i>{escape(name)}</span>')
    said = "; ".join(f"{name}: {_said(one['steps'])}" for name, one in lines)
    return (
        f'<figure><h3>{title}</h3><svg class="chart small" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(said)}">'
        f'{grid}{axis}{"".join(drawn)}</svg><figcaption class="names">{"".join(names)}</figcaption></figure>'
    )


def _said(steps: Sequence[JsonCard]) -> str:
    return ", ".join(f"{step['mean']:.2f} at {step['length']}" for step in steps)


def _maps(cards: Sequence[JsonCard]) -> str:
    shown = "".join(_map(card) for card in cards if card["depths"])
    if not shown:
        return ""
    return (
        "<section><h2>Literal finds by depth and length</h2><p>Share of right answers: down, where the answer stands (0 is the beginning "
        f'of the text); across, the length.</p><div class="maps" style="--lengths:{_most_lengths(cards)}">{shown}</div></section>'
    )


def _most_lengths(cards: Sequence[JsonCard]) -> int:
    return max(len(card["depths"]["lengths"]) for card in cards if card["depths"])


def _map(card: JsonCard) -> str:
    found = card["depths"]
    head = "".join(f'<th scope="col">{format_length(length)}</th>' for length in found["lengths"])
    body = "".join(
        f'<tr><th scope="row">{depth:g}</th>{"".join(_heat(score) for score in scores)}</tr>'
        for depth, scores in zip(found["depths"], found["scores"], strict=True)
    )
    name = escape(name_of(card))
    return (
        f'<figure class="map" tabindex="0"><h3>{name}</h3><table aria-label="Finds of {name} by depth and length"><thead><tr>'
        f'<th scope="col">depth</th>{head}</tr></thead><tbody>{body}</tbody></table></figure>'
    )


def _heat(score: float | None) -> str:
    if score is None:
        return "<td></td>"
    return f'<td class="{"strong" if score > 0.55 else ""}" style="--v:{score:.3f}">{score:.2f}</td>'


def _middle(cards: Sequence[JsonCard]) -> str:
    """The profile over depths of all lengths: what is lost in the middle."""
    with_depths = [card for card in cards if card["depths"]]
    if not with_depths:
        return ""
    depths = with_depths[0]["depths"]["depths"]
    head = "".join(f'<th scope="col">{depth:g}</th>' for depth in depths)
    body = "".join(
        f'<tr><th scope="row">{escape(name_of(card))}</th>{_profile(card["depths"])}</tr>'
        for card in with_depths
        if card["depths"]["depths"] == depths
    )
    return (
        '<section><h2>Lost in the middle?</h2><p>The same over all lengths, by depth.</p><div class="sheet" tabindex="0"><table><thead><tr>'
        f'<th scope="col">model</th>{head}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def _profile(depths: JsonCard) -> str:
    return "".join(f'<td data-of="{depth:g}">{score:.2f}</td>' for depth, score in zip(depths["depths"], depths["profile"], strict=True))


def _speed(cards: Sequence[JsonCard]) -> str:
    rows = [
        f'<tr><th scope="row">{escape(name_of(card))}</th><td data-of="length">{format_length(one["length"])}</td>'
        f'<td data-of="tokens/s">{one["tokens_per_s"]:.0f}</td><td data-of="memory">{_megabytes(one["peak_bytes"])}</td></tr>'
        for card in cards
        for one in card["speed"]
    ]
    if not rows:
        return ""
    return (
        '<section><h2>Speed and memory</h2><div class="sheet" tabindex="0"><table><thead><tr><th scope="col">model</th>'
        '<th scope="col">length</th><th scope="col">tokens/s</th><th scope="col">memory beside the model</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.0f} MB"


def _tasks(cards: Sequence[JsonCard]) -> str:
    parts = []
    for card in cards:
        lengths = card["lengths"]
        head = "".join(f'<th scope="col">{format_length(length)}</th>' for length in lengths)
        body = "".join(_task_row(task, lengths) for task in card["tasks"])
        failed = f'<p class="note">{card["failed"]} questions got no answer, and count for nothing.</p>' if card["failed"] else ""
        parts.append(
            f'<h3>{escape(name_of(card))}</h3><div class="sheet" tabindex="0"><table><thead><tr><th scope="col">task</th>'
            f'<th scope="col">ability</th><th scope="col">metric</th><th scope="col">chance</th>{head}</tr></thead><tbody>{body}</tbody>'
            f"</table></div>{failed}"
        )
    return (
        "<section><h2>Tasks</h2><p>Mean marks with their 95 % intervals. What cannot be told from guessing is set in grey; a task that is "
        f"at chance on the shortest texts says nothing of this model, and is left out above.</p>{''.join(parts)}</section>"
    )


def _task_row(task: JsonCard, lengths: Sequence[int]) -> str:
    marks = {mark["length"]: mark for mark in task["marks"]}
    cells = "".join(_mark_cell(marks.get(length), format_length(length)) for length in lengths)
    judged = "" if task["judged"] else "<small>at chance</small>"
    return (
        f'<tr><th scope="row"><code>{escape(task["task"])}</code>{judged}</th><td data-of="ability">{task["ability"]}</td>'
        f'<td data-of="metric">{task["metric"]}</td><td data-of="chance">{task["chance"]:.2f}</td>{cells}</tr>'
    )


def _mark_cell(mark: JsonCard | None, title: str) -> str:
    if mark is None or not mark["n"]:
        return f'<td data-of="{title}">-</td>'
    grey = "" if mark["above_chance"] else ' class="soft"'
    return f'<td data-of="{title}"{grey}>{mark["mean"]:.2f}<small>{mark["low"]:.2f} to {mark["high"]:.2f}</small></td>'


_STYLE = """
.sheet td small, .sheet th small { display: block; color: var(--soft); font-weight: 400; }
.usable td strong { font-size: 1.1rem; }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 16px; }
.chart.small { min-width: 0; }
.names { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 4px 0 8px; }
.names i { display: inline-block; width: 14px; height: 4px; background: var(--colour); margin-right: 6px; vertical-align: middle; }
@media (max-width: 760px) { .sheet td[data-of] { font-size: 0.92rem; } }
ul.note { padding-left: 1.2em; }
"""
