import json

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from longreach.core.errors import InputError, SpecError, UnsupportedError
from longreach.core.fitting import FittedFile
from longreach.core.progress import Progress
from longreach.core.spec import make, parse_settings
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import token_losses
from longreach.engine.apply import apply
from longreach.engine.rope_config import rope_of
from longreach.evaluation.rows import Row, Rows
from longreach.positions.fitted.longrope import Longrope
from longreach.positions.scaling.yarn import Yarn
from longreach.stretching import fit as fitting
from longreach.stretching.fit import fit
from longreach.testing.models import random_ids, tiny_model
from longreach.training import chunked_loss
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

SEARCH = "longrope:population=5,parents=3,mutations=2,crossovers=2,iterations=2"  # 13 evaluations


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY, max_position_embeddings=32, num_hidden_layers=1)


def run(model, **changes):
    settings = {"name": "tiny", "method": SEARCH, "to": 128, "text": real_text()[:20_000], "windows": 2} | changes
    return fit(model, tokenizer(), **settings)


@pytest.fixture(scope="module")
def undisturbed(model):
    rows = Rows()
    return run(model, rows=rows), [row.identity for row in rows]


class Killed(Exception):  # noqa: N818 - not an error
    pass


class Counting(Progress):
    """Adds up what it is told, and kills the work after so many tokens."""

    def __init__(self, most=10**9):
        self.most, self.started, self.tokens = most, [], 0

    def start(self, label, total):
        self.started.append((label, total))

    def advance(self, tokens):
        self.tokens += tokens
        if self.tokens > self.most:
            raise Killed


def test_a_killed_fit_goes_on_as_if_it_had_not_been(model, undisturbed, tmp_path):
    wanted, identities = undisturbed
    one = 2 * 128
    for evaluations in (1, 4, 6):
        killed = Counting(evaluations * one + 1)
        with pytest.raises(Killed):
            run(model, rows=Rows(tmp_path / "rows.jsonl"), progress=killed)
    done = len((tmp_path / "rows.jsonl").read_text().splitlines())
    rest = Counting()
    again = run(model, rows=Rows(tmp_path / "rows.jsonl"), progress=rest)
    assert again == wanted
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == len(identities) == len(set(identities)), "nothing was evaluated twice"
    assert done == 1 + 4 + 6
    assert rest.tokens == (18 - done) * one
    again = Counting()
    assert run(model, rows=Rows(tmp_path / "rows.jsonl"), progress=again) == wanted
    assert (again.tokens, again.started) == (0, [])


def test_the_result_is_the_best_of_what_was_read_and_no_worse_than_its_starts(model):
    rows = Rows()
    found = run(model, rows=rows)
    searched = [row for row in rows if row.settings["start"] == 0 and row.length == 128]
    assert len(searched) == found["evaluations"] == 13
    best = min(searched, key=lambda row: row.score)
    assert best.score <= min(row.score for row in searched[:3])
    assert FittedFile(best.method.partition("=")[2]).data["fitted"] == found["fitted"]


@pytest.mark.parametrize(("characters", "windows"), [(100_000, 4), (3_000, 2), (1_000, 1)])
def test_four_windows_are_fitted_on_where_the_text_has_room(model, characters, windows):
    assert run(model, text=real_text()[:characters], windows=None, evaluations=1)["windows"] == windows


def test_losses_are_of_the_method_on_the_windows_to_fit_on(model):
    rows = Rows()
    run(model, rows=rows, evaluations=1)
    texts = fitting._texts(Encoder(tokenizer()), real_text()[:20_000], 128, 2)
    assert [len(text) for text in texts] == [128] * 4
    first = next(iter(rows))
    (method,) = parse_settings(first.method)[1].values()
    with apply(model, Longrope(file=FittedFile(method))):
        losses = [token_losses(model, torch.from_numpy(text[None]).long(), chunk_size=512).mean().item() for text in texts[::2]]
    assert first.score == pytest.approx(sum(losses) / 2, rel=1e-6)
    assert first.n == 2 * 128


def test_the_comparison_is_on_other_text(model, undisturbed):
    found, _ = undisturbed
    assert [one["method"] for one in found["results"]] == ["", "linear:factor=4", "ntk:factor=8", "yarn:factor=4", "longrope"]
    texts = fitting._texts(Encoder(tokenizer()), real_text()[:20_000], 128, 2)
    fitted = make(Longrope, {"file": FittedFile.of("a", {key: found[key] for key in ("format", "method", "fitted")})})
    for one, method in ((found["results"][0], None), (found["results"][-1], fitted)):
        with apply(model, method):
            losses = token_losses(model, torch.stack([torch.from_numpy(text) for text in texts[1::2]]).long(), chunk_size=512)
        assert one["inside"] == pytest.approx(losses[:, :31].mean().item(), rel=1e-6)
        assert one["beyond"] == pytest.approx(losses[:, 31:].mean().item(), rel=1e-6)


