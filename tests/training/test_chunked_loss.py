import pytest
import torch
from torch.nn.functional import cross_entropy

import longreach
from longreach.core.errors import LongreachError
from longreach.decoding.reading import UNPREDICTED, next_token_losses
from longreach.engine.apply import apply
from longreach.engine.weights import own_weights
from longreach.testing.models import DECODERS, FAMILIES, random_ids, tiny_biased, tiny_learned, tiny_model
from longreach.training import tune as tuning
from longreach.training.adapters import add_adapters
from longreach.training.chunked_loss import CannotSplitError, ChunkedLoss, chunked_loss
from tests.evaluation.samples import VOCABULARY
from tests.training.tuning import WINDOW, run
from tests.training.tuning import model as llama

# What follows the head has to bite.
HEADS = {"gemma2": {"final_logit_softcapping": 2.0}, "cohere2": {"logit_scale": 0.3}, "granite": {"logits_scaling": 4.0}}
FLOAT32_ONLY = ("gpt_oss",)  # transformers has no experts in float64
CHUNK = 13


def made(family):
    return tiny_learned(family) if family in DECODERS else tiny_model(family, **HEADS.get(family, {}))


def batch():
    """Two rows of 40 tokens, some of them not predicted."""
    ids = random_ids(2, 40)
    labels = ids.clone()
    labels[0, :5] = labels[1, 17] = UNPREDICTED
    return {"input_ids": ids, "labels": labels}


def weights(of):
    return [parameter for parameter in of.parameters() if parameter.requires_grad]


def gradients(loss, of):
    return [gradient for gradient in torch.autograd.grad(loss, weights(of), allow_unused=True) if gradient is not None]


@pytest.mark.parametrize("family", [*FAMILIES, *DECODERS])
def test_loss_and_gradients_are_those_of_the_whole_logits(family):
    model, inputs = made(family), batch()
    exact = family not in FLOAT32_ONLY
    model = model.double() if exact else model
    whole = cross_entropy(model(inputs["input_ids"]).logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten())
    ours = ChunkedLoss(model, CHUNK)(model, inputs)
    close = {"rtol": 0, "atol": 1e-9 if exact else 1e-5}
    torch.testing.assert_close(ours, whole, **close)
    for found, wanted in zip(gradients(ours, model), gradients(whole, model), strict=True):
        torch.testing.assert_close(found, wanted, **close)


@pytest.mark.parametrize("family", ["llama", *HEADS])
def test_in_float32_it_is_the_models_own_loss_and_no_more_logits_exist(family):
    model, inputs = made(family), batch()
    counts = []
    hook = model.get_output_embeddings().register_forward_hook(lambda module, args, out: counts.append(out[..., 0].numel()))
    stock = model(**inputs).loss
    assert counts == [80]
    counts.clear()
    ours = chunked_loss(model, model, inputs["input_ids"][0].numpy(), chunk=CHUNK)
    counts.clear()
    ours = ours(model, inputs)
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-5)
    wanted = gradients(stock, model)
    for found, each in zip(gradients(ours, model), wanted, strict=True):
        torch.testing.assert_close(found, each, rtol=0, atol=1e-5)
    hook.remove()
    # Two rows of one token while the text is read, and each chunk once for the loss and once for its gradient.
    assert (counts[0], max(counts)) == (2, CHUNK)
    assert sum(counts[1:]) == 2 * int((inputs["labels"][:, 1:] != UNPREDICTED).sum())


def test_adapters_on_the_head_are_trained():
    model = tiny_model(tie_word_embeddings=False)
    wrapped = add_adapters(model, rank=2, alpha=4, targets=("lm_head", "q_proj"))
    with torch.no_grad():
        for parameter in weights(wrapped):
            parameter.normal_(std=0.1)
    inputs = batch()
    ours = chunked_loss(model, wrapped, inputs["input_ids"][0].numpy(), chunk=CHUNK)(wrapped, inputs)
    stock = wrapped(**inputs).loss
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-5)
    found, wanted = gradients(ours, wrapped), gradients(stock, wrapped)
    assert len(found) == len(weights(wrapped)) == 2 * (3 + 1)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
        assert one.abs().max() > 1e-4


