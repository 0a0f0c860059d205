"""Tiny random models of every proven family. Norm weights are random and attention is sharp: with the default initialisation even the
removal of all positions moves the logits by next to nothing, and most bugs stay invisible.
"""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from longreach.engine._text import remember_tokenizer

VOCABULARY = 97
# What ids stand for: begins of functions, whole and in parts, ends of blocks, strings, and text between them.
PIECES = (
    "\ndef ",
    "\n",
    "    ",
    "def",
    " ",
    "class A",
    "}",
    "{",
    '"',
    "\\",
    "x",
    "\n}",
    "\n  async ",
    "def f",
    "\n\tclass",
    "async",
    "d",
    "ef ",
)
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_SLIDING = {"sliding_window": 8}
_MIXED = ["sliding_attention", "full_attention", "sliding_attention"]


def _rope(rope_type: str = "default", **settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10_000.0, **settings}}


_SHORT = [1.0, 1.0, 1.0, 1.05, 1.1, 1.2, 1.3, 1.4]
_LONG = [1.0, 1.1, 1.4, 1.9, 2.6, 3.4, 4.0, 4.5]

# name -> (transformers' prefix of the classes, settings)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama_mha": ("Llama", {"num_key_value_heads": 4}),
    "llama_llama3": ("Llama", _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)),
    "llama_yarn": ("Llama", _rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    "llama_linear": ("Llama", _rope("linear", factor=4.0)),
    "llama_dynamic": ("Llama", _rope("dynamic", factor=4.0)),
    "llama_longrope": (
        "Llama",
        {"head_dim": 16, **_rope("longrope", short_factor=_SHORT, long_factor=_LONG, original_max_position_embeddings=32, factor=4.0)},
    ),
    "mistral": ("Mistral", _SLIDING),
    "ministral3": (
        "Ministral3",
        {"head_dim": 16, **_rope("yarn", factor=4.0, original_max_position_embeddings=32, llama_4_scaling_beta=0.1)},
    ),
    "qwen2": ("Qwen2", {}),
    "qwen2_mixed": ("Qwen2", {"use_sliding_window": True, **_SLIDING, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "gemma2": ("Gemma2", {"head_dim": 16, "query_pre_attn_scalar": 16, **_SLIDING}),
    "gemma3": ("Gemma3", {"head_dim": 16, "query_pre_attn_scalar": 16, **_SLIDING, "layer_types": _MIXED}),
    "phi3": ("Phi3", _rope(partial_rotary_factor=0.5)),
    "gpt_neox": ("GPTNeoX", _rope(partial_rotary_factor=0.25)),
    "stablelm": ("StableLm", {"qk_layernorm": True, **_rope(partial_rotary_factor=0.5)}),
    "olmo2": ("Olmo2", {}),
    "cohere2": ("Cohere2", {**_SLIDING, "layer_types": _MIXED, "logit_scale": 1.0}),
    "exaone4": ("Exaone4", {**_SLIDING, "layer_types": _MIXED}),
    "glm4": ("Glm4", {"head_dim": 16}),
    "falcon": ("Falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "alibi": False, "bias": False}),
    "gpt_oss": ("GptOss", {"head_dim": 16, **_SLIDING, "num_local_experts": 4, "num_experts_per_tok": 2, **_rope()}),
    "granite": ("Granite", {"logits_scaling": 1.0, "attention_multiplier": 0.25}),
}


# Those of them whose checkpoints are scaled already.
SCALED = ("llama_llama3", "llama_yarn", "llama_linear", "llama_dynamic", "llama_longrope", "ministral3")


# name -> (class, settings): families with a table of learned positions. RoBERTa's begins with rows for padding, which its config counts.
LEARNED: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", {}),
    "opt": ("OPTForCausalLM", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "gpt_neo": ("GPTNeoForCausalLM", {"attention_types": [[["global", "local"], 1], [["global"], 1]], "window_size": 8}),
    "bert": ("BertModel", {}),
    "roberta": ("RobertaModel", {"pad_token_id": 1, "bos_token_id": 0, "max_position_embeddings": 130}),
    "clip_text": ("CLIPTextModel", {}),
}
DECODERS = ("gpt2", "opt", "gpt_neo")  # of these


# name -> (transformers' prefix of the classes, settings): encoder-decoders with a learned relative bias, shared by layers or each its own.
BIASED: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", {}),
    "flan_t5": ("T5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "mt5": ("MT5", {}),
    "umt5": ("UMT5", {}),
}


def tiny_biased(family: str = "t5", *, seed: int = 0, window: int | None = 128, **changes: Any) -> PreTrainedModel:
    """A random encoder-decoder (see BIASED), float32, in eval mode. window: what its config states. `changes` go to its config."""
    prefix, settings = BIASED[family]
    common = {
        "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
        "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0,
    }  # fmt: skip
    stated = {} if window is None else {"n_positions": window}
    config = getattr(transformers, f"{prefix}Config")(**{**common, **stated, **settings, **changes})
    make: Callable[..., PreTrainedModel] = getattr(transformers, f"{prefix}ForConditionalGeneration")
    return randomize(make(config).eval(), seed=seed)


# name -> (transformers' prefix of the classes, settings): encoder-decoders with tables of positions, learned, or computed (Pegasus).
PLACED: dict[str, tuple[str, dict[str, Any]]] = {
    "bart": ("Bart", {}),
    "mbart": ("MBart", {}),
    "pegasus": ("Pegasus", {}),
    "led": ("LED", {"attention_window": 8}),
}


def tiny_encoder_decoder(family: str = "bart", *, seed: int = 0, window: int = 128, **changes: Any) -> PreTrainedModel:
    """A random encoder-decoder (see PLACED and BIASED), float32, in eval mode. window: tokens that each side has positions for."""
    if family in BIASED:
        return tiny_biased(family, seed=seed, window=window, **changes)
    prefix, settings = PLACED[family]
    common = {
        "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": window,
        "max_encoder_position_embeddings": window, "max_decoder_position_embeddings": window,  # as LED calls them
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": None,
    }  # fmt: skip
    config = getattr(transformers, f"{prefix}Config")(**{**common, **settings, **changes})
    make: Callable[..., PreTrainedModel] = getattr(transformers, f"{prefix}ForConditionalGeneration")
    return randomize(make(config).eval(), seed=seed)


class TinyTokenizer:
    """Of the tiny models, as far as methods that read the text need one: ids stand for PIECES, over and over, the special ones for ""."""

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        """An x for every character."""
        return {"input_ids": [3 + PIECES.index("x")] * len(text)}

    def decode(self, ids: list[int], **options: Any) -> str:
        """The pieces, one after the other."""
        return "".join(PIECES[(token - 3) % len(PIECES)] for token in ids if token >= 3)


def tiny_learned(family: str = "gpt2", *, seed: int = 0, window: int = 128, **changes: Any) -> PreTrainedModel:
    """A random model with `window` learned positions (see LEARNED), float32, in eval mode. `changes` go to its config."""
    name, settings = LEARNED[family]
    make = getattr(transformers, name)
    given = {**_COMMON, **settings, **changes}
    given["max_position_embeddings"] += window - 128
    return randomize(make(make.config_class(**given)).eval(), seed=seed)


def tiny_model(family: str = "llama", *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model of a family (see FAMILIES), float32, in eval mode. `changes` go to its config."""
    prefix, settings = FAMILIES[family]
    config_class = getattr(transformers, f"{prefix}TextConfig", None) or getattr(transformers, f"{prefix}Config")
    config = config_class(**{**_COMMON, **settings, **changes})
    make: Callable[..., PreTrainedModel] = getattr(transformers, f"{prefix}ForCausalLM")
    model = randomize(make(config).eval(), seed=seed, norms=0.0 if prefix.startswith("Gemma") else 1.0)  # Gemma adds 1 to them itself
    remember_tokenizer(model, TinyTokenizer())  # type: ignore[arg-type]  # as much of one as is read
    if prefix in ("Gemma2", "GptOss"):
        model.set_attn_implementation("eager")  # the only stock implementation with soft caps and sinks on a CPU
    return model


def randomize(model: PreTrainedModel, *, seed: int = 0, norms: float = 1.0) -> PreTrainedModel:
    """Give the model random weights under which attention is sharp and no norm weight is like another; `norms`: their mean."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                is_norm = "norm" in name.lower() or "ln_" in name
                parameter.copy_(noise * 0.3 + (norms if is_norm and name.endswith("weight") else 0.0))
            else:
                sharp = 2.0 if any(part in name for part in ("q_proj", "k_proj", "query_key", "qkv")) else 1.0
                parameter.copy_(noise * sharp / parameter.shape[-1] ** 0.5)
    return model


def random_ids(batch: int, length: int, *, seed: int = 0) -> torch.Tensor:
    """[B, T] ids without the special ones."""
    return torch.randint(3, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))
