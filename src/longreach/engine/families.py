"""The only place that knows model families by name: those whose attention has to be routed to the attention interface by hand."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel


def _falcon_forward(
    self: Any,
    hidden_states: Tensor,
    alibi: Tensor | None,
    attention_mask: Any,
    position_ids: Tensor | None = None,
    layer_past: Any = None,
    use_cache: bool = False,
    output_attentions: bool = False,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Falcon's attention with the attention interface in place of its own calls; rotary models only."""
    from transformers.models.falcon.modeling_falcon import apply_rotary_pos_emb

    query, key, value = self._split_heads(self.query_key_value(hidden_states))
    b, t = hidden_states.shape[:2]
    kv_heads = self.num_heads if self.new_decoder_architecture else self.num_kv_heads
    query = query.transpose(1, 2).reshape(b, self.num_heads, t, self.head_dim)
    key = key.transpose(1, 2).reshape(b, kv_heads, t, self.head_dim)
    value = value.transpose(1, 2).reshape(b, kv_heads, t, self.head_dim)
    assert position_embeddings is not None  # noqa: S101 - rotary models always get them
    query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
    if layer_past is not None:
        key, value = layer_past.update(key, value, self.layer_idx)
    attend: Any = AttentionInterface._global_mapping[self.config._attn_implementation]
    out, _ = attend(self, query, key, value, attention_mask, scaling=self.head_dim**-0.5, position_ids=position_ids)
    return self.dense(out.reshape(b, t, self.num_heads * self.head_dim)), None


# model_type -> (class name of its attention, replacement of the forward)
_ROUTED: dict[str, tuple[str, Callable[..., Any]]] = {"falcon": ("FalconAttention", _falcon_forward)}


@contextmanager
def routed(model: PreTrainedModel) -> Iterator[None]:
    """Inside, every attention layer of the model goes through transformers' attention interface."""
    name, forward = _ROUTED.get(model.config.model_type, ("", None))
    if forward is None or getattr(model.config, "alibi", False):
        yield
        return
    changed: list[nn.Module] = [module for module in model.modules() if type(module).__name__ == name]
    for module in changed:
        module.forward = MethodType(forward, module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward
