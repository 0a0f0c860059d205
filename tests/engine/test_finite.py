import pytest
import torch

from longreach.core.errors import LongreachError
from longreach.decoding.generation import tokens
from longreach.engine.apply import apply
from longreach.testing.models import random_ids, tiny_biased, tiny_model

IDS = random_ids(1, 24)


def broken(model, layer, value=float("nan")):
    """The model with one weight of a layer that is `value`."""
    with torch.no_grad():
        model.model.layers[layer].mlp.down_proj.weight[3, 3] = value
    return model


def broken_at(model, layer, token):
    """The model with a layer that gives NaN wherever this token stands."""
    model.get_input_embeddings().register_forward_hook(lambda module, args, output: read.append(args[0]))
    read = []

    def spoil(module, args, output):
        (output if isinstance(output, torch.Tensor) else output[0])[read[-1] == token] = float("nan")

    model.model.layers[layer].register_forward_hook(spoil)
    return model


@pytest.mark.parametrize("chunk_size", [7, 512])
@pytest.mark.parametrize(("layer", "place"), [(0, 1), (1, 12), (2, 24)])
def test_the_layer_and_the_token_of_a_prompt_are_found(layer, place, chunk_size):
    token = int(IDS[0, place - 1])
    assert IDS[0].tolist().index(token) == place - 1, "it stands nowhere before"
    model = broken_at(tiny_model(), layer, token)
    name = rf"layer {layer + 1} of 3 \(model\.layers\.{layer}\)"
    says = rf"LlamaForCausalLM are not finite .* {name} is the first whose output is not, at token {place};"
    with pytest.raises(LongreachError, match=says):
        next(tokens(model, IDS, max_new_tokens=4, chunk_size=chunk_size))


@pytest.mark.parametrize("method", [None, "sinks:window_size=16", "yarn:factor=2"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_found_under_a_method_too(value, method):
    model = broken(tiny_model(), 1, value)
    with pytest.raises(LongreachError, match=r"layer 2 of 3 \(model\.layers\.1\) .* at token 1;"), apply(model, method):
        next(tokens(model, IDS, max_new_tokens=4))


def test_a_step_that_breaks_is_found():
    model = tiny_model()
    model.generation_config.eos_token_id = None
    usual = list(tokens(model, IDS, max_new_tokens=6))
    once = next(place for place, token in enumerate(usual) if token not in IDS[0].tolist() + usual[:place] and place < 5)
    pieces = tokens(broken_at(model, 1, usual[once]), IDS, max_new_tokens=6)
    assert [next(pieces) for _ in range(once + 1)] == usual[: once + 1]
    with pytest.raises(LongreachError, match=rf"layer 2 of 3 .* at token {24 + once + 1};"):
        next(pieces)


def test_what_stands_before_and_behind_the_layers_is_named():
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(LongreachError, match=r"all layers are, so it is what follows them \(the last norm or the output head\)"):
        next(tokens(model, IDS, max_new_tokens=1))
    with torch.no_grad():
        model.get_input_embeddings().weight[IDS[0, 4]] = float("nan")
    with pytest.raises(
        LongreachError, match=rf"the embedding of tokens is the first .* at token {IDS[0].tolist().index(int(IDS[0, 4])) + 1};"
    ):
        next(tokens(model, IDS, max_new_tokens=1))


def test_in_an_encoder_decoder():
    model = tiny_biased("t5")
    with torch.no_grad():
        model.decoder.block[1].layer[-1].DenseReluDense.wo.weight[0, 0] = float("nan")
    with pytest.raises(LongreachError, match=r"layer 2 of 2 \(decoder\.block\.1\) is the first whose output is not, at token 1;"):
        next(tokens(model, IDS, max_new_tokens=1))


def test_tokens_that_are_ruled_out_are_no_error():
    model = tiny_model()
    usual = list(tokens(model, IDS, max_new_tokens=4))
    model.lm_head.register_forward_hook(lambda module, args, output: output.index_fill(-1, torch.tensor([0]), float("-inf")))
    assert list(tokens(model, IDS, max_new_tokens=4)) == usual
