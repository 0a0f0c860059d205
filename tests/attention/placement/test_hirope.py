"""HiRoPE a second time, from arXiv:2403.19115: a position for each level, dimensions divided between them, true positions in a window."""

import ast
import random

import pytest
import torch

from longreach.attention.placement import _blocks
from longreach.attention.placement.hirope import HiRope
from longreach.checkpoints.checkpoint import load, save
from longreach.checkpoints.record import read_record
from longreach.cli.main import run
from longreach.core.errors import LongreachError, UnsupportedError
from longreach.data.stdlib import stdlib_files
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import token_losses
from longreach.engine._stream import Stream
from longreach.engine._text import Pieces, TextReader, tokenizer_of
from longreach.engine.apply import apply
from longreach.evaluation.text import cut_windows
from longreach.testing.models import random_ids, tiny_model
from tests.attention.one_head import DIM, attention, random_head, rotated
from tests.checkpoints.folders import byte_tokenizer, tiny

CODE = (
    "import os\n\nclass A:\n    def f(self):\n        return 1\n\n    async def g(self):\n        return 2\n\nx = 3\ndef h():\n    pass\n"
)


def blocks_of(method, texts, trained_window=10_000):
    """(block, place) of each token, as the engine is told of them."""
    states = [None]
    for text in texts:
        states.append(method.read(states[-1], text, trained_window))
    return [state[:2] for state in states[1:]]


# positions


