"""The recipes that train models for the evidence table run from end to end, in small."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import longreach
from longreach.attention.base import Vectors
from longreach.core.bands import PROBE
from longreach.core.spec import parse
from longreach.data.stdlib import stdlib_text
from longreach.decoding.generation import tokens
from longreach.decoding.writing import read_prompt
from longreach.engine.apply import applied
from longreach.engine.window import window_before_export
from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, tokenizer
from tests.recipes import EXPERIMENTS, rows, run

NARROW = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, text = tmp_path_factory.mktemp("data"), stdlib_text("held-out")
    for split, part in (("train", text[:150_000]), ("valid", text[150_000:450_000])):
        (folder / split).mkdir()
        (folder / split / "one.txt").write_text(part, encoding="utf-8")
    return folder


def narrow(name, monkeypatch, **sizes):
    """The model of a recipe, with all its layers and a fraction of their width."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    whole = __import__(name).model_config

    def config(tokenizer):
        found = whole(tokenizer)
        found.update(sizes)
        return found

    return config


def numbers(row):
    return json.dumps({name: value for name, value in row.items() if name != "command"})


def test_an_encoder_is_trained_and_aligned(tmp_path, data, monkeypatch, capsys):
    given = ("--data", data, "--tokens", "0.002M", "--work", tmp_path / "work", "--evidence", tmp_path / "evidence")
    small = {"TEXTS": 4, "TIMES": (1, 2), "model_config": narrow("encoder", monkeypatch, d_model=16, d_kv=8, d_ff=32, num_heads=2)}
    run("encoder", monkeypatch, *given, **small)
    told = rows(tmp_path / "evidence" / "t5-scratch.jsonl")
    assert [row["metric"].split(", ")[1][:5] for row in told] == ["below", "below", "above", "above"]
    assert {row["method"] for row in told} == {"attention_alignment"}
    assert all(row["low"] <= row["number"] <= row["high"] for row in told)
    assert "bits_per_byte" in capsys.readouterr().out
    run("encoder", monkeypatch, *given, **small)
    assert "bits_per_byte" not in capsys.readouterr().out, "what was trained is trained again"


