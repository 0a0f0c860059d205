"""A page for each method, drawn from its file and from the rows in `docs/evidence`, and the table of all of them.

The site builds the pages (`docs/conf.py`) and they are not committed; `docs/methods.md` is the table alone.
"""

import importlib
import re
from collections.abc import Iterator, Sequence
from types import ModuleType

from longreach.core import registry
from longreach.core.catalogue import Entry, Setting
from longreach.core.kinds import Kind, kinds
from longreach.core.method import Claim, Method, format_value
from longreach.reports.evidence import Evidence, evidence_of, table

_WINDOW, _TARGET = 4096, 16_384  # of the example of what `longreach stretch` tries
_TABLE_INTRO = """\
Written by `make docs` from the methods' own files. A name leads to what the method says of itself: paper, cost, limits, settings, and
where it differs from the paper. `longreach methods NAME` prints the same, and `longreach methods --json` gives all of it to programs."""
_COMMANDS = {  # of the kinds whose parts are named by an option
    "recipe": "longreach tune MODEL --recipe {} --to LENGTH --data FOLDER --out DIR",
    "sampler": "longreach tune MODEL --sampler {} --to LENGTH --data FOLDER --out DIR",
    "task": "longreach measure MODEL --tasks {}",
    "command": "longreach {} --help",
}


def methods_page(entries: Sequence[Entry]) -> str:
    """Every method by kind, a line each."""
    parts = ["# Methods", _TABLE_INTRO]
    for kind, own in _by_kind(entries):
        rows = [
            (f'<a id="{entry.name}"></a>[`{entry.name}`](../{source(entry)})', entry.summary, entry.limits, _linked(entry.paper))
            for entry in own
        ]
        parts += [f"## {kind.name}", _about(kind), table(("name", "what it does", "limits", "paper"), rows)]
    return _page(parts)


def source(entry: Entry) -> str:
    """The method's file, below the root of the project."""
    return f"src/{registry.locate(entry.name, entry.kind).replace('.', '/')}.py"


def place(entry: Entry) -> str:
    """The method's page, below `docs`."""
    return f"methods/{entry.kind}/{entry.name}.md"


def method_pages(entries: Sequence[Entry], evidence: Evidence) -> dict[str, str]:
    """Path below `docs` -> text: the page of each method, and one that leads to those of its kind."""
    pages = {place(entry): _method_page(entry, evidence) for entry in entries}
    for kind, own in _by_kind(entries):
        lines = [f"- [`{entry.name}`]({entry.name}.md): {entry.summary}" for entry in own]
        tree = "\n".join(["```{toctree}", ":hidden:", *(entry.name for entry in own), "```"])
        pages[f"methods/{kind.name}/index.md"] = _page([f"# {kind.name}", _about(kind), "\n".join(lines), tree])
    return pages


def _by_kind(entries: Sequence[Entry]) -> Iterator[tuple[Kind, list[Entry]]]:
    for kind in kinds().values():
        if own := [entry for entry in entries if entry.kind == kind.name]:
            yield kind, own


def _about(kind: Kind) -> str:
    return (importlib.import_module(kind.package).__doc__ or "").strip()


def _method_page(entry: Entry, evidence: Evidence) -> str:
    module = registry.module(entry.name, entry.kind)
    excused = [f"`{check}`: {why}" for check, why in getattr(module, "XFAIL", {}).items()]
    facts = {
        "Kind": entry.kind,
        "Paper": f"{entry.title}, {_linked(entry.paper)}",
        "Cost": entry.cost,
        "Limits": entry.limits,
        "Differs from the paper": entry.differs,
        "Declares": ", ".join(flag.replace("_", " ") for flag in entry.flags),
        "Excused from a shared check": "; ".join(excused),
        "File": f"`{source(entry)}`",
    }
    parts = [
        f"# {entry.name}",
        entry.summary,
        "\n".join(f"- **{label}**: {text}" for label, text in facts.items() if text),
        *_settings("Settings", entry.settings, entry.arguments),
        *_settings("Settings of its fit", entry.fit, entry.fit_arguments),
        *_use(entry, module),
        *_evidence(entry, module, evidence),
    ]
    return _page(parts)


