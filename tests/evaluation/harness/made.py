"""What the harness's tests run: a tiny model, its tokenizer, and requests."""

from functools import cache

from lm_eval.api.instance import Instance

from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

TEXT = real_text()[:6000]
TEMPLATE = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"


@cache
def model(**changes):
    """Reads 128 tokens. It is not to be changed."""
    return tiny_model(vocab_size=VOCABULARY, **{"eos_token_id": 1, **changes})


@cache
def tokens(style="digits", chat=False):
    """Of the model, with an end of text, and for chat a template."""
    sample = tokenizer(style)
    made = sample.__class__(tokenizer_object=sample.backend_tokenizer, bos_token="<s>", eos_token="<unk>", pad_token="<unk>")
    if chat:
        made.chat_template = TEMPLATE
    return made


def requests(kind, *arguments):
    """As tasks make them."""
    return [Instance(request_type=kind, doc={}, arguments=each, idx=number) for number, each in enumerate(arguments)]
