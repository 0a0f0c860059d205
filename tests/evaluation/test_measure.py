import warnings
from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from longreach.core.errors import InputError, LongreachError, SpecError, UnsupportedError
from longreach.core.progress import Progress
from longreach.engine.apply import apply
from longreach.evaluation.measure import measure, name_of, octaves, parse_tasks
from longreach.evaluation.rows import Rows
from longreach.evaluation.usable import usable_length
from longreach.positions.scaling.linear import Linear
from longreach.testing.models import tiny_learned, tiny_model
from tests.evaluation.samples import VOCABULARY, Copier, real_text, tokenizer

SETTINGS = {"name": "tiny", "to": 512, "text": real_text(), "windows": 2, "samples": 1, "depths": (0.0, 1.0)}


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


class Counter(Progress):
    """Adds up what it is told."""

    def __init__(self):
        self.totals, self.done = {}, 0

    def start(self, label, total):
        self.totals[label] = self.totals.get(label, 0) + total

    def advance(self, tokens):
        self.done += tokens


def run(model, **changes):
    return measure(model, tokenizer(), **{**SETTINGS, **changes})


def scores(rows):
    return {row.identity: row.score for row in rows}


def test_octaves():
    assert octaves(512, 4096) == (64, 128, 256, 512, 1024, 2048, 4096)
    assert octaves(512, 512) == (64, 128, 256, 512)
    assert octaves(500, 1100) == (125, 250, 500, 1000, 1100)
    assert octaves(50, 100) == (50, 100)


def test_every_cell_is_measured_with_speed_and_memory(model):
    rows = run(model)
    cells = {(row.task, row.settings["metric"], row.length, row.depth) for row in rows}
    expected = {("loss", "loss", length, None) for length in (64, 128, 256, 512)}
    expected |= {("loss_inside:window_size=128", "loss", length, None) for length in (256, 512)}
    lengths = (128, 256, 512)
    expected |= {
        ("needle:shared=true", metric, length, depth) for metric in ("likelihood", "generation") for length in lengths for depth in (0, 1)
    }
    assert cells == expected
    blocks = {64: 1, 128: 1, 256: 2, 512: 4}  # of 64 tokens
    for text in {row.settings["text"] for row in rows if row.task == "loss"}:
        spans = [row.settings["span"] for row in rows if row.task == "loss" and row.settings["text"] == text]
        assert [end for _, end in spans] == [64 * number for number in range(1, 9)]
        assert [begin for begin, _ in spans] == [1, *(end for _, end in spans[:-1])]
    assert len(rows) == 2 * (sum(blocks.values()) + blocks[256] + blocks[512]) + 2 * 3 * 2 * 2
    assert all(row.tokens_per_s > 0 and row.peak_bytes >= 0 and row.model == "tiny" and row.version for row in rows)


def test_the_same_again_is_the_same(model):
    assert scores(run(model)) == scores(run(model))


def test_seeds_change_prompts_and_not_windows(model):
    first, second = run(model), run(model, seed=1)
    same = scores(first).keys() & scores(second).keys()
    assert same == {row.identity for row in first if row.settings["metric"] == "loss"}


def test_nothing_is_measured_twice(model, tmp_path):
    rows = Rows(tmp_path / "rows.jsonl")
    first = run(model, rows=rows)
    counter = Counter()
    again = run(model, rows=Rows(tmp_path / "rows.jsonl"), progress=counter)
    assert again == first
    assert (counter.totals, counter.done) == ({}, 0)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == len(first)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_killed_run_goes_on_where_it_stopped(model, tmp_path, share):
    path = tmp_path / "rows.jsonl"
    first = Counter()
    whole = run(model, rows=Rows(path), progress=first, batch_size=1, to=256)
    data = path.read_bytes()
    cut = data.rindex(b"\n", 0, int(len(data) * share)) + 40  # in the middle of a line
    path.write_bytes(data[:cut])
    kept = data[:cut].count(b"\n")
    rows, counter = Rows(path), Counter()
    assert rows.healed
    assert len(rows) == kept
    again = run(model, rows=rows, progress=counter, batch_size=1, to=256)
    assert scores(again) == scores(whole)
    assert path.read_bytes().startswith(data[: data.rindex(b"\n", 0, cut) + 1])
    lines = path.read_bytes().splitlines()
    # The rows of an input come together: only those of the input that was cut may be there twice.
    assert len(whole) <= len(lines) <= len(whole) + 3
    unfinished = 1 if kept >= len(whole) / 2 else 2  # of two texts
    assert 0 < sum(counter.totals.values()) <= unfinished / 2 * first.done


