"""An attention layer of a tiny random model: what it gives under a method here, and the same layer as authors' code expects one."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

import longreach
from longreach.engine.weights import own_weights
from longreach.testing.models import tiny_model

INPUTS = "hidden states of a random Llama layer (4 heads of 16, sharp attention), {}; float32"


class Layer:
    """Runs `tokens` random tokens under a spec. Args: kv_heads: key-value heads, of 4 heads. window: trained, in tokens. weights: name ->
    tensor, of the method's own weights. depth: layers before it.

    hidden [1, T, 64]: the layer's input, with tokens that a method inserts last. ours [1, T, 64]: its output. q, k, v [1, H, T, D]:
    unrotated, keys and values as they are.
    """

    def __init__(
        self,
        setting: str,
        tokens: int,
        *,
        kv_heads: int = 2,
        window: int = 128,
        depth: int = 0,
        weights: dict[str, Tensor] | None = None,
    ) -> None:
        self.model = tiny_model(num_hidden_layers=depth + 1, num_key_value_heads=kv_heads, max_position_embeddings=window)
        self.attention = self.model.model.layers[depth].self_attn
        self.rotary, self.tokens, self.kv_heads = self.model.model.rotary_emb, tokens, kv_heads
        if weights:
            longreach.equip(self.model, setting)
            own = own_weights(self.model)
            for name, value in weights.items():
                next(parameter for full, parameter in own.items() if full.endswith(name)).data.copy_(value)
        seen: dict[str, Tensor] = {}

        def see(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            seen.update(hidden=kwargs["hidden_states"], ours=output[0])

        self.ids = torch.randint(3, 97, (1, tokens), generator=torch.Generator().manual_seed(0))
        hook = self.attention.register_forward_hook(see, with_kwargs=True)
        with longreach.apply(self.model, setting, warn=False):
            self.model(self.ids)
        hook.remove()
        self.hidden, self.ours = seen["hidden"], seen["ours"]
        self.positions = torch.arange(tokens)[None]
        self.mask = torch.full((tokens, tokens), torch.finfo(torch.float32).min).triu(1)[None, None]
        self.q, self.k, self.v = (
            getattr(self.attention, f"{name}_proj")(self.hidden).unflatten(2, (-1, 16)).transpose(1, 2) for name in "qkv"
        )

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [..., D] of the model's own rotary embedding."""
        half = positions[..., None].float() * self.rotary.inv_freq
        angles = torch.cat([half, half], -1)
        return angles.cos(), angles.sin()

    def old_rotary(self, divided_by: float = 1.0) -> Any:
        """The rotary module of transformers up to 4.35, (x, seq_len) -> cos and sin [1, 1, seq_len, D]; it takes positions divided."""
        return lambda x, seq_len: tuple(table[None, None] for table in self.angles(torch.arange(int(seq_len)) / divided_by))

    def new_rotary(self) -> Any:
        """That of transformers from 4.38 on, (x, position_ids) -> cos and sin [B, T, D]."""

        def rotary(x: Tensor, position_ids: Tensor, seq_len: Any = None) -> tuple[Tensor, Tensor]:
            return self.angles(position_ids)

        rotary.inv_freq = self.rotary.inv_freq  # type: ignore[attr-defined]
        return rotary

    def like_theirs(self, rotary: Any, **more: Any) -> SimpleNamespace:
        """The layer with the attributes that transformers' LlamaAttention had when authors patched it."""
        attention = self.attention
        return SimpleNamespace(
            **{f"{name}_proj": getattr(attention, f"{name}_proj") for name in "qkvo"}, num_heads=4, num_key_value_heads=self.kv_heads,
            num_key_value_groups=4 // self.kv_heads, head_dim=16, hidden_size=64, rotary_emb=rotary, layer_idx=0, training=False,
            attention_dropout=0.0, pretraining_tp=1, config=SimpleNamespace(pretraining_tp=1), **more,
        )  # fmt: skip

    def out(self, heads: Tensor) -> Tensor:
        """What the layer makes of heads' outputs [1, H, T, D]."""
        return self.attention.o_proj(heads.transpose(1, 2).reshape(1, heads.shape[2], -1))