def _settings(title: str, settings: Sequence[Setting], arguments: str) -> list[str]:
    if not settings:
        return []
    meanings = explained(arguments, [setting.name for setting in settings])
    rows = [
        (f"`{s.name}`", s.type, "required" if s.required else f"`{format_value(s.default)}`", meanings.get(s.name, "")) for s in settings
    ]
    return [f"## {title}", table(("setting", "type", "default", "meaning"), rows)]


def explained(arguments: str, names: Sequence[str]) -> dict[str, str]:
    """Setting -> meaning, from `factor: at least 1. low, high: bounds.`; settings that are explained together share the words."""
    known = "|".join(map(re.escape, names))
    heads = list(re.finditer(rf"(?:^|(?<=[.)] ))(?:(?:{known})(?:, )?)+: ", arguments))
    ends = [*(head.start() for head in heads[1:]), len(arguments)]
    return {
        name: arguments[head.end() : end].strip()
        for head, end in zip(heads, ends, strict=True)
        for name in head.group().strip().removesuffix(":").split(", ")
    }


def _use(entry: Entry, module: ModuleType) -> list[str]:
    """What to write, as far as the method's file says it."""
    if entry.kind in _COMMANDS:
        return ["## Use it", _block("sh", _COMMANDS[entry.kind].format(entry.name))]
    if kinds()[entry.kind].acts_on != "model":
        return []
    method: type[Method] = module.METHOD
    stacks: Sequence[str] = getattr(module, "STACKS", ())
    if stacks:
        shown = " and ".join(f"`{each}`" for each in stacks)
        return ["## Use it", f"It stands behind another method. With settings for tiny models, the shared checks run {shown}."]
    parts = ["## Use it"]
    tried = [each.spec for each in method.suggest(_WINDOW, _TARGET)] or _stacks_on_others(method)
    required = ",".join(f"{setting.name}=..." for setting in entry.settings if setting.required)
    spec = tried[0] if tried else f"{entry.name}:{required}" if required else entry.name
    if entry.fit:
        spec = f"{entry.name}:file=FILE"
        parts.append(_block("sh", f"longreach fit MODEL {entry.name} --to {_TARGET}   # writes FILE"))
    elif tried:
        parts.append(f"Where a model that was trained on {_WINDOW} tokens is to read {_TARGET}:")
    elif not method.info.training_free:
        parts.append("On a model that was trained under it:")
    parts.append(_block("python", f'with longreach.apply(model, "{spec}"):\n    ...'))
    if len(tried) > 1:
        parts.append(f"`longreach stretch` also tries {', '.join(f'`{each}`' for each in tried[1:])}.")
    return parts


def _stacks_on_others(method: type[Method]) -> list[str]:
    """The first stack that the method suggests on another one, where it improves others."""
    for other in registry.methods():
        for base in other.suggest(_WINDOW, _TARGET):
            if found := method.suggest_on(base):
                return [f"{base.spec}+{found[0].spec}"]
    return []


def _block(language: str, code: str) -> str:
    return f"```{language}\n{code}\n```"


def _evidence(entry: Entry, module: ModuleType, evidence: Evidence) -> list[str]:
    """What was measured of the method, and which of its paper's claims were not."""
    parts = evidence_of(entry.name, evidence)
    info = getattr(module, "INFO", None) or module.METHOD.info
    measured = {(row["paper_claim"], row["condition"]) for row in evidence.claims if row["method"] == entry.name}
    unmeasured = [claim for claim in info.claims if (claim.text, claim.condition) not in measured]
    if unmeasured:
        parts += ["Claims of the paper that were not measured yet:", "\n".join(map(_unmeasured, unmeasured))]
    return ["## Evidence", *parts] if parts else []


def _unmeasured(claim: Claim) -> str:
    """A claim, and what would be measured."""
    known = claim.metric in registry.names("metric")
    meaning = registry.module(claim.metric, "metric").METRIC.meaning if known else claim.metric
    return f"- Of {claim.condition} models: {claim.text} (here: {meaning}; {claim.bounds})"


def _linked(paper: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)


def _page(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
