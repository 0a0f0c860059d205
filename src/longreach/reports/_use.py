"""The part of a report that says what to do with what was found: in Python, in the shell, and in other servers."""

import json
import shlex
from html import escape
from typing import Any

_TAKES_A_VALUE = ("revision", "adapter", "dtype", "device", "device_map")
_PROMPT = "PROMPT.txt"


def use_section(data: dict[str, Any]) -> str:
    """HTML of how to use the best method, or the checkpoint that was saved under it; empty where no method could win."""
    best, saved = next((one for one in data["methods"] if one["best"]), None), data["saved"]
    if best is None:
        return ""
    if saved["folder"]:
        parts = _saved(saved)
    elif best["tuned"]:
        words = "The trained model was not saved. Run the command at the end of this page again with <code>--out DIR</code>"
        forced = "" if data["good_enough"] else " and <code>--force</code>"
        parts = [f"<p>{words}{forced}: what was trained and measured is kept, and is not done again.</p>"]
    else:
        parts = _unsaved(data, best)
    return f'<section class="use"><h2>Use it</h2>{"".join([*parts, *_servers(saved["servers"] or {})])}</section>'


def _saved(saved: dict[str, Any]) -> list[str]:
    folder = saved["folder"]
    checked = "" if saved["difference"] is None else f" Checked in plain transformers: logits differ by at most {saved['difference']:.1g}."
    if saved["exported"]:
        how = f"<p>Saved in <code>{escape(folder)}</code> as a plain checkpoint, which transformers loads without longreach.{checked}</p>"
        python = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f"tokenizer = AutoTokenizer.from_pretrained({_literal(folder)})\n"
            f"model = AutoModelForCausalLM.from_pretrained({_literal(folder)})"
        )
    else:
        how = f"<p>Saved in <code>{escape(folder)}</code>, whose <code>longreach.json</code> names the method: load it with longreach.</p>"
        python = _loaded(_literal(folder))
    return [how, code(python), code(f"longreach generate {shlex.quote(folder)} --file {_PROMPT}")]


def _unsaved(data: dict[str, Any], best: dict[str, Any]) -> list[str]:
    """The model as it was loaded, with the method on top."""
    name, options = data["loading"]["model"], {key: value for key, value in data["loading"].items() if key != "model"}
    method = best["method"]
    given = {**options, **({"method": method} if method else {})}
    arguments = [_literal(name), *(f"{key}={_literal(value)}" for key, value in given.items())]
    flags = [
        word for key, value in given.items() for word in ([_flag(key), str(value)] if key in (*_TAKES_A_VALUE, "method") else [_flag(key)])
    ]
    if not method:
        words = "The model needs no method for this length."
    elif data["good_enough"]:
        words = "Nothing was saved. The method is applied to the model when it is loaded, and the checkpoint stays as it is."
    else:
        words = "Nothing was saved, for no method was shown to be good enough. This is the best of those that were measured, to try it."
    return [
        f"<p>{words}</p>",
        code(_loaded(", ".join(arguments))),
        code(shlex.join(["longreach", "generate", name, *flags, "--file", _PROMPT])),
    ]


def _loaded(arguments: str) -> str:
    """Python that loads with longreach and writes on."""
    return (
        f"import longreach\n\nmodel, tokenizer = longreach.load({arguments})\n"
        'print("".join(longreach.generate(model, tokenizer, "A long prompt")))'
    )


def _literal(value: str | bool) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _servers(servers: dict[str, str]) -> list[str]:
    """Commands of other servers; where they have none, they say why."""
    commands = [f"<h3>{escape(name)}</h3>{code(words)}" for name, words in servers.items() if " --" in words]
    if commands:
        commands.insert(0, "<p>Other servers can run the model as it was before (MODEL), under the same method:</p>")
    none = "; ".join(words for words in servers.values() if " --" not in words)
    return [*commands, *([f'<p class="soft">{escape(none)}.</p>'] if none else [])]


def code(words: str) -> str:
    """A block of code."""
    return f"<pre><code>{escape(words)}</code></pre>"
