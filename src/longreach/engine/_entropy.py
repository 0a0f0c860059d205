"""The entropy of tokens for policies that look at it: -log p of each token under the model, which reads as those policies let it.

A layer cannot know it of the tokens under way, for it comes out of the last one. So the decoder reads a forward pass in runs, from one cut
of the text to the next, and after each run the model's own head says of its tokens how surprising they were. What is cut hangs on the text
alone then, also where the caller asks for the logits of the last token only.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from longreach.core.cuts import Cut
from longreach.core.errors import UnsupportedError
from longreach.engine._cuts import ENTROPY, ROLLBACK
from longreach.engine._runs import Adopting, RunReader
from longreach.engine._store import BandLayer
from longreach.engine.head import decoder_of, entropies


class EntropyReader(RunReader):
    """Tells layers the entropies of what was read."""

    what: ClassVar = "the entropy of tokens"

    def __init__(self, engine: Adopting, model: PreTrainedModel, cuts: frozenset[Cut]) -> None:
        super().__init__(engine, model, cuts)
        if model.get_output_embeddings() is None or decoder_of(model) is not self.decoder:
            why = "it has no output head right behind its decoder, which says how surprising a token is"
            raise UnsupportedError("a policy that goes by entropy", type(model).__name__, why, "choose a causal language model")

    def note(self, cache: Cache, output: Any, hidden: Tensor, ids: Tensor, begin: int) -> None:
        """Tell the layers the entropies of the tokens `ids` [B, n] that were read, the first of which has the slot `begin`."""
        hidden, count = hidden.detach(), ids.shape[1]
        stream = self.layer(cache).stream
        states = hidden if stream.last is None else torch.cat([stream.last.expand(len(ids), -1, -1), hidden], 1)
        behind = states[:, -count - 1 : -1]  # of the token before each; the first of a text has none
        known = behind.shape[1]
        values = hidden.new_zeros(ids.shape, dtype=torch.float32)
        if known:
            found = entropies(self.model, output, behind.flatten(0, 1), ids[:, count - known :].flatten())
            values[:, count - known :] = found.view(len(ids), known)
        starts = torch.tensor(stream.start, device=ids.device)[:, None]
        values = values.masked_fill(torch.arange(begin, begin + count, device=ids.device) <= starts, 0.0)
        for layer in cache.layers:
            if isinstance(layer, BandLayer) and ENTROPY in layer.recent.data:
                window = layer.recent.view(ENTROPY)
                window[:, :, -count:, 0] = values[:, None].to(window.device)
        stream.last = states[:, -ROLLBACK - 1 :].clone()
