import json
import math

import pytest

from longreach.core.errors import InputError
from longreach.core.method import Claim
from longreach.evaluation.evidence import Number, Subject, claim_row, counted, describe, found_share, write
from longreach.evaluation.intervals import Interval, mean_interval
from longreach.evaluation.rows import Rows
from longreach.testing.models import tiny_learned, tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

CLAIM = Claim(text="flat to 8 windows", metric="rise", at_most=0.05)
FACTS = {"model": "tiny", "data": "books", "setting": "512 tokens", "metric": "loss", "command": "python"}


def subject(model=None, *, to=256, **changes):
    model = model or tiny_model(vocab_size=VOCABULARY, num_hidden_layers=1)
    return Subject(model, tokenizer(), name="tiny", to=to, text=real_text(), windows=3, **changes)


def test_losses_are_paired_by_text():
    bench = subject(to=512)
    losses, standard, rises = bench.losses("linear:factor=4", start=128), bench.standard(start=128), bench.rises("linear:factor=4")
    assert list(losses) == list(standard) == list(rises)
    assert len(rises) == 3
    assert rises == {text: losses[text] - standard[text] for text in losses}


def test_inside_the_window_the_standard_is_the_model_itself():
    bench = subject()
    assert set(bench.rises("", start=64, end=128).values()) == {0.0}
    assert all(abs(rise) > 1e-6 for rise in bench.rises("linear:factor=2", start=64, end=128).values())


def test_shorter_lengths_are_the_beginning_of_the_same_texts():
    rows = Rows()
    long, short = subject(to=512, rows=rows), subject(to=512, rows=rows)
    whole = long.losses("", start=128, end=256)
    count = len(rows)
    assert short.losses("", start=128, end=256) == whole
    assert len(rows) == count


def test_answers_are_told_by_prompt():
    bench = subject()
    answers, others = bench.answers("", 256, 1), bench.answers("linear:factor=2", 256, 1)
    assert list(answers) == list(others)
    assert found_share(answers).mean == sum(answers.values()) / len(answers)


def test_a_model_that_cannot_read_so_far_has_no_numbers_there():
    bench = subject(tiny_learned(vocab_size=VOCABULARY, num_hidden_layers=1))
    assert bench.losses("", start=128) == bench.rises("") == bench.answers("", 256, 1) == {}
    assert len(bench.rises("interpolated_positions:factor=2")) == 3
    assert bench.answers("interpolated_positions:factor=2", 256, 1)


def test_a_target_inside_the_window_is_refused():
    with pytest.raises(InputError, match="within the trained window of 128"):
        subject(to=128)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [(Interval(0.01, -0.01, 0.03), "holds"), (Interval(0.1, 0.08, 0.12), "does not hold"), (Interval(0.01, -0.1, 0.12), "undecided")],
)
def test_a_row_has_the_number_its_interval_and_a_verdict(interval, verdict):
    row = claim_row("yarn", CLAIM, Number(spec="yarn:factor=4", interval=interval, of="8 texts"), **FACTS)
    assert (row["number"], row["low"], row["high"], row["verdict"]) == (*interval, verdict)
    assert (row["of"], row["bar"], row["paper_claim"]) == ("8 texts", "at most 0.05", "flat to 8 windows")


def test_one_text_decides_nothing():
    row = claim_row("yarn", CLAIM, Number(spec="", interval=mean_interval([0.0]), of=counted([0.0], "text")), **FACTS)
    assert (row["low"], row["high"], row["of"], row["verdict"]) == (None, None, "1 text", "undecided")
    assert not math.isnan(row["number"])


def test_a_model_is_described_from_itself_and_its_card(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("# tiny\n\n- Data: books,\n  and code.\n- Training: short.\n", encoding="utf-8")
    model = tiny_model(num_hidden_layers=1)
    facts = describe(model, name="tiny", card=card)
    assert facts["trained_on"] == "books, and code."
    assert (facts["head_dim"], facts["heads"], facts["window"], facts["layers"]) == (16, 4, 128, 1)
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert describe(model, name="tiny", card=card, trained_on="news")["trained_on"] == "news"
    assert describe(model, name="tiny", card=tmp_path / "none")["trained_on"] == "not stated"
    assert describe(tiny_learned(), name="gpt2")["head_dim"] == 16


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "-x"])
def test_a_name_that_cannot_be_a_files_is_refused(name):
    with pytest.raises(InputError, match="give another with --name"):
        describe(tiny_model(num_hidden_layers=1), name=name)


def test_rows_and_model_are_written_whole(tmp_path):
    facts = describe(tiny_model(num_hidden_layers=1), name="tiny")
    path = write(tmp_path / "new", facts, [{"a": 1}, {"a": 2}], "lengths")
    assert path == tmp_path / "new" / "lengths" / "tiny.jsonl"
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}, {"a": 2}]
    assert json.loads((tmp_path / "new" / "models" / "tiny.json").read_text()) == facts
    assert not list(tmp_path.rglob(".*"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write evidence"):
        write(tmp_path / "file", facts, [])
