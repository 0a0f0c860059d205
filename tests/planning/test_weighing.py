"""What is planned from short texts is what a cache of the model holds at the target."""

from functools import partial

import pytest
import torch
from transformers import LlamaForCausalLM

from longreach.cache.streaming.duo import Duo
from longreach.checkpoints.checkpoint import load
from longreach.core.errors import UnsupportedError
from longreach.core.fitting import FittedFile
from longreach.core.spec import parse
from longreach.decoding.reading import CHUNK, new_cache, prefill
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.planning import shrinking, weighing
from longreach.planning.holdings import holdings
from longreach.planning.weighing import CacheScale
from longreach.testing.models import tiny_learned, tiny_model

SMALLER = 4  # than what a user plans with: chunks, and with them all texts
NEW = 20 // SMALLER
TOKENS = 3172 // SMALLER  # no whole number of chunks
SPECS = (
    "",
    f"sinks:window_size={1500 // SMALLER}",  # shrinks with the text
    f"rerope:window_size={1200 // SMALLER}",  # so does this one, and its keys lie under names with the setting in them
    f"snapkv:budget={256 // SMALLER}",
    "quantised:exact=32",
    f"infllm:block_size={64 // SMALLER},num_blocks=4,local_window={256 // SMALLER}",
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Chunks of fewer tokens, and in the same ratio all that the planner chooses its texts by."""
    chunk = CHUNK // SMALLER
    for module in (shrinking, weighing):
        monkeypatch.setattr(module, "CHUNK", chunk)
    for name in ("SHORT", "_LONGEST", "_KEPT", "_EVEN"):
        monkeypatch.setattr(shrinking, name, getattr(shrinking, name) // SMALLER)
    for name in ("_STEP", "_NEW"):
        monkeypatch.setattr(weighing, name, getattr(weighing, name) // SMALLER)
    monkeypatch.setattr(weighing, "prefill", partial(prefill, chunk_size=chunk))


@torch.no_grad()
def held(model, spec, tokens, *, batch=1):
    """Bytes of a real cache: where the prompt ends, and after the answer."""
    ids = (torch.arange(tokens + NEW) * 7 % model.config.get_text_config().vocab_size).expand(batch, -1)
    with apply(model, spec, warn=False):
        cache = new_cache(model)
        prefill(model, ids[:, :tokens], cache=cache, chunk_size=weighing.CHUNK)
        ends = holdings(cache).kept
        for at in range(tokens, tokens + NEW):
            model(ids[:, at : at + 1], **cache_argument(model, cache), use_cache=True)
        return ends, holdings(cache).kept


@pytest.fixture(scope="module")
def models():
    like_nano = load("nano").model.config
    like_nano.update({"vocab_size": 97, "intermediate_size": 96})  # what no cache goes by
    return {
        "nano": LlamaForCausalLM(like_nano).eval(),
        "llama": tiny_model("llama", num_attention_heads=4, num_key_value_heads=2, head_dim=32, num_hidden_layers=4),
        "gemma3": tiny_model("gemma3", sliding_window=10),
    }


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", ["nano", "llama", "gemma3"])
def test_the_plan_is_what_a_cache_holds(models, name, spec):
    model, tokens = models[name], TOKENS
    weight = CacheScale(model.config, torch.float32, tokens).weigh(parse(spec) if spec else ())
    assert weight.error is not None  # it is a line, not the target itself
    ends, after = held(model, spec, tokens)
    assert sum(weight.kept(tokens).values()) == pytest.approx(ends, rel=0.02)
    assert sum(weight.kept(tokens, NEW).values()) == pytest.approx(after, rel=0.02)


@pytest.mark.parametrize("spec", ["", "quantised:exact=32", "quest:budget=32,page_size=4", "duo:heads=0.1/2.0,window_size=25,num_sinks=16"])
def test_it_holds_for_longer_texts_too(models, spec):
    weight = CacheScale(models["llama"].config, torch.float32, TOKENS).weigh(parse(spec) if spec else ())
    ends, after = held(models["llama"], spec, TOKENS + weighing._STEP)
    assert sum(weight.kept(TOKENS + weighing._STEP).values()) == pytest.approx(ends, rel=0.02)
    assert sum(weight.kept(TOKENS + weighing._STEP, NEW).values()) == pytest.approx(after, rel=0.02)


def test_heads_by_layer_are_weighed_by_how_many_of_a_layer_keep_everything(models):
    method = Duo(file=FittedFile.of("heads", {"format": 1, "method": "duo", "fitted": {"scores": [[1, 0], [0, 0], [0, 1], [0, 0]]}}))
    weight = CacheScale(models["llama"].config, torch.float32, TOKENS).weigh((method,))
    assert weight.times == (1, 2, 1, 1)  # half of all heads: both of the first layer, one each of the second and third, none of the last
    assert sum(weight.kept(TOKENS).values()) == pytest.approx(held(models["llama"], method, TOKENS)[0], rel=0.02)


def test_a_short_text_is_measured_itself(models):
    weight = CacheScale(models["llama"].config, torch.float32, 75).weigh(parse("think:keep=0.5"))
    assert weight.error is None
    assert sum(weight.kept(75).values()) == held(models["llama"], "think:keep=0.5", 75)[0]


def test_a_batch_takes_as_much_for_each_text(models):
    one, three = (held(models["llama"], "snapkv:budget=64", 150, batch=batch) for batch in (1, 3))
    assert three == pytest.approx([3 * each for each in one], rel=0.02)


def test_first_layers_may_be_other_than_the_rest(models):
    spec = "quest:budget=16,page_size=4,dense_layers=1"
    weight = CacheScale(models["llama"].config, torch.float32, TOKENS).weigh(parse(spec))
    assert weight.times == (1, 3, 1)
    assert sum(weight.kept(TOKENS, NEW).values()) == pytest.approx(held(models["llama"], spec, TOKENS)[1], rel=0.02)


def test_a_dtype_of_two_bytes_takes_half(models):
    config = models["llama"].config
    single, half = (CacheScale(config, dtype, 5000).weigh(()).kept(5000)["device"] for dtype in (torch.float32, torch.bfloat16))
    assert (single, half) == (4 * 5000 * 2 * 2 * 32 * 4, 4 * 5000 * 2 * 2 * 32 * 2)


def test_blocks_lie_where_they_are_put(models):
    spec = "infllm:block_size=16,num_blocks=4,local_window=64,storage="
    found = {place: CacheScale(models["llama"].config, torch.float32, 384).weigh(parse(spec + place)) for place in ("host", "disk")}
    sizes = {place: weight.kept(384) for place, weight in found.items()}
    assert sizes["host"]["host"] == sizes["disk"]["disk"] > 0
    assert sizes["host"]["disk"] == sizes["disk"]["host"] == 0
    weight = found["host"]
    assert weight.found == 5  # the first, and four more
    assert weight.read(384) < sum(weight.kept(384).values()) / 2


def test_a_table_of_positions_ends():
    with pytest.raises(UnsupportedError, match="cannot read beyond"):
        CacheScale(tiny_learned("gpt2").config, torch.float32, 4096).weigh(())


def test_full_layers_among_sliding_ones_go_by_how_many_of_them_there_are():
    model = tiny_model("gemma3", num_hidden_layers=6, sliding_window=10, layer_types=["sliding_attention", "full_attention"] * 3)
    weight = CacheScale(model.config, torch.float32, 150).weigh(parse("longgen:window_size=8"))
    assert weight.times == (3, 2, 1, 1)
    assert sum(weight.kept(150).values()) == pytest.approx(held(model, "longgen:window_size=8", 150)[0], rel=0.02)


def test_layers_that_go_by_how_many_there_are():
    model = tiny_model("llama", num_hidden_layers=12)  # the middle four see everything
    weight = CacheScale(model.config, torch.float32, 150).weigh(parse("longgen:window_size=8"))
    assert weight.times == (8, 4, 1)
    assert sum(weight.kept(150).values()) == pytest.approx(held(model, "longgen:window_size=8", 150)[0], rel=0.02)
