"""Broken configs of the kinds that people have reported, each named after a thread on its kind, with the findings they should get.

Where a thread shows its config, rotary settings and windows are from there; elsewhere they are made to its description. The models are
small, and lists of factors are as short as their heads. `healthy.py` has those that are in order.
"""

from dataclasses import dataclass, field
from typing import Any

SMALL = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97, "pad_token_id": 0}
GQA = {**SMALL, "num_key_value_heads": 2}
LLAMA = {"model_type": "llama", **GQA}
QWEN2 = {"model_type": "qwen2", **GQA}
GEMMA3 = {
    **GQA,
    "model_type": "gemma3_text",
    "num_hidden_layers": 6,
    "head_dim": 16,
    "sliding_window": 1024,
    "max_position_embeddings": 131072,
}
OLMO3 = {**GQA, "model_type": "olmo3", "num_hidden_layers": 4, "max_position_embeddings": 65536}
PHI3 = {**GQA, "model_type": "phi3", "max_position_embeddings": 131072, "original_max_position_embeddings": 4096, "rope_theta": 10000.0}
NEOX = {"model_type": "gpt_neox", **SMALL, "max_position_embeddings": 2048}
GPT_OSS = {
    **GQA, "model_type": "gpt_oss", "head_dim": 16, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 128,
    "max_position_embeddings": 131072, "initial_context_length": 4096,
}  # fmt: skip
DEEPSEEK = {"model_type": "deepseek_v3", **SMALL, "num_key_value_heads": 4, "max_position_embeddings": 163840, "rope_theta": 10000}
LONGROPE = {"short_factor": [1.05] * 8, "long_factor": [1.1, 1.3, 1.6, 2.5, 6.0, 15.0, 40.0, 60.0]}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip
QWEN_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
OSS_YARN = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False, "original_max_position_embeddings": 4096,
}  # fmt: skip
LAGUNA_YARN = {"rope_type": "yarn", "factor": 64.0, "attention_factor": 1.0, "original_max_position_embeddings": 4096}
DEEPSEEK_YARN = {
    "type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Thread:
    """Args: config: config.json. expected: (severity, check) of every finding. cured: what `--fix` leaves of it; None: nothing changes."""

    config: dict[str, Any]
    expected: set[tuple[str, str]]
    cured: set[tuple[str, str]] | None = None
    tokenizer: dict[str, Any] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)


E, W, N = "error", "warning", "note"

