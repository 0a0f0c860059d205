import pytest
import torch

from longreach.core.errors import InputError, LongreachError, UnsupportedError
from longreach.core.progress import Progress
from longreach.evaluation.rows import Rows
from longreach.reports.report import Saved, report
from longreach.reports.report_page import page
from longreach.stretching import stretch as stretching
from longreach.stretching import tournament
from longreach.stretching.stretch import stretch
from longreach.stretching.tournament import Trained
from longreach.testing.models import tiny_learned, tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

METHODS = ["linear:factor=2", "sinks:window_size=124", "self_extend:neighbours=64,group=4", "ntk:factor=4"]
QUICK = {"windows": 2, "samples": 1, "depths": (0.0, 1.0)}


class Labels(Progress):
    def __init__(self):
        self.said, self.told = [], []

    def start(self, label, total):
        self.said.append(label)

    def say(self, words):
        self.told.append((words, len(self.said)))


def run(*, family="llama", to=256, rows=None, progress=None, **settings):
    """Stretch a tiny random model with a trained window of 128."""
    common = {"name": "tiny", "to": to, "text": real_text(), "rows": rows, "progress": progress or Progress()}
    return stretch(tiny_model(family, vocab_size=VOCABULARY), tokenizer(), **common, **settings)


@pytest.fixture
def recalls(monkeypatch):
    """Models are asked for needles however few they find inside their windows."""
    monkeypatch.setattr(tournament, "RECALLS", 0.0)


SCREENED = {"methods": METHODS, "finalists": 2, "windows": 4, "samples": 1, "depths": (0.0, 0.5, 1.0)}


@pytest.fixture(scope="module")
def screened():
    """More candidates than finalists; a run and its rows."""
    rows = Rows()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tournament, "RECALLS", 0.0)
        return run(rows=rows, **SCREENED), rows


def test_screening_reads_one_text_and_finalists_all(screened):
    outcome, _ = screened
    assert (outcome.trained_window, outcome.target, outcome.budget.windows) == (128, 256, 4)
    stock, *others = outcome.standings
    assert (stock.method, stock.screened) == ("", False)
    assert [one.screened for one in others] == [False, False, True, True]
    assert {one.method for one in others} == set(METHODS)
    for one in outcome.standings:
        of = [row for row in outcome.rows if row.method == one.method]
        assert len({row.settings["text"] for row in of if row.task == "loss"}) == (1 if one.screened else 4)
        needles = [row for row in of if row.task.startswith("needle") and row.settings["metric"] == "likelihood" and row.length == 256]
        assert len(needles) == one.prompts == (3 if one.screened else 12)
        assert {row.depth for row in needles} == {0.0, 0.5, 1.0}
        assert one.rise.low <= one.rise.mean <= one.rise.high


def test_what_forgets_is_no_finalist_of_recall(screened):
    outcome, _ = screened
    (sinks,) = [one for one in outcome.standings if one.forgets]
    assert sinks.screened
    assert outcome.chosen != sinks.method


def test_what_forgets_takes_no_finalists_place():
    methods = ["sinks:window_size=124", "linear:factor=2", "ntk:factor=4"]
    outcome = run(methods=methods, finalists=1, windows=2, samples=1, depths=(0.5,))
    (finalist,) = [one for one in outcome.standings[1:] if not one.screened]
    assert not finalist.forgets


@pytest.mark.usefixtures("recalls")
def test_nothing_is_measured_twice(screened):
    outcome, rows = screened
    assert {row.identity for row in outcome.rows} == {row.identity for row in rows}
    count, progress = len(rows), Labels()
    again = run(rows=rows, progress=progress, **SCREENED)
    assert progress.said == ["stock: estimating the time"]
    assert progress.told[0][0].startswith("Estimated time: at most about ")
    assert len(rows) == count
    assert again == outcome


def test_the_same_is_chosen_whatever_the_speed():
    first, second = (run(methods=["yarn:factor=2", "ntk:factor=4"], samples=2, depths=(0.5,), seed=3) for _ in range(2))
    assert first.choice.best.method == second.choice.best.method
    assert first.choice.reason == second.choice.reason
    assert [one.method for one in first.standings] == [one.method for one in second.standings]


def test_a_few_candidates_are_all_measured_in_full():
    progress = Labels()
    outcome = run(methods=["yarn:factor=2", "rerope:window_size=64"], progress=progress, **QUICK)
    assert [one.screened for one in outcome.standings] == [False, False, False]
    assert progress.said[1:3] == ["stock: loss_inside", "stock: loss and needle"]
    assert progress.said[3] == "stock: loss_inside", "of the second text"
    assert progress.said[5] == "yarn:factor=2: loss" if not outcome.standings[1].prompts else "yarn:factor=2: loss and needle"


