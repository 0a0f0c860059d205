"""Tables of learned positions, as authors lengthen and read them."""

from contextlib import nullcontext
from types import SimpleNamespace

import torch

from _agreement.base import Pair, compares
from _agreement.theirs import Source
from longreach.engine.tables import read_at
from longreach.positions.base import TableMethod
from longreach.positions.tables.grouped_positions import GroupedPositions
from longreach.positions.tables.recurrent_positions import RecurrentPositions
from longreach.positions.tables.stretch_positions import StretchPositions

LONG_EMBED = ("dwzhu-pku/LongEmbed", "033dc4a18e2da7b87d0e388c5b975cabe19c2fdc", "src/encoder_model.py")
ROWS = "the row of a table of 512 positions that each of {} tokens reads"


def rows(source: Source, method: TableMethod, mode: str, tokens: int) -> Pair:
    theirs = source.load("get_position_ids").get_position_ids(torch.zeros(1, tokens), mode)[0]
    return theirs, method.places(512)[:tokens]


@compares("recurrent_positions:factor=4", *LONG_EMBED, compared=ROWS.format(2048), inputs="none; the settings alone")
def recurrent(source: Source) -> Pair:
    return rows(source, RecurrentPositions(factor=4), "recurrent", 2048)


@compares("grouped_positions:factor=4", *LONG_EMBED, compared=ROWS.format(2048), inputs="none; the settings alone")
def grouped(source: Source) -> Pair:
    return rows(source, GroupedPositions(factor=4), "group", 2048)


@compares(
    "grouped_positions:factor=4", *LONG_EMBED, compared=ROWS.format(1000), inputs="none; the settings alone",
    differs="The authors' code takes the least factor that fits each input, here 2; a factor that is set stays as it is.",
)  # fmt: skip
def grouped_shorter(source: Source) -> Pair:
    return rows(source, GroupedPositions(factor=4), "group", 1000)


@compares(
    "stretch_positions:factor=4", "beichenzbc/Long-CLIP", "3966af9ae9331666309a22128468b734db4672a7", "model/longclip.py",
    compared="the lengthened table, 248 rows of 16", inputs="a random table of 77 positions; float32",
)  # fmt: skip
def stretched(source: Source) -> Pair:
    table = torch.randn(77, 16)
    model = SimpleNamespace(positional_embedding=table, dtype=torch.float32, visual=SimpleNamespace(input_resolution=0), float=lambda: None)
    model.to = lambda device: model
    checkpoint = SimpleNamespace(eval=lambda: SimpleNamespace(state_dict=dict))
    given = {
        "build_model": lambda state, load_from_clip: model, "_transform": lambda size: None, "open": lambda *where: nullcontext(),
        "os": SimpleNamespace(path=SimpleNamespace(isfile=lambda name: True)),
        "torch": SimpleNamespace(**{**vars(torch), "jit": SimpleNamespace(load=lambda *where, **how: checkpoint)}),
    }  # fmt: skip
    source.load("load_from_clip", **given).load_from_clip("a checkpoint", device="cpu")
    return model.positional_embedding, read_at(table, 0, StretchPositions(factor=4).places(77))