def test_progress_reaches_its_total(model):
    counter = Counter()
    run(model, progress=counter, chunk_size=100)
    assert list(counter.totals) == ["loss and needle", "loss_inside"]
    assert counter.done == sum(counter.totals.values())


def test_more_samples_keep_the_first_ones(model, tmp_path):
    path, tasks = tmp_path / "rows.jsonl", parse_tasks("passkey")
    few = run(model, tasks=tasks, text=None, windows=None, rows=Rows(path))
    counter = Counter()
    many = run(model, tasks=tasks, text=None, windows=None, samples=3, rows=Rows(path), progress=counter)
    assert len(many) == 3 * len(few)
    assert scores(few).items() <= scores(many).items()
    assert counter.totals == {"passkey": 2 * 2 * (256 + 512 - 16)}  # two samples at two depths; 8 tokens are kept for each answer


def test_batches_change_nothing(model):
    alone, together = run(model, batch_size=1), run(model, batch_size=8, samples=1)
    for one, other in zip(alone, together, strict=True):
        assert replace(one, settings={**one.settings, "batch_size": 8}).identity == other.identity
        assert one.score == pytest.approx(other.score, abs=1e-5)


def test_another_model_or_method_is_measured_anew(model):
    other = tiny_model(vocab_size=VOCABULARY, seed=1)
    tasks = parse_tasks("loss")
    rows = Rows()
    for measured, method in ((model, ""), (other, ""), (model, "linear:factor=4.0")):
        run(measured, tasks=tasks, samples=None, depths=None, method=method, rows=rows)
    assert len(rows) == 3 * 2 * 8
    assert {row.method for row in rows} == {"", "linear:factor=4"}


def test_a_model_that_was_saved_and_loaded_is_not_measured_anew(tmp_path):
    model = tiny_model(vocab_size=VOCABULARY)
    rows, settings = Rows(), {"tasks": parse_tasks("loss"), "samples": None, "depths": None}
    run(model, rows=rows, **settings)
    model.save_pretrained(tmp_path)
    run(type(model).from_pretrained(tmp_path).eval(), rows=rows, **settings)
    assert len(rows) == 2 * 8


def test_a_method_is_at_work_and_undone(model):
    tasks, ids = parse_tasks("loss"), torch.arange(3, 300)[None]
    with torch.no_grad():
        before = model(ids).logits
        stock, stretched = (run(model, tasks=tasks, samples=None, depths=None, method=spec) for spec in ("", "linear:factor=4"))
        assert torch.equal(model(ids).logits, before)
    assert all(a.score != b.score for a, b in zip(stock, stretched, strict=True))


def test_the_usable_length_of_a_model_that_forgets():
    settings = {"tasks": parse_tasks("passkey+needle"), "to": 1024, "trained_window": 256, "windows": 1, "samples": 18}
    usable = usable_length(run(Copier(window=400), **settings), 256)
    assert (usable.by_retrieval, usable.missed_at) == (256, 512)
    assert usable.misses == {"needle": 0.5, "passkey": 0.5}  # found at depth 1, lost at depth 0
    perfect = run(Copier(), **settings)
    assert {row.score for row in perfect} == {1.0}
    assert usable_length(perfect, 256, metric="generation").by_retrieval == 1024


