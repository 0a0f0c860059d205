import json
import math
from itertools import pairwise

import pytest
import torch
from transformers import DynamicCache

from longreach.checkpoints.checkpoint import load, save
from longreach.checkpoints.export import verify_export
from longreach.checkpoints.record import read_record
from longreach.core.errors import SpecError, UnsupportedError
from longreach.core.fitting import Bench, BudgetSpent, FittedFile
from longreach.core.spec import parse
from longreach.decoding.reading import read
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.rotation import exact_angles, rotary_modules
from longreach.positions.fitted.longrope import Longrope, LongropeFit, with_factors
from longreach.positions.scaling.yarn import Yarn
from longreach.testing.models import random_ids, tiny_model
from tests.checkpoints.folders import byte_tokenizer, edit, tiny
from tests.positions.ropes import ROPES, assert_close, in_transformers

LONG = [1.0, 1.2, 1.9, 2.5, 3.1, 4.0, 4.6, 5.0]
SHORT = [1.0, 1.0, 1.0, 1.05, 1.1, 1.1, 1.2, 1.25]

pytestmark = pytest.mark.usefixtures("warm_reader")


def found(rope=None, **changes):
    """What a search may have found: for a rotary embedding, or for tiny models (16 dimensions, a window of 128 tokens)."""
    values = {"window": 128, "factor": 4.0, "long": LONG, "short": None, "start_tokens": 0}
    if rope is not None:
        pairs = rope.dim // 2
        values |= {"window": rope.trained_window, "long": [1 + 4 * i / pairs for i in range(pairs)]}
    return values | changes


