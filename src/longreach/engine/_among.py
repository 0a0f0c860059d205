"""Bands that are shared: queries also meet the keys of other rows of the batch, in the same softmax, with gradients to them."""

import copy
from dataclasses import replace
from itertools import chain

from torch import Tensor

from longreach.core.bands import Band
from longreach.core.errors import LongreachError
from longreach.engine._attend import Options, Pieces, recent_pieces
from longreach.engine._channels import Channels
from longreach.engine._store import BandLayer
from longreach.engine._stream import Step
from longreach.engine._top import top_pieces


def band_pieces(
    texts: int, layer: BandLayer, step: Step, band: Band, q: Tensor, keys: Tensor, slot: int, options: Options, upto: int
) -> Pieces:
    """`recent_pieces` of any band; of one that is shared, over the keys of a row and of the `texts` - 1 rows after it, beginning anew after
    the last row of the batch. Then all keys that meet a query are seen, whatever `top` says.

    A query meets other rows' keys where it would meet its own. So no row learns what comes after: of its own chunk, what is shared has
    nothing.
    """
    if texts == 1 or not band.shared:
        compute = recent_pieces if band.top is None else top_pieces
        return compute(layer, step, band, q, keys, slot, options, upto)
    if step.valid is not None or layer.index >= 0:  # a row by itself: they begin at different slots
        raise LongreachError("texts that are trained among each other have to be equally long; leave padding out")
    if texts > len(keys):
        raise LongreachError(f"{texts} texts cannot be trained among each other in a batch of {len(keys)}; give larger batches")
    band = replace(band, top=None)
    return chain.from_iterable(
        recent_pieces(_rolled(layer, behind), step, band, q, keys.roll(-behind, 0), slot, options, upto) for behind in range(texts)
    )


def _rolled(layer: BandLayer, behind: int) -> BandLayer:
    """The layer with the row so many behind in the place of each row."""
    rolled, recent = copy.copy(layer), Channels()
    recent.data = {name: tensor.roll(-behind, 0) for name, tensor in layer.recent.data.items()}
    recent.begin, recent.end = layer.recent.begin, layer.recent.end
    rolled.recent = recent
    return rolled
