"""Configs that are in order, of families and of threads where something else was wrong: none may get more than a note."""

from tests.diagnosis.threads import (
    DEEPSEEK,
    DEEPSEEK_YARN,
    GEMMA3,
    GPT_OSS,
    GQA,
    LLAMA,
    LLAMA3,
    LONGROPE,
    NEOX,
    OSS_YARN,
    PHI3,
    QWEN2,
    QWEN_YARN,
    SMALL,
    N,
    Thread,
)

HEALTHY = {
    "Llama-2-7B": Thread(config={**LLAMA, "max_position_embeddings": 4096}, generation={"max_length": 4096}, expected=set()),
    "CodeLlama-7B": Thread(config={**LLAMA, "max_position_embeddings": 16384, "rope_theta": 1000000}, expected=set()),
    "Llama-3.1-8B": Thread(
        config={**LLAMA, "max_position_embeddings": 131072, "rope_theta": 500000.0, "rope_scaling": LLAMA3},
        tokenizer={"model_max_length": 131072},
        expected=set(),
    ),
    "Llama-3.2-1B": Thread(
        config={**LLAMA, "max_position_embeddings": 131072, "rope_theta": 500000.0, "rope_scaling": {**LLAMA3, "factor": 32.0}},
        tokenizer={"model_max_length": 131072},
        expected=set(),
    ),
    "Qwen2.5-7B": Thread(
        config={**QWEN2, "max_position_embeddings": 32768, "rope_theta": 1000000.0, "sliding_window": 131072, "use_sliding_window": False},
        tokenizer={"model_max_length": 131072},
        expected={(N, "tokenizer")},
    ),
    "Qwen2.5-7B with yarn (RULER#56, vllm#8793)": Thread(
        config={**QWEN2, "max_position_embeddings": 32768, "rope_theta": 1000000.0, "rope_scaling": QWEN_YARN},
        tokenizer={"model_max_length": 131072},
        expected={(N, "tokenizer"), (N, "readers")},
    ),
    "Qwen2.5-7B with yarn and its new window (llama.cpp#10698)": Thread(
        config={**QWEN2, "max_position_embeddings": 131072, "rope_theta": 1000000.0, "rope_scaling": QWEN_YARN},
        tokenizer={"model_max_length": 131072},
        expected=set(),
    ),
    "Qwen3-8B with yarn": Thread(  # 32768 and room for an answer
        config={
            **GQA,
            "model_type": "qwen3",
            "head_dim": 16,
            "max_position_embeddings": 40960,
            "rope_theta": 1000000,
            "rope_scaling": QWEN_YARN,
        },
        tokenizer={"model_max_length": 131072},
        expected={(N, "tokenizer"), (N, "readers")},
    ),
    "Phi-3-mini-128k (FastChat#3470)": Thread(
        config={**PHI3, "rope_scaling": {"type": "longrope", **LONGROPE}, "sliding_window": 262144},
        tokenizer={"model_max_length": 131072},
        expected={(N, "readers")},
    ),
    "Gemma-3-4B (mlx-vlm#1709)": Thread(
        config={
            "model_type": "gemma3",
            "text_config": {
                **GEMMA3,
                "rope_theta": 1000000.0,
                "rope_local_base_freq": 10000.0,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
        },
        tokenizer={"model_max_length": 10**30},
        expected={(N, "positions")},
    ),
    "Gemma-3-1B saved by transformers 5": Thread(
        config={
            **GEMMA3,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
        expected={(N, "positions")},
    ),
    "Pythia-1B": Thread(
        config={**NEOX, "rotary_emb_base": 10000, "rotary_pct": 0.25}, tokenizer={"model_max_length": 2048}, expected=set()
    ),
    "Mistral-7B-v0.1": Thread(
        config={**GQA, "model_type": "mistral", "max_position_embeddings": 32768, "rope_theta": 10000.0, "sliding_window": 4096},
        tokenizer={"model_max_length": 10**30},
        expected={(N, "positions")},
    ),
    "Mistral-7B-v0.2": Thread(
        config={**GQA, "model_type": "mistral", "max_position_embeddings": 32768, "rope_theta": 1000000.0, "sliding_window": None},
        expected=set(),
    ),
    "gpt-oss-20b (vllm#28244, optimum#2458)": Thread(
        config={**GPT_OSS, "rope_theta": 150000, "rope_scaling": OSS_YARN},
        tokenizer={"model_max_length": 10**30},
        expected={(N, "positions")},
    ),
    "gpt-oss-20b saved by transformers 5": Thread(
        config={**GPT_OSS, "rope_parameters": {**OSS_YARN, "rope_theta": 150000}},
        expected={(N, "positions"), (N, "readers")},
    ),
    "DeepSeek-V3 (Megatron-LM#1418)": Thread(config={**DEEPSEEK, "rope_scaling": DEEPSEEK_YARN}, expected=set()),
    "Ling-mini-2.0 (vllm#56066)": Thread(  # a base outside, which transformers carries into the dict
        config={**LLAMA, "max_position_embeddings": 32768, "rope_theta": 600000, "rope_parameters": {"rope_type": "default"}},
        expected=set(),
    ),
    "LongAlpaca-7B (LongLoRA#151)": Thread(
        config={**LLAMA, "max_position_embeddings": 4096, "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 8.0}},
        expected={(N, "readers")},
    ),
    "ModernBERT decoder": Thread(
        config={
            **SMALL,
            "model_type": "modernbert-decoder",
            "global_rope_theta": 160000.0,
            "local_rope_theta": 10000.0,
            "local_attention": 128,
        },
        expected={(N, "positions")},
    ),
    "GPT-2": Thread(
        config={"model_type": "gpt2", "n_embd": 64, "n_head": 4, "n_layer": 2},
        tokenizer={"model_max_length": 1024},
        expected={(N, "positions")},
    ),
    "BLOOM": Thread(config={"model_type": "bloom", "n_head": 4, "n_layer": 2, "hidden_size": 64}, expected={(N, "positions")}),
    "Mamba": Thread(
        config={"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 97}, expected={(N, "positions")}
    ),
}