# frequencies


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("factor", [1.0, 4.0, 32.0])
def test_every_frequency_has_its_own_factor(rope, factor):
    values = found(rope, factor=factor)
    ours, attention_factor = with_factors(values).inv_freq(rope, rope.trained_window)
    assert_close(ours, [rope.theta ** (-2 * i / rope.dim) / value for i, value in enumerate(values["long"])])
    assert attention_factor == pytest.approx(math.sqrt(1 + math.log(factor) / math.log(rope.trained_window)), rel=1e-12)


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("length", ["window", "beyond"])
def test_it_agrees_with_transformers(rope, length):
    values = found(rope, short=[1 + i / rope.dim for i in range(rope.dim // 2)])
    method, seq_len = with_factors(values), rope.trained_window + (length == "beyond")
    ours, attention_factor = method.inv_freq(rope, seq_len)
    theirs, their_factor = in_transformers(
        rope, "longrope", seq_len=seq_len, factor=4.0, original_max_position_embeddings=rope.trained_window,
        short_factor=values["short"], long_factor=values["long"],
    )  # fmt: skip
    assert torch.equal(ours.double(), theirs)  # more than 1e-6
    assert attention_factor == pytest.approx(their_factor, rel=1e-6)


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_with_a_factor_alone_the_frequencies_are_those_that_the_search_begins_with(rope):
    assert_close(Longrope(factor=8).inv_freq(rope, 1)[0], Yarn(factor=8).inv_freq(rope, 1)[0].double())


# unscaled first tokens


def angles_of_equation_3(rope, factors, start_tokens, positions):
    """RoPE(n)_i = I n / beta ** i in float64, where I is 1 for n < n-hat and 1 / lambda_i from there on."""
    return [
        [n * rope.theta ** (-2 * i / rope.dim) / (1.0 if n < start_tokens else value) for i, value in enumerate(factors)] for n in positions
    ]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("start_tokens", [1, 8, 64])
def test_first_tokens_keep_their_own_rotation(family, start_tokens):
    model, positions = tiny_model(family), [0, 7, 8, 9, 63, 64, 500]
    (_, _, rotary), layer_type = rotary_modules(model)[0], {"gemma3": "full_attention"}.get(family)
    parameters = model.config.rope_parameters[layer_type] if layer_type else model.config.rope_parameters
    theta = parameters["rope_theta"]
    method, where = with_factors(found(start_tokens=start_tokens)), torch.tensor([positions])
    x, which = torch.zeros(1), [layer_type] if layer_type else []
    rope = ROPES[0].__class__(theta=theta, dim=16, trained_window=128)
    wanted = torch.tensor(angles_of_equation_3(rope, LONG, start_tokens, positions), dtype=torch.float64)
    scaled = math.sqrt(1 + math.log(4) / math.log(128))
    scale = torch.tensor([1.0 if n < start_tokens else scaled for n in positions], dtype=torch.float64)[:, None]
    others = [each for each in ("sliding_attention",) if layer_type]
    before = [rotary(x, where, each)[0] for each in others]
    with apply(model, method):
        cos, sin = rotary(x, where, *which)
        exact = exact_angles(rotary, x.double(), where, layer_type, 128)
        for each, stock in zip(others, before, strict=True):
            assert torch.equal(rotary(x, where, each)[0], stock), "layers that never look far are left alone"
    for ours, wave, fine in ((cos, wanted.cos(), exact[0]), (sin, wanted.sin(), exact[1])):
        torch.testing.assert_close(ours[0, :, :8].double(), wave * scale, rtol=0, atol=1e-4)
        torch.testing.assert_close(fine[0], wave * scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stacked", [(), ("log_n",)])
def test_with_unscaled_tokens_chunks_and_one_piece_agree(stacked):
    model, ids = tiny_model(max_position_embeddings=128), random_ids(1, 60)
    methods = (with_factors(found(start_tokens=12)), *(parse(each)[0] for each in stacked))
    with torch.no_grad(), apply(model, methods):
        whole = model(ids, use_cache=False).logits
        past = DynamicCache(config=model.config)
        parts = torch.cat([model(part, **cache_argument(model, past)).logits for part in ids.split(7, 1)], 1)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)
    with torch.no_grad(), apply(model, (with_factors(found()), *methods[1:])):
        assert (model(ids, use_cache=False).logits - whole)[:, 12:].abs().max() > 0.05


def test_unscaled_tokens_are_not_exported(tmp_path):
    model, tokenizer = tiny("llama", head_dim=16), byte_tokenizer()
    method = with_factors(found(start_tokens=4))
    assert not method.info.exportable
    save(model, tokenizer, tmp_path / "out", method=method, target=512)
    assert not read_record(tmp_path / "out").exported
    with apply(model, method), torch.no_grad():
        wanted = model(random_ids(1, 40)).logits
    with torch.no_grad():
        assert torch.equal(load(tmp_path / "out").model(random_ids(1, 40)).logits, wanted)


# short factors


def test_inside_the_window_short_factors_hold_and_beyond_it_all_keys_are_under_the_long_ones():
    model, ids = tiny_model(max_position_embeddings=32), random_ids(1, 60)
    both, short, long = (with_factors(found(window=32, **parts)) for parts in ({"short": SHORT}, {"long": SHORT}, {}))
    with torch.no_grad():
        with apply(model, both):
            whole = model(ids, use_cache=False).logits
            past = DynamicCache(config=model.config)
            parts = torch.cat([model(part, **cache_argument(model, past)).logits for part in ids.split(9, 1)], 1)
            last = first_layer_last_output(model, ids)
        with apply(model, short):
            inside = model(ids[:, :32], use_cache=False).logits
        with apply(model, long):
            beyond = first_layer_last_output(model, ids)
    torch.testing.assert_close(whole[:, :32], inside, rtol=0, atol=1e-4)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)
    torch.testing.assert_close(last, beyond, rtol=0, atol=1e-4)


def first_layer_last_output(model, ids):
    """Of the first attention layer: later layers see hidden states that tokens inside the window made."""
    seen = []
    hook = model.model.layers[0].self_attn.register_forward_hook(lambda module, args, output: seen.append(output[0][:, -1]))
    model(ids, use_cache=False)
    hook.remove()
    return seen[0]


# exports


@pytest.mark.parametrize(("short", "family"), [(None, "llama"), (SHORT, "llama"), (SHORT, "phi3")])
def test_an_export_needs_neither_longreach_nor_the_file(short, family, tmp_path):
    changes = {"head_dim": 16} if family != "phi3" else {"hidden_size": 128}  # partial: half of 32 dimensions are rotated
    model, tokenizer = tiny(family, **changes), byte_tokenizer()
    file = tmp_path / "factors.json"
    file.write_text(json.dumps({"format": 1, "method": "longrope", "fitted": found(short=short)}))
    (method,) = parse(f"longrope:file={file}")
    save(model, tokenizer, tmp_path / "out", method=method, target=512)
    file.unlink()
    assert verify_export(tmp_path / "out") <= 1e-4
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    written = config["rope_parameters"]
    assert (written["rope_type"], written["long_factor"], written["short_factor"]) == ("longrope", LONG, short or LONG)
    assert written["original_max_position_embeddings"] == 128
    record = read_record(tmp_path / "out")
    assert record.exported
    assert parse(record.method) == (method,)


def test_an_export_with_wrong_short_factors_is_found(tmp_path):
    save(tiny("llama", head_dim=16), byte_tokenizer(), tmp_path / "out", method=with_factors(found(short=SHORT)), target=512)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    changes = {name: {**config[name], "short_factor": LONG} for name in ("rope_parameters", "rope_scaling")}
    edit(tmp_path / "out" / "config.json", **changes)
    with pytest.raises(Exception, match="differs in plain transformers"):
        verify_export(tmp_path / "out")


def test_an_exported_checkpoint_is_read_in_chunks_as_in_one_piece(tmp_path):
    # transformers would put the first chunks into the cache under the short factors.
    save(tiny("llama", head_dim=16), byte_tokenizer(), tmp_path / "out", method=with_factors(found(short=SHORT)), target=512)
    model, ids = load(tmp_path / "out").model, random_ids(1, 300)
    buffers = {name: value.clone() for name, value in rotary_modules(model)[0][2].named_buffers()}
    for length in (100, 300):
        with torch.no_grad():
            whole = model(ids[:, :length], use_cache=False).logits
        chunks = torch.cat([logits for _, logits in read(model, ids[:, :length], chunk_size=40, logits="all")], 1)
        torch.testing.assert_close(chunks, whole, rtol=0, atol=1e-4)
    with torch.no_grad():
        model(ids[:, :10])
    assert all(torch.equal(value, buffers[name]) for name, value in rotary_modules(model)[0][2].named_buffers())


def test_a_checkpoint_that_only_longreach_applies_embeds_the_factors(tmp_path):
    model, tokenizer = tiny("llama", head_dim=16), byte_tokenizer()
    method = with_factors(found())
    save(model, tokenizer, tmp_path / "out", method=(method, *parse("log_n")), target=512)
    record = json.loads((tmp_path / "out" / "longreach.json").read_text())
    assert record["fitted"][method.file.digest]["fitted"]["long"] == LONG
    again = load(tmp_path / "out")
    save(*again, tmp_path / "again")
    assert (tmp_path / "again" / "longreach.json").read_bytes() == (tmp_path / "out" / "longreach.json").read_bytes()
    record["fitted"][method.file.digest]["fitted"]["long"] = SHORT
    edit(tmp_path / "out" / "longreach.json", fitted=record["fitted"])
    with pytest.raises(Exception, match="is damaged: what longrope:.* was fitted to is not what it was"):
        load(tmp_path / "out")


# files


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        (None, "longrope: file={file}: the file cannot be read: No such file or directory; `longreach fit` makes one"),
        ("{", "longrope: file={file}: not a file of `longreach fit` (not JSON)"),
        ("[]", "longrope: file={file}: not a file of `longreach fit` (it has no method with what was fitted)"),
        ({"format": 9}, "its format is 9 and this longreach reads 1; fit the method again"),
        ({"method": "clex"}, "was fitted for clex; fit longrope itself"),
        ({"fitted": found(long=[])}, "is damaged (long, short, factor, window or start_tokens); fit it again"),
        ({"fitted": found(long=[1.0, "2"])}, "is damaged"),
        ({"fitted": found(short=[1.0])}, "is damaged"),
        ({"fitted": found(factor=0.5)}, "is damaged"),
        ({"fitted": {}}, "is damaged"),
        ({"fitted": found(short=SHORT, start_tokens=4)}, "has short factors and unscaled first tokens, which do not go together"),
        ({"fitted": found(long=[2.0, *LONG[1:]])}, "its factors fall from a higher to a lower frequency"),
    ],
)
def test_files_that_are_none(contents, says, tmp_path):
    file = tmp_path / "factors.json"
    if isinstance(contents, dict):
        contents = json.dumps({"format": 1, "method": "longrope", "fitted": found()} | contents)
    if contents is not None:
        file.write_text(contents)
    with pytest.raises(SpecError) as caught:
        parse(f"longrope:file={file}")
    assert says.format(file=file) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "needs"), [({"head_dim": 8}, "4 for 128"), ({"head_dim": 16, "max_position_embeddings": 64}, "8 for 64")]
)
def test_a_file_of_another_model_says_how_many_factors_it_has_and_how_many_are_needed(changes, needs):
    model = tiny("llama", **changes)
    says = rf"it has 8 factors for a window of 128 tokens, and this model needs {needs}; fit it to this model"
    with pytest.raises(UnsupportedError, match=says), apply(model, with_factors(found())):
        pass


