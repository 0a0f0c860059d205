"""A tiny model to converse with: every byte is a token, so what it writes seldom reads as it was written."""

import json

from longreach.checkpoints.checkpoint import Checkpoint
from tests.checkpoints.folders import byte_tokenizer, tiny

TEMPLATE = (
    "{% for message in messages %}<bos>{{ message['role'] }}: {{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}{{ call['function'] | tojson }}{% endfor %}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant: {% endif %}"
)
CALL = {"type": "function", "function": {"name": "clock", "arguments": {"zone": "UTC"}}}
TOOLS = [{"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "content": "noon"}]


def talker(family="llama", *, template=TEMPLATE, **changes):
    """A model that never ends by itself, and a tokenizer with a chat template."""
    model, tokenizer = tiny(family, **{"eos_token_id": None, "max_position_embeddings": 256, **changes}), byte_tokenizer()
    model.generation_config.eos_token_id = None
    tokenizer.chat_template = template
    return Checkpoint(model, tokenizer)


def tokens_of(*messages):
    """What TEMPLATE makes of messages has so many tokens, without what asks for an answer: counted by hand."""
    total = 0
    for message in messages:
        calls = sum(len(json.dumps(call["function"])) for call in message.get("tool_calls") or ())
        total += 2 + len(message["role"]) + 2 + len((message.get("content") or "").encode()) + calls
    return total
