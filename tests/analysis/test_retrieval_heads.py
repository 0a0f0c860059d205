"""Heads that retrieve: scores are those of the model's own attention weights, and a head made for it is found."""

import numpy as np
import pytest
import torch

from longreach.analysis.retrieval_heads import retrieval_scores
from longreach.core.errors import InputError, UnsupportedError
from longreach.decoding.encoder import Encoder
from longreach.engine.apply import apply
from longreach.evaluation.tasks.retrieval.needle import Needle
from longreach.evaluation.text import cut_windows
from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

LENGTH = 256


def model(family="llama", **changes):
    return tiny_model(family, vocab_size=VOCABULARY, max_position_embeddings=LENGTH, **changes)


@pytest.mark.parametrize(("family", "layers"), [("llama", (0, 1, 2)), ("qwen2_mixed", (0,))])
def test_scores_are_shares_of_the_models_own_attention(family, layers):
    subject, encoder = model(family), Encoder(tokenizer())
    found = retrieval_scores(subject, tokenizer(), real_text(), LENGTH, length=LENGTH, samples=2, seed=3)
    subject.set_attn_implementation("eager")
    wanted = 0
    windows = cut_windows(encoder, real_text(), LENGTH, 2)
    for sample, depth in ((0, 0.25), (1, 0.75)):
        frame = Needle().frame(encoder, 3, sample)
        prompt = Needle().prompt(encoder, length=LENGTH, depth=depth, seed=3, sample=sample, haystack=windows[sample])
        ids = [*prompt.ids.tolist(), *prompt.answers[prompt.right]]
        begin = next(i for i in range(len(ids)) if ids[i : i + len(frame.fact)] == list(frame.fact))
        with torch.no_grad():
            weights = subject(torch.tensor([ids]), output_attentions=True, use_cache=False).attentions
        rows = range(len(prompt.ids) - 1, len(ids) - 1)
        share = torch.stack([weights[layer][0, :, rows, begin : begin + len(frame.fact)].sum(-1).mean(-1) for layer in layers])
        wanted = wanted + share.unflatten(1, (2, -1)).amax(-1).double() / 2
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(InputError, match="tokens do not hold its prompt"):
        retrieval_scores(model(), tokenizer(), real_text(), LENGTH, length=16, samples=1)
    subject = model()
    with apply(subject, "sinks:window_size=16"), pytest.raises(UnsupportedError, match="choose a positions method"):
        retrieval_scores(subject, tokenizer(), real_text(), LENGTH, length=LENGTH, samples=1)