@pytest.mark.parametrize("spec", ["yarn:factor=4", "rerope:window_size=32+log_n", "harpe:base_min=100,base_max=10000"])
def test_methods_go_on_working(spec):
    model, inputs = tiny_model(), batch()
    plain = ChunkedLoss(model, CHUNK)(model, inputs)
    with apply(model, spec):
        ours = chunked_loss(model, model, inputs["input_ids"][0].numpy(), chunk=CHUNK)(model, inputs)
        stock = model(**inputs).loss
        torch.testing.assert_close(ours, stock, rtol=0, atol=1e-5)
        for found, wanted in zip(gradients(ours, model), gradients(stock, model), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert abs(float(ours.detach() - plain.detach())) > 1e-3
    assert model.get_decoder() is model.model


@pytest.mark.parametrize("family", ["llama", *HEADS])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_in_16_bits_is_no_difference(family, dtype):
    model = tiny_model(family, **HEADS.get(family, {})).to(dtype)
    assert chunked_loss(model, model, random_ids(1, 40)[0].numpy(), chunk=CHUNK) is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_a_gpu_a_step_takes_less_memory(dtype):
    model = tiny_model(vocab_size=50_000).cuda()
    ids = random_ids(1, 4096).cuda()
    inputs, peaks, found = {"input_ids": ids, "labels": ids}, [], []
    loss = chunked_loss(model, model, ids[0].cpu().numpy(), chunk=256)
    for step in (lambda: model(**inputs).loss, lambda: loss(model, inputs)):
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16, enabled=dtype == torch.bfloat16):
            value = step()
        value.backward()
        peaks.append(torch.cuda.max_memory_allocated())
        found.append([value.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
        model.zero_grad()
    assert peaks[1] < 0.4 * peaks[0]
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() <= (1e-4 if dtype == torch.float32 else 0.02) * other.norm()


def test_a_count_divides_the_sum():
    model, inputs = tiny_model(), batch()
    loss = ChunkedLoss(model, CHUNK)
    labels = int((inputs["labels"][:, 1:] != UNPREDICTED).sum())
    assert float(loss(model, inputs, torch.tensor(2 * labels)).detach()) == pytest.approx(float(loss(model, inputs).detach()) / 2)


class AcrossTokens(torch.nn.Linear):
    """A head whose logits hang on the other tokens."""

    def forward(self, hidden):
        return super().forward(hidden - hidden.mean(1, keepdim=True))


def test_what_does_not_come_apart_is_left_whole():
    ids = random_ids(1, 40)[0].numpy()
    assert chunked_loss(tiny_biased(), tiny_biased(), ids, chunk=CHUNK) is None  # an encoder-decoder
    unusual = tiny_model()
    unusual.lm_head.__class__ = AcrossTokens
    assert chunked_loss(unusual, unusual, ids, chunk=CHUNK) is None
    balanced = tiny_model("gpt_oss", output_router_logits=True, router_aux_loss_coef=0.1)  # its loss is not that of tokens alone
    assert chunked_loss(balanced, balanced, ids, chunk=CHUNK) is None
    twice = tiny_model()
    once = type(twice).forward
    twice.forward = lambda **given: (once(twice, **given), once(twice, **given))[0]
    assert chunked_loss(twice, twice, ids, chunk=CHUNK) is None
    with pytest.raises(CannotSplitError, match="the forward pass of LlamaForCausalLM calls its decoder 2 times"):
        ChunkedLoss(twice, CHUNK)(twice, batch())


def test_a_gradient_that_differs_is_seen():
    model = tiny_model()
    model.lm_head.register_forward_hook(lambda module, args, out: out if out.shape[0] == 2 else (out + out.detach()) / 2)
    assert chunked_loss(model, model, random_ids(1, 40)[0].numpy(), chunk=CHUNK) is None


def test_where_a_few_tokens_say_nothing_of_what_is_trained_more_are_tried():
    spec = "extensible:chunk_size=32,ratio=8,layers=1"
    model, ids = longreach.equip(tiny_model(), spec).requires_grad_(False), random_ids(2, 90)
    for weight in own_weights(model).values():
        weight.requires_grad_(True)
    with apply(model, spec, warn=False):
        loss = chunked_loss(model, model, ids[0].numpy(), chunk=CHUNK)
        ours = gradients(loss(model, {"input_ids": ids, "labels": ids}), model)
        wanted = gradients(model(ids, labels=ids, use_cache=False).loss, model)
    assert len(ours) == len(own_weights(model))
    assert all(torch.allclose(mine, theirs, atol=1e-6) for mine, theirs in zip(ours, wanted, strict=True))


def test_the_check_leaves_modes_gradients_and_random_numbers_alone():
    model = tiny_learned("gpt2", resid_pdrop=0.5).train()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert chunked_loss(model, model, random_ids(1, 40)[0].numpy(), chunk=CHUNK) is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_losses_are_never_in_half_precision():
    logits, targets = torch.randn(5, 97), torch.tensor([3, UNPREDICTED, 1, 2, 0])
    halved = next_token_losses(logits.bfloat16(), targets)
    assert halved.dtype == torch.float32
    assert torch.equal(halved, next_token_losses(logits.bfloat16().float(), targets))
    assert halved[1] == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"full": True},
        {"rank": 2, "targets": ("lm_head", "q_proj"), "accumulate": 2},
        {"full": True, "sampler": "full_length", "accumulate": 2},
        {"rank": 2, "sampler": "e2"},
        {"rank": 2, "sampler": "cream"},
        {"rank": 2, "sampler": "randomized"},
        {"rank": 2, "sampler": "segmented"},
    ],
    ids=str,
)
def test_a_run_comes_to_the_same(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "_bf16_is_faster", lambda model: False)
    counts = []

    def trained(folder, logits):
        monkeypatch.setattr(tuning, "LOGITS", logits)
        model = llama()

        def count(module, args, out):
            if module.training:
                counts.append(out[..., 0].numel())

        hook = model.lm_head.register_forward_hook(count)
        tuned = run(tmp_path / folder, of=model, steps=2, **settings)
        hook.remove()
        return tuned

    whole = trained("whole", 2**25)
    assert min(counts) >= WINDOW
    counts.clear()
    chunked = trained("chunked", 20 * VOCABULARY)
    assert 0 < max(counts) <= 20
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(chunked.model.state_dict()[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("batch_size", "says"), [(2, "use a larger accumulate, shorter"), (1, "use shorter sequences or a smaller model")])
def test_too_little_memory_is_one_line(batch_size, says, tmp_path):
    model = llama()

    def full(module, args, out):
        if module.training:
            raise torch.OutOfMemoryError

    model.lm_head.register_forward_hook(full)
    with pytest.raises(LongreachError, match=f"too small to train on {batch_size * WINDOW} tokens in a forward pass; {says}"):
        run(tmp_path / "run", of=model, steps=1, batch_size=batch_size)