@pytest.mark.parametrize(("near", "share"), [(8, 0.5), (16, 0.25), (5, 0.75), (8, 0.0), (8, 1.0)])
def test_dimensions_are_divided_between_two_positions(near, share):
    q, k, v = random_head(60)
    block = torch.arange(60) // 7
    place = torch.arange(60) % 7
    fast = round(share * DIM / 2)
    dims = [*range(fast), *range(DIM // 2, DIM // 2 + fast)]  # a pair of dimensions is x_i and x_{i + D / 2}

    def turned(x, shift):
        out = rotated(x, block + shift)
        out[:, dims] = rotated(x, place + shift)[:, dims]
        return out

    positions = torch.arange(60)
    far, true = turned(q, near) @ turned(k, 0).mT, rotated(q, positions) @ rotated(k, positions).mT
    logits = torch.where(positions[:, None] - positions < near, true, far)
    wanted = attention(logits.masked_fill(positions > positions[:, None], float("-inf")), v)

    method = HiRope(window_size=near, split=share, longest=7)
    assert blocks_of(method, ["x"] * 60) == list(zip(block.tolist(), place.tolist(), strict=True))
    relative, visible = method.reference_by_text(positions[:, None], positions[None], ["x"] * 60, DIM // 2, 64)
    frequencies = 10_000.0 ** (-torch.arange(0, DIM, 2, dtype=torch.float64) / DIM)
    angles, half = relative * frequencies, DIM // 2
    first, second = q[:, None, :half], q[:, None, half:]
    ours = ((first * angles.cos() - second * angles.sin()) * k[None, :, :half]).sum(-1)
    ours = ours + ((second * angles.cos() + first * angles.sin()) * k[None, :, half:]).sum(-1)
    torch.testing.assert_close(attention(ours.masked_fill(~visible, float("-inf")), v), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("trained", [32, 512])
def test_no_distance_leaves_the_trained_window_as_long_as_there_are_blocks_left(trained):
    method, length = HiRope(), trained * trained // 8
    pieces = ["\ndef f", "(", "x"] + ["y"] * 40
    texts = (pieces * (length // 43 + 1))[: min(length, 3000)]
    places = blocks_of(method, texts, trained)
    assert len({block for block, _ in places}) <= trained // 2
    i, j = torch.tensor(places)[:, None], torch.tensor(places)[None]
    far = (trained // 2 + i - j)[torch.ones(len(texts), len(texts)).tril(-(trained // 2)).bool()]
    assert far.min() > 0
    assert far.max() <= trained


# blocks


@pytest.mark.parametrize("path", stdlib_files("held-out")[:60:6], ids=lambda path: path.name)
def test_the_lines_that_begin_blocks_are_those_of_the_syntax_tree(path):
    source = path.read_text(encoding="utf-8", errors="replace")
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    wanted = {node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)}
    state, found = _blocks.START, set()
    for number, line in enumerate(source.split("\n"), 1):
        state, header = _blocks.python(state, f"{line}\n")
        found |= {number} if header else set()
    assert wanted <= found
    lines = source.split("\n")
    assert all(lines[number - 1].split()[0] in ("def", "class", "async") for number in found - wanted)  # headers in strings
    assert len(found - wanted) <= 0.1 * len(wanted)


def test_a_block_begins_with_the_token_after_its_header():
    pieces = ["import", " os", "\n", "def", " f", "(x):", "\n    return", " x", "\n\nclass ", "A", ":\n", "    def g", "()"]
    wanted = [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (3, 0)]
    assert blocks_of(HiRope(), pieces) == wanted


@pytest.mark.parametrize(
    "line", ["default = 1", "define", "classes = 2", "x = def_ ", "async with a: ", "# def f", "indef ", "return class_ ", "d ef "]
)
def test_other_words_begin_none(line):
    assert blocks_of(HiRope(), [*f"\n{line} x\n"])[-1][0] == 0


JAVA = """class A {
  int x = 1;

  int f(int y) {
    if (y > 0) {
      return 1;
    }
    return 2;
  }

  void g() { h("}{"); }
}

class B {
}
"""
C = """int a[] = {1, 2};

int f(void)
{
    while (1) {
        if (puts("\\"}")) {
            break;
        }
    }
}

int g(void) {
    return 1;
}
"""


@pytest.mark.parametrize(("source", "ends"), [(JAVA, ["  }", "}", "}"]), (C, ["    }", "}", "}"])], ids=["java", "c"])
def test_braces_end_functions_and_classes(source, ends):
    lines = [f"{line}\n" for line in source.splitlines()]
    blocks = [block for block, _ in blocks_of(HiRope(blocks="braces"), [*lines, "x"])]
    assert [line.rstrip() for line, here, after in zip(lines, blocks, blocks[1:], strict=False) if after > here] == ends


@pytest.mark.parametrize(("syntax", "source"), [("python", CODE), ("braces", JAVA), ("braces", C)])
def test_wherever_tokens_are_cut_a_block_begins_with_the_next_one(syntax, source):
    draw = random.Random(0)
    for _ in range(20):
        whole = [block for block, _ in blocks_of(HiRope(blocks=syntax), [*source, ""])]
        parts, end = [], 0
        while end < len(source):
            parts.append(source[end : end + draw.randint(1, 2)])
            end += len(parts[-1])
        blocks, end = [block for block, _ in blocks_of(HiRope(blocks=syntax), [*parts, ""])], 0
        assert blocks[-1] == whole[-1] > 1
        for text, after in zip(parts, blocks[1:], strict=True):
            end += len(text)
            assert after == whole[end]


def test_states_go_on_where_tokens_were_taken_back_and_skip_padding():
    pieces = Pieces(byte_tokenizer())
    reader = TextReader(pieces, lambda state, text: HiRope().read(state, text, 10_000))
    ids = torch.tensor([byte_tokenizer()(CODE)["input_ids"]])
    whole = reader.blocks(Stream(start=[0], started=[True]), 0, ids)
    assert int(whole[0, -1, 0]) == 4  # A, f, g, h
    stream, parts, first = Stream(start=[0], started=[True]), [], 0
    for part in ids.split(7, 1):
        wrong = reader.blocks(stream, first, part.flip(1))
        assert wrong.shape == (1, part.shape[1], 2)
        stream.read = stream.read[:, :first]  # as `crop` does
        parts.append(reader.blocks(stream, first, part))
        first += part.shape[1]
    assert torch.equal(torch.cat(parts, 1), whole)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids[:, :30], torch.zeros(1, 2, dtype=torch.long), ids[:, 30:]], 1)
    valid = torch.tensor([[False] * 3 + [True] * 30 + [False] * 2 + [True] * (ids.shape[1] - 30)])
    found = reader.blocks(Stream(start=[3], started=[True], valid=valid), 0, padded)
    assert torch.equal(found[valid], whole[0])


def test_pieces_are_texts_inside_a_text():
    _, tokenizer = load("nano")
    pieces, ids = Pieces(tokenizer), tokenizer(CODE)["input_ids"]
    assert "".join(pieces[token] for token in ids).endswith(CODE)
    assert pieces[tokenizer.eos_token_id] == ""


# models


def test_it_needs_a_tokenizer():
    model, ids = tiny(), random_ids(1, 40)
    with apply(model, "hirope"):
        wanted = model(ids).logits
    del model.longreach_tokenizer
    with pytest.raises(UnsupportedError, match=r"which tokenizer the model has is not known; apply it with tokenizer=\.\.\., or load the"):
        apply(model, "hirope").__enter__()
    with apply(model, "hirope", tokenizer=byte_tokenizer()):
        assert model(ids).logits.shape == wanted.shape
        with pytest.raises(LongreachError, match="pass input_ids"):
            model(inputs_embeds=model.get_input_embeddings()(ids))


def test_a_saved_checkpoint_comes_back_with_it(tmp_path):
    model, tokenizer = tiny(max_position_embeddings=32), byte_tokenizer()
    ids = tokenizer(CODE, return_tensors="pt").input_ids
    save(model, tokenizer, tmp_path / "out", method="hirope", target=256)
    assert not read_record(tmp_path / "out").exported
    with torch.no_grad(), apply(model, "hirope", tokenizer=tokenizer):
        wanted = model(ids).logits
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "out").model(ids).logits, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("other", ["dynamic_ntk", "harpe:base_min=20000,base_max=80000", "self_extend:neighbours=8,group=4"])
def test_it_stands_beside_fixed_frequencies_only(other):
    model = tiny_model()
    with apply(model, "yarn:factor=2+hirope"):
        assert model(random_ids(1, 40)).logits.isfinite().all()
    with pytest.raises(UnsupportedError):
        apply(model, f"{other}+hirope").__enter__()


def test_source_beyond_the_window_stays_readable():
    model, tokenizer = load("nano")
    assert tokenizer_of(model) is tokenizer
    source = "\n\n".join(path.read_text(encoding="utf-8", errors="replace") for path in stdlib_files("held-out"))
    ids = torch.tensor(cut_windows(Encoder(tokenizer), source, 2048, 1)[0])[None].long()
    losses = {}
    for method in ("", "hirope"):
        with apply(model, method):
            losses[method] = token_losses(model, ids, chunk_size=512)[0, 1024:].mean()
    assert losses["hirope"] < losses[""] - 1


def test_the_command_line_writes_code_under_it(tmp_path, capsys):
    (tmp_path / "x.py").write_text(CODE * 20)
    assert run(["generate", "nano", "--method", "hirope", "--file", str(tmp_path / "x.py"), "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out
