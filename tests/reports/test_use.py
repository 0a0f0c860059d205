"""What the page says of how a result is used."""

import ast
import html
import inspect
import re
import shlex

import typer.main

import longreach
from longreach.cli.main import make_app
from longreach.reports.report import Saved, report
from tests.evaluation.made import outcome
from tests.reports.test_report import COMMAND, SAVED


def used(saved, *, loading=None, **changes):
    """What stands under `Use it`."""
    found = outcome(**changes)
    data = report(found, command=COMMAND, loading={"model": "org/made", **(loading or {})}, text="a novel", saved=saved)
    from longreach.reports.report_page import page

    part = re.search(r'<section class="use">(.*?)</section>', page(data), re.DOTALL)[1]
    return html.unescape(part)


def test_a_plain_checkpoint_is_used_with_transformers():
    part = used(SAVED)
    assert 'model = AutoModelForCausalLM.from_pretrained("made-512")' in part
    assert "longreach generate made-512 --file PROMPT.txt" in part
    assert "logits differ by at most 2e-06" in part
    assert SAVED.servers["vllm"] in part


def test_a_checkpoint_with_a_method_of_longreach_is_used_with_longreach():
    part = used(Saved(folder="made-512", exported=False))
    assert 'longreach.load("made-512")' in part
    assert "AutoModel" not in part


def test_what_was_not_saved_is_applied_when_it_is_loaded():
    part = used(Saved(servers={"vllm": "vLLM has no option for it"}), loading={"revision": "v2", "load_in_4bit": True})
    assert 'longreach.load("org/made", revision="v2", load_in_4bit=True, method="ntk:factor=8")' in part
    assert "longreach generate org/made --revision v2 --load-in-4bit --method ntk:factor=8 --file PROMPT.txt" in part
    assert "vLLM has no option for it." in part
    assert "not shown to be good enough" not in part


def test_what_is_not_good_enough_is_offered_as_that():
    assert "no method was shown to be good enough" in used(Saved(), target_right=7)


def test_a_tuned_model_that_was_not_saved_has_to_be_trained_again():
    part = used(Saved(), tuned=300)
    assert "--out DIR" in part
    assert "longreach.load" not in part


def test_the_commands_of_the_page_parse():
    """Options and names are those that the command line and `longreach.load` have."""
    part = used(Saved(), loading={"revision": "v2", "adapter": "lora", "dtype": "bfloat16", "device": "cpu", "trust_remote_code": True})
    arguments = shlex.split(re.search(r"<code>longreach (generate .*?)</code>", part)[1])
    group = typer.main.get_command(make_app())
    with group.make_context("longreach", []) as top:
        name, verb, rest = group.resolve_command(top, arguments)
        with verb.make_context(name, rest, parent=top):
            pass  # a wrong option has raised
    call = ast.parse(re.search(r"longreach\.load\(.*?\)", part)[0]).body[0].value
    assert {keyword.arg for keyword in call.keywords} <= set(inspect.signature(longreach.load).parameters)