@pytest.mark.parametrize(
    "settings", [{}, {"file": FittedFile.of("a", {"format": 1, "method": "longrope", "fitted": found()}), "factor": 2}]
)
def test_a_file_or_a_factor_is_needed(settings):
    with pytest.raises(SpecError, match="give file=FACTORS.json, which `longreach fit MODEL longrope` makes, or factor=..., and not both"):
        Longrope(**settings)


# the fit


class MadeBench(Bench):
    """A bench whose loss is how far factors are from LONG (from SHORT, up to the window)."""

    def __init__(self, target=512, seed=0, most=math.inf):
        self.trained_window, self.target, self.seed, self.most = 128, target, seed, most
        self.lengths, self.begun, self.factors = [], [], []

    def rope(self):
        return ROPES[0].__class__(theta=10_000.0, dim=16, trained_window=128)

    def begin(self, label, evaluations, *, least=1, share=1.0):
        self.begun.append((label, evaluations, least, share))

    def loss(self, method, length):
        if len(self.lengths) >= self.most:
            raise BudgetSpent
        self.lengths.append(length)
        values = method.file.data["fitted"]
        self.factors.append(values["long"])
        assert values["factor"] == self.target / 128
        return sum(abs(a - b) for a, b in zip(values["long"], LONG if length > 128 else SHORT, strict=True))


QUICK = {"population": 12, "parents": 6, "mutations": 6, "crossovers": 6, "iterations": 20}


def test_the_search_begins_with_interpolation_ntk_and_yarn():
    bench = MadeBench(most=3)
    LongropeFit().run(bench)
    rope = bench.rope()
    dimensions = range(8)
    interpolation, ntk, yarn = bench.factors
    assert interpolation == [4.0] * 8
    assert ntk == pytest.approx([4.0 ** (2 * i / 14) for i in dimensions], rel=1e-5)
    assert yarn == pytest.approx((rope.inv_freq() / Yarn(factor=4).inv_freq(rope, 1)[0]).tolist(), rel=1e-5)
    assert bench.lengths == [512] * 3
    assert bench.begun == [("long factors", 64 + 40 * 32, 3, 1.0)]  # the paper's sizes


def test_what_is_found_is_a_file_of_the_method():
    bench = MadeBench()
    values = LongropeFit(**QUICK).run(bench)
    assert values["short"] is None
    assert (values["window"], values["factor"], values["start_tokens"]) == (128, 4.0, 0)
    assert sum(abs(a - b) for a, b in zip(values["long"], LONG, strict=True)) < 1.5
    assert max(values["long"]) <= 1.25 * 4
    with_factors(values)


def test_the_second_stage_goes_on_from_the_first():
    first = with_factors(found(factor=2.0, long=[1.0, 1.1, 1.5, 1.8, 2.0, 2.0, 2.0, 2.0]))
    bench = MadeBench()
    values = LongropeFit(on=first.file, **QUICK).run(bench)
    assert bench.factors[0] == [2 * factor for factor in first.file.data["fitted"]["long"]]  # interpolation by the rest of the way
    assert all(new >= old for factors in bench.factors for new, old in zip(factors, first.file.data["fitted"]["long"], strict=True))
    assert values["factor"] == 4.0
    with pytest.raises(SpecError, match=r"reaches 256 tokens already; give a greater length than 256"):
        LongropeFit(on=first.file).run(MadeBench(target=256))
    with pytest.raises(UnsupportedError, match=r"it has 1 factors"):
        LongropeFit(on=with_factors(found(long=[1.0])).file).run(MadeBench())


def test_short_factors_are_searched_inside_the_window_with_less_interpolation():
    bench = MadeBench()
    values = LongropeFit(short=True, **QUICK).run(bench)
    assert set(bench.lengths) == {512, 128}
    assert bench.begun[0][3] < 1, "the first search leaves some of the budget"
    inside = [factors for factors, length in zip(bench.factors, bench.lengths, strict=True) if length == 128]
    assert inside[0] == [1.0] * 8
    assert max(map(max, inside)) <= 1.25
    assert sum(abs(a - b) for a, b in zip(values["short"], SHORT, strict=True)) < 0.3
    assert with_factors(values).info.length_dependent


def test_unscaled_tokens_are_searched_on_demand():
    counts = set()

    class Counting(MadeBench):
        def loss(self, method, length):
            counts.add(method.unscaled_tokens())
            return super().loss(method, length) + abs(method.unscaled_tokens() - 8) / 100

    values = LongropeFit(start_tokens=True, **QUICK).run(Counting())
    assert {0, 8} < counts <= {0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256}
    assert 0 < values["start_tokens"] < 64
    assert all(a <= b for a, b in pairwise(values["long"]))


@pytest.mark.parametrize(
    ("settings", "says"), [({"population": 0}, "population=0"), ({"short": True, "start_tokens": True}, "short=true and")]
)
def test_bad_settings_of_the_fit(settings, says):
    with pytest.raises(SpecError, match=says):
        LongropeFit(**settings)
