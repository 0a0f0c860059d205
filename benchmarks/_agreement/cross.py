"""What a decoder finds in a text that is longer than its encoder's window."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import longreach
from _agreement.base import Pair, compares, stacked
from _agreement.theirs import Source
from longreach.attention.cross.unlimiformer import Unlimiformer
from longreach.testing.models import random_ids, tiny_encoder_decoder

REPOSITORY, COMMIT, FILE = "abertsch72/unlimiformer", "e38b0149488636da9528c7504d2befdfb76f6d98", "src/unlimiformer.py"
_LENGTHS = (33, 40, 64, 65, 100, 257)


@compares(
    "unlimiformer", REPOSITORY, COMMIT, FILE,
    compared="begin and end of each piece, and of what is kept of it, tokens",
    inputs="texts of 33 to 257 tokens, a window of 32, an overlap of half of it",
)  # fmt: skip
def pieces(source: Source) -> Pair:
    code = source.load("Unlimiformer.window_indices")
    given = SimpleNamespace(model_encoder_max_len=32, window_margin=int(32 * 0.5 / 2), is_encoder_decoder=True)
    found = [(a, b, a + c, a + d) for length in _LENGTHS for a, b, c, d in code.window_indices(given, length)]
    ours = [piece for length in _LENGTHS for piece in Unlimiformer().pieces(length, 32)]
    return stacked(*(torch.tensor(each) for each in found)), stacked(*(torch.tensor(each) for each in ours))


@compares(
    "unlimiformer", REPOSITORY, COMMIT, FILE,
    compared="output of the second layer's cross-attention, token by token", rounding=1e-5,
    inputs="a random BART (4 heads of 8), 100 tokens read with a window of 32, 12 written; theirs searches all states exactly; float32",
)  # fmt: skip
def layer(source: Source) -> Pair:
    model, ids = tiny_encoder_decoder(window=32), random_ids(1, 100)
    attention: Any = model.get_decoder().layers[1].encoder_attn
    seen: dict[str, Tensor] = {}

    def see(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        seen.update(hidden=kwargs["hidden_states"] if "hidden_states" in kwargs else args[0], ours=output[0])

    hook = attention.register_forward_hook(see, with_kwargs=True)
    with longreach.apply(model, "unlimiformer"):
        states = model.get_encoder()(input_ids=ids).last_hidden_state
        model(encoder_outputs=(states,), decoder_input_ids=random_ids(1, 12, seed=1))
    hook.remove()
    names = ("attention_forward_hook", "preprocess_query", "post_process_retrieved")
    code = source.load(*(f"Unlimiformer.{name}" for name in names))
    theirs = [attention.out_proj(_theirs(code, attention, states, query)) for query in attention.q_proj(seen["hidden"])[0]]
    return torch.cat(theirs), seen["ours"][0]


def _theirs(code: SimpleNamespace, attention: Any, states: Tensor, query: Tensor) -> Tensor:
    """Attention of a query [32] to the keys and values that their hook finds, [1, 32]."""

    def search(queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return tuple((queries @ states.transpose(1, 2)).topk(k))  # type: ignore[return-value]  # of two

    window = torch.zeros(1, 4, 32, 8)  # what their hook replaces
    owner = SimpleNamespace(
        is_input_encoding_pass=False, is_first_test_decoding_step=False, is_encoder_decoder=True, use_datastore=True, test_datastore=False,
        gpu_index=False, reconstruct_embeddings=False, verbose=False, head_nums=Ellipsis, num_heads=4, device="cpu", layer_begin=0,
        layer_end=1, cur_decoder_layer_index=0, prompt_input_ids=torch.zeros(1, states.shape[1]), input_ids_size=states.shape[1] + 1,
        cur_layer_key_value_placeholder=[window, window], hidden_states=[states], datastore=[SimpleNamespace(batch_size=1, search=search)],
        process_query=lambda output: output.view(1, -1, 4, 8), get_kv_projections=lambda *layers: [[attention.k_proj, attention.v_proj]],
    )  # fmt: skip
    owner.preprocess_query = lambda *given: code.preprocess_query(owner, *given)
    owner.post_process_retrieved = lambda *given: code.post_process_retrieved(owner, *given)
    code.attention_forward_hook(owner, None, None, query.view(1, 1, -1))
    keys, values = owner.cur_layer_key_value_placeholder
    logits = query.view(1, 4, 1, 8) @ keys.transpose(2, 3) * attention.scaling
    return (logits.softmax(-1) @ values).view(1, -1)