def test_the_seed_decides(model, undisturbed):
    assert run(model) == undisturbed[0]
    assert run(model, seed=1)["fitted"] != undisturbed[0]["fitted"]


def test_a_budget_of_evaluations_is_kept_and_divided(model):
    assert run(model, evaluations=6)["evaluations"] == 6
    assert run(model, evaluations=1)["evaluations"] == 3, "the starts are always read"
    rows = Rows()
    found = run(model, evaluations=8, method=f"{SEARCH},short=true", rows=rows)
    assert found["evaluations"] == 9  # 6 of 8, and three starts
    assert found["fitted"]["short"]


def test_a_budget_of_time_is_kept(model, monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(fitting.time, "monotonic", lambda: next(clock))
    assert run(model, seconds=55)["evaluations"] in (6, 7)


def test_progress_counts_what_is_still_to_be_read(model, tmp_path):
    progress = Counting()
    run(model, progress=progress, rows=Rows(tmp_path / "rows.jsonl"))
    assert progress.started == [("long factors", 13 * 2 * 128), ("other text", 5 * 2 * 128)]
    assert progress.tokens == 18 * 2 * 128
    progress = Counting()
    run(
        model,
        progress=progress,
        rows=Rows(tmp_path / "rows.jsonl"),
        evaluations=20,
        method=SEARCH.replace("iterations=2", "iterations=3"),
    )
    assert progress.started[0] == ("long factors", 4 * 2 * 128)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"to": 32}, InputError, "nothing to fit: 32 tokens are within the trained window of 32; give a greater length"),
        ({"text": real_text()[:300]}, InputError, r"the text is too short: it has \d+ tokens, and 4 windows of 127"),
        ({"text": real_text()[:300], "windows": None}, InputError, r"the text is too short: it has \d+ tokens, and 2 windows of 127"),
        ({"windows": 0}, InputError, "windows=0 must be at least 1"),
        ({"seed": -1}, InputError, "seed=-1 must be at least 0"),
        ({"method": "yarn"}, InputError, "yarn has nothing to fit: it is ready to use; methods that are fitted: .*longrope"),
        ({"method": "longrop"}, SpecError, "did you mean longrope"),
        ({"method": "longrope:size=3"}, SpecError, "unknown setting 'size'; it takes: on, short, start_tokens, population"),
        ({"method": "longrope:population=0"}, SpecError, "longrope: population=0 must be at least 1"),
    ],
)
def test_what_cannot_be_fitted(model, changes, error, says):
    with pytest.raises(error, match=says):
        run(model, **changes)


def test_models_without_rotary_positions_are_refused():
    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=32, vocab_size=VOCABULARY)
    with pytest.raises(UnsupportedError, match="no rotary position embedding"):
        run(GPT2LMHeadModel(config).eval())


def test_what_was_found_is_a_method_and_a_file(model, undisturbed, tmp_path, monkeypatch):
    found, _ = undisturbed
    assert found.method.file.data == found
    found.write(tmp_path / "found.json")
    assert FittedFile(str(tmp_path / "found.json")).digest == found.method.file.digest
    with apply(model, found.method):
        pass
    monkeypatch.setattr(fitting, "stdlib_text", lambda split: real_text()[:20_000])
    assert fit(model, tokenizer(), SEARCH, to=128, windows=2, evaluations=1)["model"] == "LlamaForCausalLM"
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(InputError, match=r"exists and is not a file of `longreach fit` or `longreach heads`"):
        found.write(tmp_path / "mine.json")


def test_derivatives_hold_no_more_logits_than_a_chunk_and_are_the_same(model, monkeypatch):
    rope, text = rope_of(model.config), random_ids(1, 120)[0].numpy().astype("int32")
    row = Row(task="fit", model="tiny", method="", length=0, version="1", settings={})

    def slopes():
        return fitting._Reader(model, row, Rows(), Progress()).slopes(Yarn(factor=4), rope, text, 120)

    whole = slopes()
    monkeypatch.setattr(chunked_loss, "LOGITS", 32 * VOCABULARY)
    seen = []
    handle = model.lm_head.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    found = slopes()
    handle.remove()
    assert max(seen) <= 32
    assert found[0] == pytest.approx(whole[0], rel=1e-5)
    assert found[1] == pytest.approx(whole[1], rel=1e-3, abs=1e-5)
    assert any(abs(slope) > 1e-3 for slope in found[1])