def test_gaps_leave_a_window_and_can_be_filled(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    encoder = __import__("encoder")
    piece = np.arange(encoder._PIECE + 3 * encoder.WINDOW)
    source, answer = encoder.exercise(np.random.default_rng(0), piece, 10_000)
    assert len(source) == 4 * encoder.WINDOW
    gaps = {int(part[0]): part[1:].tolist() for part in np.split(answer, np.flatnonzero(answer >= 10_000)[1:])}
    assert sorted(map(len, gaps.values())) == list(encoder.GAPS)
    filled = [token for each in source.tolist() for token in gaps.get(each, [each])]
    assert filled == piece.tolist()
    marks = np.flatnonzero(source >= 10_000)
    assert (np.diff(marks) > 1).all()
    assert marks[0] >= 1.5 * encoder.WINDOW
    assert marks[-1] < 2.5 * encoder.WINDOW


def test_facts_are_found_beyond_the_window(tmp_path, monkeypatch, capsys):
    smaller = {"TEXTS": 16, "TIMES": (1, 8), "_STAGES": ((0.0, 16),), "WINDOW": 16, "SUBJECTS": 4, "VALUES": 4, "FACTS": 2}
    run("facts", monkeypatch, "--steps", 220, "--evidence", tmp_path, **smaller)
    (row,) = rows(tmp_path / "bart-facts.jsonl")
    assert (row["method"], row["verdict"]) == ("unlimiformer", "holds")
    found = {line.split()[0]: float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if "8x" in line and "1x" in line}
    assert found["unlimiformer"] > 0.9
    assert found["cut"] < 0.6


def test_models_from_scratch_are_compared_and_then_tuned_by_samplers(tmp_path, data, monkeypatch, capsys):
    out, smaller = tmp_path / "evidence", {"TEXTS": 2, "TUNE_STEPS": 1, "SOURCE": 2000}
    smaller["model_config"] = narrow("scratch", monkeypatch, **NARROW)
    monkeypatch.setattr("longreach.training.gate._COUNTS", (4,))  # windows: ten models pass the gate here, for form's sake
    given = ("--data", data, "--tokens", "0.002M", "--work", tmp_path / "work", "--evidence", out)
    run("scratch", monkeypatch, *given, "--methods", "rope", "nope", "nope+cable", **smaller)
    assert [row["method"] for row in rows(out / "llama-scratch.jsonl")] == ["nope", "cable", "head_temperature", "ntk_attention"]
    lengths = rows(out / "lengths" / "llama-scratch.jsonl")
    assert {row["length"] for row in lengths if row["method"] == "nope+cable"} == {128, 256, 512, 1024}
    assert all(row["loss"] > 0 for row in lengths)
    printed = capsys.readouterr().out
    run("scratch", monkeypatch, *given, "--methods", "rope", "nope", "nope+cable", **smaller)
    again = capsys.readouterr().out
    assert "bits_per_byte" in printed
    assert "bits_per_byte" not in again, "what was trained is trained again"
    run("samplers", monkeypatch, "--data", data, "--model", tmp_path / "work" / "rope", "--steps", 1, "--work", tmp_path / "runs",
        "--evidence", out, TEXTS=2, BATCH=8)  # fmt: skip
    found = {row["method"]: row for row in rows(out / "llama-scratch-tuned.jsonl")}
    assert set(found) == {"cream", "e2", "full_length", "harpe", "pose", "randomized", "segmented"}
    assert all(row["low"] <= row["number"] <= row["high"] for row in found.values())


def test_ways_to_attend_are_held_against_what_they_read(tmp_path, data, monkeypatch, capsys):
    out = tmp_path / "evidence"
    monkeypatch.syspath_prepend(EXPERIMENTS)
    for constant, value in {"TEXTS": 2, "model_config": narrow("scratch", monkeypatch, **NARROW)}.items():
        monkeypatch.setattr(__import__("scratch"), constant, value)
    costs = __import__("costs")
    methods = ("rope", costs.LOCAL, "routing:num_clusters=4,window_size=16")
    run("costs", monkeypatch, "--data", data, "--tokens", "0.002M", "--work", tmp_path / "work", "--evidence", out, "--methods", *methods)
    told = rows(out / "llama-costs.jsonl")
    assert [row["method"] for row in told] == ["routing"]
    assert told[0]["low"] <= told[0]["number"] <= told[0]["high"]
    assert "reads 4% of the keys" in told[0]["setting"]
    assert {row["method"] for row in rows(out / "lengths" / "llama-costs.jsonl")} == set(methods)
    assert "reads 3.9% of the keys at 1024 tokens" in capsys.readouterr().out, "16 keys and 4 centroids, but for the first queries"


@pytest.mark.parametrize("spec", ["longgen:window_size=5,num_sinks=2", "mixed_span:full_layers=1,block_size=7", "combiner:segment=6"])
def test_keys_that_are_read_are_counted(monkeypatch, spec):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    costs = __import__("costs")
    (method,) = parse(spec)
    total = 0
    for layer in range(3):
        context = replace(PROBE, layer_idx=layer, num_layers=3, full_layers=(0, 1, 2))
        for query in range(20):
            if "combiner" in spec:
                total += query % 6 + 1 + query // 6
            else:
                vectors = Vectors(layer=context, q=None, k=None, v=None, scale=1, prompt=20, rotated=None)
                total += int(method.reference_of(torch.tensor(query), torch.arange(query + 1), vectors)[1].sum())
    assert costs.share_read(spec, 20, 3) == pytest.approx(total / (3 * 210))


def test_methods_are_held_to_claims_about_tuned_models(tmp_path, data, monkeypatch, capsys):
    folder, out = tmp_path / "small", tmp_path / "evidence"
    tiny_model(vocab_size=VOCABULARY, num_hidden_layers=1).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    monkeypatch.setattr("longreach.training.gate._COUNTS", (2,))
    monkeypatch.setattr("longreach.evaluation.claims.base.RECALLS", 0.0)
    chosen = [word for name in ("linear", "ntk", "yarn", "yarn+resonance") for word in ("--only", name)]
    given = ("--data", data, "--model", folder, "--steps", 1, "--windows", 2, "--work", tmp_path / "work", "--evidence", out)
    smaller = {"TIMES": 2, "STACKS": ("yarn:factor=2+resonance",), "SAMPLES": 2, "BOOKS": 20_000, "SOURCE": 50_000}
    run("tuned", monkeypatch, *given, *chosen, **smaller)
    printed = capsys.readouterr().out
    claims, lengths = rows(out / "small-tuned.jsonl"), rows(out / "lengths" / "small-tuned.jsonl")
    by = {row["method"]: row for row in claims}
    assert set(by) == {"linear", "yarn", "resonance"}
    assert {row["condition"] for row in (*claims, *lengths)} == {"tuned"}
    assert "llama3: the model was not tuned under it; its claim is left out" in printed
    assert by["resonance"]["setting"] == "`yarn:factor=2+resonance`, 128 to 256 tokens"

    rises = {row["method"]: row["rise"] for row in lengths if row["length"] == 256}
    assert by["linear"]["number"] == pytest.approx(rises["linear"])
    assert by["resonance"]["number"] == pytest.approx(rises["yarn"] - rises["yarn+resonance"])
    assert by["yarn"]["number"] == pytest.approx(rises["yarn"] - min(rises["linear"], rises["ntk"]))
    stock = {row["length"]: row["rise"] for row in lengths if row["method"] == "stock model"}
    assert stock[128] == 0
    plain = next(row for row in lengths if row["method"] == "tuned without a method" and row["length"] == 128)
    assert plain["setting"] == ""
    assert abs(plain["rise"]) > 1e-6, "the tuned model is measured, beside the one that was not tuned"

    run("tuned", monkeypatch, *given, "--only", "yarn", "--checkpoints", tmp_path / "saved", **smaller)
    again = rows(out / "lengths" / "small-tuned.jsonl")
    assert sorted(map(numbers, again)) == sorted(map(numbers, lengths)), "of what was not run now the rows stay"
    assert any(row["command"].endswith("--only yarn") for row in again)
    model, _ = longreach.load(tmp_path / "saved" / "yarn")
    assert (model.config.rope_parameters["rope_type"], window_before_export(model)) == ("yarn", 256), "as a published one is"
    assert not applied(model)


def test_models_are_trained_to_read_by_windows(tmp_path, data, monkeypatch, capsys):
    folder, out, books = tmp_path / "small", tmp_path / "evidence", tmp_path / "books"
    tiny_model(vocab_size=VOCABULARY).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    for split, begins in (("train", (0,)), ("valid", (150_000, 300_000))):
        (books / split).mkdir(parents=True)
        for begin in begins:
            (books / split / f"{begin}.txt").write_text(stdlib_text("held-out")[begin : begin + 100_000], encoding="utf-8")
    monkeypatch.setattr("longreach.training.gate._COUNTS", (2,))
    given = ("--data", books, "--model", folder, "--steps", 1, "--work", tmp_path / "work", "--evidence", out)
    smaller = {"TIMES": 2, "TEXTS": 2, "SAMPLES": 1, "BATCH": 2, "PLACES": 1}
    run("trained_windows", monkeypatch, *given, "--only", "recurrent_window", **smaller)
    run("trained_windows", monkeypatch, *given, "--only", "focused", **smaller)
    printed = capsys.readouterr().out
    assert "focused, untrained: 0." in printed
    claims, lengths = rows(out / "nano-windows.jsonl"), rows(out / "lengths" / "nano-windows.jsonl")
    assert [row["method"] for row in claims] == ["recurrent_window"] + ["focused"] * 3
    assert all(row["low"] <= row["number"] <= row["high"] for row in claims)
    names = {"stock model", "sinks", "focused", "focused, untrained", "focused, without negatives", "recurrent_window"}
    assert {row["method"] for row in lengths} == names | {"recurrent_window, untrained"}
    by = {(row["method"], row["length"]): row["loss"] for row in lengths}
    assert by["stock model", 128] == pytest.approx(by["focused, untrained", 128], abs=1e-5)
    assert abs(by["focused", 128] - by["focused, untrained", 128]) > 1e-4
    gain = by["focused, without negatives", 256] - by["focused", 256]
    assert claims[2]["number"] == pytest.approx(gain, abs=1e-6)


def test_of_texts_that_are_alike_each_gets_its_share(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    windows = __import__("trained_windows")
    model, ids = tiny_model(), torch.randint(3, 97, (1, 16), generator=torch.Generator().manual_seed(0))
    spec = "focused:window_size=8,layers=0/2"
    assert windows.own_share(model, spec, ids.expand(3, -1), 3) == pytest.approx([1 / 3] * 3)
    others = torch.cat([ids, ids.flip(1)])
    first, second = windows.own_share(model, spec, others, 2)
    assert 0 < first < 1
    assert windows.own_share(model, spec, others.flip(0), 2) == pytest.approx([second, first])
    assert windows.own_share(model, spec, others, 1) == [1, 1]


def test_memories_are_trained_and_compared(tmp_path, data, monkeypatch, capsys):
    method, checkpoint = "activation_beacon:window_size=16,ratio=4", tmp_path / "tiny"
    longreach.save(tiny_model(vocab_size=VOCABULARY, max_position_embeddings=128), tokenizer(), checkpoint)
    given = ("--data", data, "--method", method, "--model", checkpoint, "--steps", 2, "--windows", 2, "--work", tmp_path / "work")
    text = stdlib_text("held-out")[:150_000]
    smaller = {"TOKENS": 128, "BOOKS": 60_000, "SAMPLES": 1, "TIMES": 2, "stdlib_text": lambda split: text}
    run("trained_memory", monkeypatch, *given, "--evidence", tmp_path / "evidence", **smaller)
    told = rows(tmp_path / "evidence" / "tiny-memory.jsonl")
    assert {row["method"] for row in told} == {method.partition(":")[0]}
    assert all(row["number"] is not None for row in told if "needles" not in row["metric"])  # a random model finds none
    by = rows(tmp_path / "evidence" / "lengths" / "tiny-memory.jsonl")
    assert [(row["method"], row["length"]) for row in by] == [
        (name, length) for name in ("stock model", "sinks", method.partition(":")[0]) for length in (128, 256)
    ]
    assert "step 2 of 2" in capsys.readouterr().out
    run("trained_memory", monkeypatch, *given, **smaller)
    assert "step" not in capsys.readouterr().out, "what was trained is trained again"


# order


@pytest.fixture
def order(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return __import__("order")


def test_orders_are_rotations_by_where_the_wanted_fact_stands(order):
    asked = order.facts(3)
    assert asked == order.facts(3) != order.facts(4)
    city = asked.asked.removeprefix("The special magic number for ").removesuffix(" is:")
    assert (len(set(asked.stated)), asked.stated[0]) == (4, f"One of the special magic numbers for {city} is: {asked.answer}.\n")
    head = order._HEAD
    for place in range(4):
        lines = asked.prompt(place).removeprefix(head).removesuffix(asked.asked).splitlines(keepends=True)
        assert lines[place] == asked.stated[0]
        assert lines[place:] + lines[:place] == list(asked.stated)
        marked = order.SetBased().parts(asked.prompt(place, order.SetBased()))
        assert marked == (head, tuple(lines), asked.asked)


@pytest.mark.parametrize("method", [(), "set_based"])
def test_an_answer_is_right_where_greedy_decoding_writes_it(order, monkeypatch, method):
    model, prompt = tiny_model(vocab_size=VOCABULARY), order.facts(0).prompt(2, order.SetBased() if method else None)
    with longreach.apply(model, method):
        ids, sets = read_prompt(model, tokenizer(), prompt, chat=False, method=None)
        assert len(sets) == bool(method)
        chances = []
        greedy = list(tokens(model, ids, max_new_tokens=3, sets=sets, watch=lambda logits: chances.append(logits.log_softmax(-1).max())))
        for answer, right in ((greedy, True), ([*greedy[:2], (greedy[2] + 1) % VOCABULARY], False)):
            monkeypatch.setattr(order, "Encoder", lambda _, answer=answer: SimpleNamespace(encode_inside=lambda text: answer))
            found = order.told(model, tokenizer(), prompt, "7")
            assert found.right is right
            assert (found.chance == pytest.approx(float(sum(chances)), abs=1e-4)) is right


def test_the_method_is_held_to_the_order_that_the_model_answers_worst(order):
    def told(*orders):
        return [[order.Told(chance=chance, right=right) for chance, right in each] for each in orders]

    plain = told(((-1.0, True), (-2.0, True)), ((-3.0, False), (-2.5, True)), ((-1.5, True), (-2.0, True)), ((-1.0, True), (-2.0, True)))
    ours = told(*[((-1.0, True), (-2.0, True))] * 4)
    assert order.difference(plain) == 2
    same, share = order.evidence(plain, ours, model="made", data="d", command="c")
    assert (same["number"], same["low"], same["high"], same["verdict"]) == (0, 0, 0, "holds")
    assert same["setting"].endswith("(the model as it is: 2)")
    assert (share["number"], share["of"]) == (0.5, "2 prompts")
    assert share["setting"].endswith("(right: 1; the model as it is: 0.5 to 1)")
    worse, fewer = order.evidence(ours, plain, model="made", data="d", command="c")
    assert (worse["number"], worse["verdict"], fewer["number"]) == (2, "does not hold", 0)


def test_orders_are_compared_on_any_model(order, tmp_path, monkeypatch, capsys):
    longreach.save(tiny_model(vocab_size=VOCABULARY, max_position_embeddings=256), tokenizer(), tmp_path / "tiny")
    run("order", monkeypatch, "--model", tmp_path / "tiny", "--prompts", 2, "--evidence", tmp_path / "out")
    same, share = rows(tmp_path / "out" / "tiny-order.jsonl")
    assert (same["number"], same["method"], same["model"]) == (0, "set_based", "tiny")
    beside = float(same["setting"].partition("as it is: ")[2].rstrip(")"))
    assert beside > 1e-4, "the order makes a difference to the model as it is"
    assert share["low"] <= share["number"] <= share["high"]
    assert {row["command"] for row in (same, share)} == {"python experiments/order.py --model FOLDER --name tiny --prompts 2"}
    assert "the model as it is" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "models" / "tiny.json").read_text(encoding="utf-8"))["window"] == 256
    with pytest.raises(SystemExit, match="order: --prompts 0 must be at least 1"):
        run("order", monkeypatch, "--prompts", 0)