def test_the_estimate_is_told_before_the_first_text_is_read():
    progress = Labels()
    run(methods=["yarn:factor=2"], progress=progress, **QUICK)
    (words, before), *findings = progress.told
    assert [words.split(":")[0] for words, _ in findings] == ["stock", "yarn"], "what was found, as soon as it is known"
    assert words.startswith("Estimated time: about ")
    assert words.endswith("; --budget TIME limits it.")
    assert progress.said[:before] == ["stock: estimating the time"]


def test_one_text_is_enough_where_that_is_asked_for():
    outcome = run(methods=["yarn:factor=2"], windows=1, samples=1, depths=(0.5,))
    assert [(one.texts, one.screened) for one in outcome.standings] == [(1, False)] * 2


def test_a_model_that_recalls_little_is_judged_by_its_loss():
    """A random model finds one needle in ten, by chance."""
    outcome = run(to=512, trained_window=256, methods=["linear:factor=2", "ntk:factor=4"])
    assert outcome.short < 0.5
    assert all(one.retrieval is None for one in outcome.standings)
    asked = {(row.method, row.length <= 256) for row in outcome.rows if row.task.startswith("needle")}
    assert ("", True) in asked
    assert not any(method for method, _ in asked), "candidates are not asked what says nothing"
    assert "retrieval says nothing about it: the loss alone decided" in outcome.choice.reason
    assert "--for streaming" in outcome.choice.reason
    data = report(outcome, command="", loading={"model": "tiny"}, text="", saved=Saved())
    assert data["bars"]["retrieval"] is None
    page(data)


def test_auto_tries_everything_and_stacks_on_the_best():
    outcome = run(windows=2, samples=1, depths=(0.5,), finalists=1)
    methods = [one.method for one in outcome.standings]
    stacks = [method.partition(":")[0] for method in methods if method.endswith("+log_n")]
    assert len(stacks) == 2, "on the best of the screening, and on the best of those that need a prompt for every question"
    assert {"infllm", "longheads"} & set(stacks)
    names = {method.partition(":")[0] for method in methods}
    assert {"linear", "ntk", "dynamic_ntk", "yarn", "self_extend", "rerope"} <= names
    forget = {spec.partition(":")[0] for spec, why in outcome.refused.items() if "forgets the middle" in why}
    assert {"lm_infinite", "sinks", "h2o"} <= forget
    assert not forget & names


def tuned_run(model, seen, rows=None, methods=("sinks:window_size=124", "linear:factor=2+log_n"), **changes):
    def tune(specs, progress):
        seen.extend(specs)
        with torch.no_grad():
            model.lm_head.weight.mul_(1.05)
        return Trained(model=model, method="linear:factor=2", steps=7, **changes)

    return stretch(model, tokenizer(), name="tiny", to=256, text=real_text(), rows=rows, methods=methods, tuner=tune, windows=2, samples=1,
                   depths=(0.5,))  # fmt: skip


def test_the_tuned_model_is_measured_beside_the_untuned_ones():
    seen, rows = [], Rows()
    outcome = tuned_run(tiny_model(vocab_size=VOCABULARY), seen, rows)
    assert seen == ["linear:factor=2"], "only positions methods are trained under, without what is stacked on them"
    assert {one.label for one in outcome.standings} == {
        "stock", "sinks:window_size=124", "linear:factor=2+log_n", "linear:factor=2, tuned 7 steps",
        "linear:factor=2+log_n, tuned 7 steps", "linear:factor=2+resonance, tuned 7 steps",
    }  # fmt: skip
    assert not any(one.screened for one in outcome.standings)
    others = outcome.standings[1:]
    assert [one.rise.mean - one.reach for one in others] == sorted(one.rise.mean - one.reach for one in others)
    by_label = {one.label: one for one in outcome.standings}
    plain, tuned = by_label["linear:factor=2+log_n"], by_label["linear:factor=2+log_n, tuned 7 steps"]
    assert tuned.beyond != plain.beyond
    # Both are told from what the texts cost the model as it was before.
    assert tuned.rise.mean - plain.rise.mean == pytest.approx(tuned.beyond.mean - plain.beyond.mean, abs=1e-6)
    assert {row.model for row in outcome.rows} == {"tiny", "tiny, tuned 7 steps"}
    assert {row.identity for row in outcome.rows} == {row.identity for row in rows}
    count = len(rows)
    assert tuned_run(tiny_model(vocab_size=VOCABULARY), seen, rows) == outcome
    assert len(rows) == count, "nothing is measured twice"
    page(report(outcome, command="", loading={"model": "tiny"}, text="", saved=Saved()))