BROKEN = {
    # the base
    "MarinFold#184": Thread(  # exported by transformers 5, scored by transformers 4: 0.765 nats a token
        config={**LLAMA, "max_position_embeddings": 131072, "rope_parameters": {**LLAMA3, "rope_theta": 500000}},
        expected={(N, "readers")},
        cured=set(),
    ),
    "vllm#44158": Thread(  # transformers 4 has written its default beside the base of transformers 5
        config={
            **LLAMA,
            "max_position_embeddings": 8192,
            "rope_theta": 10000.0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        },
        expected={(W, "base_kept"), (N, "readers")},
        cured=set(),
    ),
    "onnxruntime-genai#2609": Thread(  # the other way round: the real base outside, the default inside, which transformers 5 prefers
        config={
            **LLAMA,
            "max_position_embeddings": 131072,
            "rope_theta": 500000.0,
            "rope_parameters": {**LLAMA3, "rope_theta": 10000.0},
        },
        expected={(E, "base_kept")},
        cured=set(),
    ),
    "SpecForge#265": Thread(  # a draft model for a base of a million, whose config states none
        config={**LLAMA, "max_position_embeddings": 128000},
        expected={(W, "base_kept")},
    ),
    "vllm#28542 rotary_emb_base": Thread(  # a name that other families read
        config={**LLAMA, "max_position_embeddings": 32768, "rotary_emb_base": 1000000},
        expected={(E, "base_kept")},
        cured=set(),
    ),
    "Megatron-DeepSpeed#351": Thread(  # Megatron's name for it
        config={**LLAMA, "max_position_embeddings": 32768, "rotary_base": 1000000},
        expected={(E, "base_kept")},
        cured=set(),
    ),
    "transformers#48630": Thread(  # a GPT-NeoX in the spelling of every other family
        config={**NEOX, "rope_theta": 1000000, "partial_rotary_factor": 1.0},
        expected={(E, "base_kept"), (E, "scaling_kept")},
        cured=set(),
    ),
    "LlamaFactory#9524": Thread(  # a base raised in one place and not in the other
        config={
            **LLAMA,
            "max_position_embeddings": 32768,
            "rope_theta": 500000.0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        },
        expected={(E, "base_kept")},
    ),
    "lmdeploy#4304": Thread(  # a base as text
        config={**LLAMA, "max_position_embeddings": 4096, "rope_theta": "1000000"},
        expected={(E, "loads"), (E, "values")},
        cured=set(),
    ),
    "Model-Optimizer#917": Thread(  # null, which hides the family's default
        config={**LLAMA, "max_position_embeddings": 4096, "rope_theta": None},
        expected={(E, "loads")},
    ),
    # scaling that is lost
    "transformers#41934": Thread(  # Gemma 3 with one dict for all layers
        config={**GEMMA3, "rope_parameters": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0}},
        expected={(E, "scaling_kept"), (N, "positions")},
        cured={(N, "positions")},
    ),
    "vllm#29111": Thread(  # Gemma 3 with layer types told apart under the old name
        config={
            **GEMMA3,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
            "rope_scaling": {"full_attention": {"rope_type": "linear", "factor": 8.0}, "sliding_attention": {"rope_type": "default"}},
        },
        expected={(E, "scaling_kept"), (N, "positions")},
        cured={(N, "positions")},
    ),
    "transformers#45945": Thread(  # OLMo 3 with one dict for all layers
        config={**OLMO3, "rope_parameters": {**QWEN_YARN, "rope_theta": 500000, "factor": 8.0, "original_max_position_embeddings": 8192}},
        expected={(E, "scaling_kept"), (N, "positions")},
        cured={(N, "positions")},
    ),
    "speculators#892": Thread(  # a draft Llama with the layer types of its Gemma
        config={
            **LLAMA,
            "max_position_embeddings": 131072,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
        expected={(E, "base_kept"), (E, "scaling_kept")},
    ),
    "marin#7156": Thread(  # a factor that nobody named
        config={**LLAMA, "max_position_embeddings": 8192, "rope_theta": 10000.0, "rope_scaling": {"factor": 4.0}},
        expected={(E, "no_op")},
    ),
    "Soup#793": Thread(  # "long context enabled", and nothing changes
        config={**LLAMA, "max_position_embeddings": 8192, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "default", "factor": 4.0}},
        expected={(W, "no_op")},
    ),
    "SkyRL#690": Thread(  # two scalings, old and new
        config={
            **QWEN2,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000.0,
            "rope_scaling": QWEN_YARN,
            "rope_parameters": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32768, "rope_theta": 1000000.0},
        },
        expected={(E, "conflicts"), (N, "readers")},
    ),
    "vllm#28542 two types": Thread(  # vLLM refuses such a config, transformers takes the new name
        config={**LLAMA, "max_position_embeddings": 32768, "rope_theta": 10000.0, "rope_scaling": {**QWEN_YARN, "rope_type": "dynamic"}},
        expected={(E, "conflicts"), (N, "readers")},
    ),
    "xinfer#117": Thread(  # the original window outside and another one inside
        config={
            **QWEN2,
            "max_position_embeddings": 131072,
            "original_max_position_embeddings": 40960,
            "rope_theta": 1000000.0,
            "rope_scaling": QWEN_YARN,
        },
        expected={(E, "conflicts"), (N, "readers")},
    ),
    # configs that cannot be loaded
    "text-generation-inference#2172": Thread(  # Phi-3 before `su` was renamed
        config={**PHI3, "rope_scaling": {"type": "su", **LONGROPE}},
        expected={(E, "loads")},
        cured={(N, "readers")},
    ),
    "vllm-omni#1343": Thread(  # a rope type of a model's own, whose factor is null
        config={**LLAMA, "max_position_embeddings": 32768, "rope_theta": 2400000.0, "rope_scaling": {"type": "video_rope", "factor": None}},
        expected={(E, "loads")},
    ),
    "ComfyUI_ChatterBox_Voice#1": Thread(  # llama3 cut down to the two fields that an old program asked for
        config={**LLAMA, "max_position_embeddings": 131072, "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        expected={(E, "loads")},
    ),
    "transformers#40320": Thread(  # yarn whose factor is to be computed
        config={
            **QWEN2,
            "max_position_embeddings": 131072,
            "rope_theta": 1000000.0,
            "rope_scaling": {"type": "yarn", "original_max_position_embeddings": 32768},
        },
        expected={(E, "loads")},
        cured=set(),
    ),
    "tokenspeed#485": Thread(  # the text model of a Qwen-VL as a checkpoint of its own
        config={
            **QWEN2,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000.0,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        },
        expected={(E, "loads")},
        cured=set(),
    ),
    "keras-hub#2272": Thread(  # as many factors as for another head size
        config={**PHI3, "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}},
        expected={(E, "loads")},
    ),
    # scaling that does nothing, or twice
    "axolotl#342": Thread(
        config={**LLAMA, "max_position_embeddings": 4096, "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 1.0}},
        expected={(W, "no_op")},
        cured=set(),
    ),
    "mlxcel#1358": Thread(  # what is left of the factors where they were not read
        config={**PHI3, "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [1.0] * 8}},
        expected={(W, "no_op"), (N, "readers")},
    ),
    "vllm#10537": Thread(  # dynamic scaling over a window that is stretched already
        config={
            **LLAMA,
            "max_position_embeddings": 65536,
            "original_max_position_embeddings": 8192,
            "rope_theta": 500000.0,
            "rope_scaling": {"type": "dynamic", "factor": 8.0},
        },
        expected={(W, "no_op"), (N, "readers")},
        cured={(N, "readers")},
    ),
    "AutoGPTQ#244": Thread(  # a base enlarged for a factor of 4, and the factor
        config={
            **LLAMA,
            "max_position_embeddings": 16384,
            "rope_theta": 10000.0 * 4 ** (16 / 14),
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
        },
        expected={(E, "doubled")},
    ),
    "Pai-Megatron-Patch#500": Thread(  # a window multiplied once more
        config={
            **LLAMA,
            "max_position_embeddings": 65536,
            "rope_theta": 10000.0,
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
        },
        expected={(E, "doubled"), (N, "readers")},
        cured=set(),
    ),
    "xinfer#215": Thread(  # a window that the factor does not reach
        config={**QWEN2, "max_position_embeddings": 500000, "rope_theta": 1000000.0, "rope_scaling": QWEN_YARN},
        expected={(W, "doubled"), (N, "readers")},
        cured=set(),
    ),
    "axolotl#343": Thread(  # linear scaling of a window that was raised by hand, too
        config={
            **LLAMA,
            "max_position_embeddings": 32768,
            "original_max_position_embeddings": 4096,
            "rope_theta": 10000.0,
            "rope_scaling": {"type": "linear", "factor": 8.0},
        },
        expected={(W, "doubled"), (N, "readers")},
    ),
    "LlamaFactory#8101": Thread(  # yarn without its original window
        config={**QWEN2, "max_position_embeddings": 131072, "rope_theta": 1000000.0, "rope_scaling": {"type": "yarn", "factor": 4.0}},
        expected={(W, "original_window"), (N, "readers")},
    ),
    "candle-vllm#284": Thread(  # the same, where the tokenizer tells
        config={**QWEN2, "max_position_embeddings": 32768, "rope_theta": 1000000.0, "rope_scaling": {"type": "yarn", "factor": 4.0}},
        tokenizer={"model_max_length": 131072},
        expected={(W, "original_window"), (N, "readers"), (N, "tokenizer")},
        cured={(N, "readers"), (N, "tokenizer")},
    ),
    # readers that take other values
    "DeepSeek-R1#684": Thread(
        config={
            **QWEN2,
            "max_position_embeddings": 131072,
            "rope_theta": 1000000.0,
            "rope_scaling": {**QWEN_YARN, "attn_factor": 0.8782488562869419},
        },
        expected={(W, "values")},
        cured=set(),
    ),
    "vllm#46280": Thread(  # an attention factor of its own, which vLLM does not read
        config={**LLAMA, "max_position_embeddings": 262144, "rope_theta": 500000.0, "rope_scaling": LAGUNA_YARN},
        expected={(W, "readers")},
    ),
    "mlx-lm#1507": Thread(  # yarn's own attention factor, written out
        config={
            **OLMO3,
            "rope_theta": 500000,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 8.0,
                "original_max_position_embeddings": 8192,
                "attention_factor": 1.2079441541679836,
                "beta_fast": 32,
                "beta_slow": 1,
            },
        },
        expected={(N, "readers"), (N, "positions")},
    ),
    "vllm#48621": Thread(  # mscale, which only some families read
        config={**LLAMA, "max_position_embeddings": 163840, "rope_theta": 1000000.0, "rope_scaling": DEEPSEEK_YARN},
        expected={(N, "readers")},
    ),
    "vllm#2518": Thread(  # dynamic scaling has another window in every reader
        config={**LLAMA, "max_position_embeddings": 2048, "rope_theta": 10000.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        expected={(N, "readers")},
    ),
    # the files beside config.json
    "vllm-mlx#626": Thread(
        config={**LLAMA, "max_position_embeddings": 8192, "rope_theta": 160000.0},
        tokenizer={"model_max_length": 512},
        expected={(W, "tokenizer")},
        cured=set(),
    ),
    "transformers#16186": Thread(  # no limit, and no position after the last
        config={"model_type": "bert", **SMALL, "max_position_embeddings": 512},
        tokenizer={"do_lower_case": False},
        expected={(W, "tokenizer"), (N, "positions")},
        cured={(N, "positions")},
    ),
    "OpenPrompt#269": Thread(
        config={**LLAMA, "max_position_embeddings": 4096, "rope_theta": 10000.0},
        generation={"max_length": 20, "do_sample": True},
        expected={(W, "generation")},
        cured=set(),
    ),
}

# As their authors published them: nothing above a note.