def test_inside_the_window_is_an_ordinary_question(model):
    rows = run(model, to=100, tasks=parse_tasks("loss"), samples=None, depths=None)
    assert sorted({row.length for row in rows}) == [100]
    usable = usable_length(rows, 128)
    assert (usable.by_loss, usable.measured_to, usable.rise) == (100, 100, None)


def gpt2(positions):
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=positions, n_embd=32, n_layer=1, n_head=2)).eval()


def test_a_table_of_positions_is_measured_to_its_end_and_not_beyond():
    rows = run(gpt2(512), to=512)
    assert usable_length(rows, 512).by_loss == 512
    with pytest.raises(
        InputError, match="cannot read beyond 512 tokens: its table of positions ends there; measure to 512 at most, or under"
    ):
        run(gpt2(512), to=1024)


def test_what_a_table_does_not_hold_is_left_out_on_demand_and_read_under_a_method():
    settings = {"to": 512, "trained_window": None, "tasks": parse_tasks("loss"), "samples": None, "depths": None}
    short = run(gpt2(256), within_reach=True, **settings)
    assert {row.length for row in short} == {64, 128, 256}
    longer = run(gpt2(256), method="recurrent_positions:factor=2", **settings)
    assert {row.length for row in longer} == {64, 128, 256, 512}
    inside = [row for row in longer if row.length <= 256]
    assert [row.settings["input"] for row in inside] == [row.settings["input"] for row in short], "the same texts"
    assert [row.score for row in inside] == pytest.approx([row.score for row in short], abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"to": 400_000}, r"the text is too short: it has \d+ tokens, and 2 windows of 399999"),
        ({"to": 400_000, "windows": None}, r"the text is too short: it has \d+ tokens, and 1 window of 399999"),
        ({"windows": 0}, "windows=0 must be at least"),
        ({"samples": 0}, "samples=0 must be at least 1"),
        ({"chunk_size": 0}, "chunk_size=0 must be at least 1"),
        ({"batch_size": -1}, "batch_size=-1 must be at least 1"),
        ({"trained_window": 0}, "trained_window=0 must be at least 1"),
        ({"depths": (0.5, 1.5)}, "depths=0.5,1.5: give different numbers from 0 to 1"),
        ({"depths": (0.5, 0.5)}, "depths=0.5,0.5"),
        ({"depths": (float("nan"),)}, "depths=nan"),
        ({"depths": ()}, "depths=: give"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"tasks": ()}, "no task"),
        ({"to": 0}, "not a length: 0"),
        ({"to": 1}, "to=1: a text of one token has nothing to predict"),
        ({"to": "far"}, "not a length: 'far'"),
        ({"lengths": [1000]}, "choose among 64, 128, 256, 512"),
        ({"lengths": []}, "choose among 64"),
        ({"depths": 0.5}, "depths=0.5: give a list of numbers"),
        ({"to": 150, "windows": None, "text": None, "tasks": "passkey"}, "passkey needs a length of .* tokens with this tokenizer"),
        ({"tasks": "passkey", "windows": None}, "text has no effect on passkey"),
        ({"tasks": "passkey", "text": None}, "windows has no effect on passkey"),
        ({"tasks": "loss", "samples": None}, "depths has no effect on loss"),
        ({"tasks": "loss", "depths": None}, "samples has no effect on loss"),
        ({"tasks": "loss", "depths": None, "samples": None, "seed": 3}, "seed has no effect on loss"),
    ],
)
def test_what_does_not_fit_is_refused(model, changes, says):
    if isinstance(changes.get("tasks"), str):
        changes = {**changes, "tasks": parse_tasks(changes["tasks"])}
    with pytest.raises((InputError, SpecError), match=says):
        run(model, **changes)


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(InputError, match="training mode"):
        run(tiny_model(vocab_size=VOCABULARY).train())