def test_a_tuned_model_that_lost_its_window_is_not_good_enough():
    outcome = tuned_run(tiny_model(vocab_size=VOCABULARY), [], methods=["linear"], lost="loss inside the window +9.0% > +1%")
    tuned = [one for one in outcome.standings if one.tuned]
    assert len(tuned) == 3
    assert all(one.shortfalls[-1] == "loss inside the window +9.0% > +1%" for one in tuned)
    assert not any(one.lost for one in outcome.standings if not one.tuned)
    assert "must also have kept" in outcome.rule


def test_streaming_is_judged_by_loss_alone():
    outcome = run(purpose="streaming", methods=["sinks", "linear"], windows=2)
    assert {row.settings["metric"] for row in outcome.rows} == {"loss"}
    assert all(one.retrieval is None for one in outcome.standings)
    assert "bounded memory" in outcome.rule


def test_a_model_whose_table_ends_before_the_target_stands_beside_its_methods_as_far_as_it_reads():
    model, methods = tiny_learned("gpt2", vocab_size=VOCABULARY), ["recurrent_positions", "grouped_positions:factor=2"]
    outcome = stretch(model, tokenizer(), name="tiny", to=256, text=real_text(), methods=methods, purpose="streaming", windows=2)
    assert {one.method for one in outcome.standings} == {"recurrent_positions:factor=2", "grouped_positions:factor=2"}
    assert outcome.refused == {"": "it cannot read beyond 128 tokens: its table of positions ends there"}
    assert {row.length for row in outcome.rows if row.task == "loss" and not row.method} == {64, 128}
    data = report(outcome, command="", loading={"model": "tiny"}, text="", saved=Saved())
    assert {cell["length"]: cell["mean"] for cell in data["rises"] if not cell["method"]} == {64: 0.0, 128: 0.0}
    assert "cannot read beyond 128 tokens" in page(data)


def test_what_fails_only_when_it_runs_is_listed(monkeypatch):
    measure = tournament.measure

    def fails_under_linear(*args, method="", **settings):
        if method.startswith("linear"):
            raise LongreachError("the loss is not a finite number at length 256")
        return measure(*args, method=method, **settings)

    monkeypatch.setattr(tournament, "measure", fails_under_linear)
    outcome = run(methods=["linear", "yarn:factor=2"], **QUICK)
    assert outcome.refused == {"linear:factor=2": "the loss is not a finite number at length 256"}
    assert [one.method for one in outcome.standings] == ["", "yarn:factor=2"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"to": 128}, "128 tokens are within the trained window of 128"),
        ({"to": 100}, "100 tokens are within the trained window of 128"),
        ({"finalists": 0}, "finalists=0 must be at least 1"),
        ({"purpose": "streaming", "samples": 2}, "samples has no effect"),
        ({"purpose": "streaming", "seed": 0}, "seed has no effect"),
        ({"to": 500_000}, r"the text is too short: it has \d+ tokens"),
        ({"windows": 0, "methods": ["sinks"]}, "windows=0 must be at least 1"),
        ({"depths": (2.0,), "methods": ["sinks"]}, "depths=2"),
        ({"depths": (), "methods": ["sinks"]}, "depths="),
    ],
)
def test_what_cannot_be_is_refused_before_measuring(settings, says):
    progress = Labels()
    with pytest.raises(InputError, match=says):
        run(progress=progress, **settings)
    assert progress.said == []


def test_a_method_that_the_user_named_must_fit():
    with pytest.raises(UnsupportedError, match="use no positions"):
        run(family="cohere2", methods=["linear:factor=8"])


def test_where_no_method_fits_every_reason_is_given(monkeypatch):
    def none_fit(model, candidates):
        return [], {"linear:factor=2": "it has no rotary embedding"}

    monkeypatch.setattr(stretching, "applicable", none_fit)
    with pytest.raises(InputError, match="no method can be applied to tiny: linear:factor=2: it has no rotary embedding"):
        run()


def test_a_program_says_no_more_than_the_command_line(monkeypatch):
    monkeypatch.setattr(stretching, "stdlib_text", lambda split: real_text())
    model = tiny_model(vocab_size=VOCABULARY)
    outcome = stretch(model, tokenizer(), to=256, methods="linear:factor=2; ntk:factor=4", purpose="streaming", windows=2)
    assert outcome.model == "LlamaForCausalLM"
    assert {one.method for one in outcome.standings} == {"", "linear:factor=2", "ntk:factor=4"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"seconds": -1}, "seconds=-1 must be above 0"),
        ({"trained_window": 0}, "trained_window=0 must be at least 1"),
        ({"purpose": "foo"}, "purpose='foo': choose recall or streaming"),
    ],
)
def test_wrong_arguments(arguments, says):
    with pytest.raises(InputError, match=says):
        run(methods=METHODS, **arguments)
