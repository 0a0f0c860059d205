"""Chunk interleaving: several documents are cut into chunks, and the chunks dealt out in turn.

To predict a chunk, the model has to find its own document's last chunk behind the chunks of the others: short documents become long-range
training data (Chunk Interleaved Pretraining, arXiv:2406.00605).
"""

import numpy as np

from longreach.data.documents import Documents, Ids


def interleaved(rng: np.random.Generator, documents: Documents, length: int, *, mixed: int, chunk: int) -> Ids:
    """[length] ids: `mixed` documents in chunks of `chunk` tokens, a chunk of each in turn.

    Each document goes on where its last chunk ended. The order within a turn stays.
    """
    turns = -(-length // (mixed * chunk))
    texts = np.stack([documents.span(rng, turns * chunk)[0] for _ in range(mixed)])  # [mixed, turns * chunk]
    return texts.reshape(mixed, turns, chunk).transpose(1, 0, 2).reshape(-1)[:length]
