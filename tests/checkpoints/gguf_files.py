"""Tiny GGUF files, written as llama.cpp's converter writes them."""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from tokenizers import pre_tokenizers
from transformers import PreTrainedModel

from tests.checkpoints.folders import SPECIAL, TEMPLATE, tiny

TOKENS = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]
_OF_LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
_ALONE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(
    file: Path,
    model: PreTrainedModel | None = None,
    *,
    architecture: str = "llama",
    kind: Kind = Kind.F32,
    tokenizer: bool = True,
    values: dict[str, float | int | str] | None = None,
    tensors: dict[str, list[float]] | None = None,
) -> Path:
    """A llama as a GGUF file. Args: kind: of the matrices. values: more of its metadata, below the architecture's name. tensors: more."""
    model = model or tiny()
    config = model.config
    writer = GGUFWriter(file, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if "rope.dimension_count" not in (values or {}):
        writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    for key, value in (values or {}).items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)]
        add(key if key.startswith("split") else f"{architecture}.{key}", value)
    if tokenizer:
        _write_tokenizer(writer)
    for name, parameter in model.state_dict().items():
        array = parameter.detach().float().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        array = array if heads is None else _interleaved(array, heads)
        if array.ndim == 2 and kind != Kind.F32:
            writer.add_tensor(_name(name), gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(_name(name), array)
    for name, numbers in (tensors or {}).items():
        writer.add_tensor(name, np.array(numbers, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _write_tokenizer(writer: GGUFWriter) -> None:
    """Every byte is a token, and `th` is one."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in TOKENS])  # control tokens and plain ones
    writer.add_token_merges(["t h"])
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)


def _name(name: str) -> str:
    module, _, last = name.rpartition(".")
    if module in _ALONE:
        return f"{_ALONE[module]}.{last}"
    _, _, layer, inner = module.split(".", 3)
    return f"blk.{layer}.{_OF_LAYER[inner]}.{last}"


def _interleaved(array: np.ndarray, heads: int) -> np.ndarray:
    """Pairs of dimensions that are rotated together stand side by side in llama.cpp."""
    rows, columns = array.shape
    return np.ascontiguousarray(array.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns))