def test_too_little_memory_is_an_error_that_says_what_to_change(model, monkeypatch):
    def too_large(*args, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory")

    rows = Rows()
    monkeypatch.setattr("longreach.evaluation.tasks.retrieval._retrieval.prefill", too_large)
    with pytest.raises(LongreachError, match="too small for passkey with 2 inputs of 248 tokens at once, 512 tokens a forward"):
        run(model, rows=rows, tasks="loss+passkey")
    assert {row.task for row in rows} == {"loss"}
    monkeypatch.setattr("longreach.evaluation.readings.read_aside", too_large)
    with pytest.raises(LongreachError, match="too small for loss and needle in a text of 512 tokens, 64 tokens a forward; use a smaller"):
        run(model, chunk_size=64)


def test_tasks_are_specs():
    assert [task.spec for task in parse_tasks("loss+passkey:digits=7")] == ["loss", "passkey:digits=7"]
    with pytest.raises(SpecError, match="unknown task 'pass_key'"):
        parse_tasks("pass_key")
    with pytest.raises(InputError, match="yarn is not a task but a method of the kind 'positions'"):
        parse_tasks("yarn:factor=4")
    with pytest.raises(InputError, match="named twice"):
        parse_tasks("loss+loss")


# what a program need not say


def test_a_program_says_no_more_than_the_command_line(model, tmp_path, monkeypatch):
    monkeypatch.setattr("longreach.evaluation.measure.stdlib_text", lambda split: real_text())
    monkeypatch.setattr(model, "name_or_path", str(tmp_path))
    found = measure(model, tokenizer(), tasks="loss", windows=2, rows=tmp_path / "rows.jsonl")
    assert max(row.length for row in found) == 4 * 128, "four trained windows"
    assert {row.model for row in found} == {tmp_path.name}
    assert scores(found) == scores(run(model, tasks=parse_tasks("loss"), samples=None, depths=None, name=tmp_path.name))
    assert scores(Rows(tmp_path / "rows.jsonl")) == scores(found)
    assert found.usable == usable_length(found, 128)
    assert str(found.usable).startswith("Usable length: ")


def test_a_table_of_positions_ends_what_is_measured_by_default():
    learned = tiny_learned("gpt2", window=64, vocab_size=VOCABULARY)
    settings = {"tasks": "loss", "windows": 2, "text": real_text()}
    assert max(row.length for row in measure(learned, tokenizer(), **settings)) == 64
    longer = measure(learned, tokenizer(), **settings, method="interpolated_positions:factor=2")
    assert max(row.length for row in longer) == 128


@pytest.mark.parametrize(
    ("path", "name"), [("org/model", "org/model"), ("", "LlamaForCausalLM"), ("no/such/folder/here", "no/such/folder/here")]
)
def test_rows_call_a_model_as_it_was_loaded(model, monkeypatch, path, name):
    monkeypatch.setattr(model, "name_or_path", path)
    assert name_of(model) == name


def test_lengths_methods_and_tasks_as_programs_have_them(model):
    common = {"samples": None, "depths": None}
    found = run(model, to="1k", tasks=["loss"], method=[Linear(factor=2), "log_n"], **common)
    assert {(row.method, row.task) for row in found} == {("linear:factor=2+log_n", "loss")}
    assert max(row.length for row in found) == 1024
    with apply(model, "log_n"), pytest.raises(UnsupportedError, match="log_n is applied to it"):
        run(model, method="linear:factor=2")
    with pytest.raises(InputError, match="a loaded transformers model is needed, not the name 'nano'"):
        run("nano")


def test_a_loss_that_a_cut_of_the_prompt_cannot_change_is_told(model):
    common = {"samples": None, "depths": None, "tasks": parse_tasks("loss")}
    with pytest.warns(
        UserWarning, match=r"snapkv:budget=64\+pyramid cuts a prompt once it has been read, and loss reads only: it is that of"
    ):
        cut = run(model, method="snapkv:budget=64+pyramid", **common)
    assert [row.score for row in cut] == pytest.approx([row.score for row in run(model, **common)], abs=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(model, method="h2o:budget=64", **common)
