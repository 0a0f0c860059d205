import pytest
import torch

from longreach.core.bins import first_fit_decreasing
from longreach.engine.layout import Layout, Segment

ONE_ROW, BINS = (lambda lengths: (tuple(range(len(lengths))),)), (lambda lengths: first_fit_decreasing(lengths, max(lengths)))
MASK = torch.tensor(
    [
        [0, 1, 1, 0, 0],  # padding on both sides
        [1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0],  # nothing but padding
        [0, 0, 0, 0, 1],
        [1, 1, 0, 0, 0],
    ]
).bool()
IDS = torch.arange(25).view(5, 5)


def test_texts_stand_behind_one_another_the_shortest_first():
    layout = Layout.of(MASK, ONE_ROW)
    assert layout.pack(IDS).tolist() == [[19, 1, 2, 20, 21, 5, 6, 7, 8, 9]]
    assert layout.segments == (Segment(0, 0, 1, 3, 4), Segment(0, 1, 2, 0, 1), Segment(0, 3, 2, 4, 0), Segment(0, 5, 5, 1, 0))


def test_texts_share_the_rows_that_a_method_says():
    layout = Layout.of(MASK, BINS)
    assert layout.size == (2, 5)
    rows = layout.pack(IDS)
    assert rows[0].tolist() == [5, 6, 7, 8, 9]
    assert rows[1].tolist() == [19, 1, 2, 20, 21]


@pytest.mark.parametrize("rows", [ONE_ROW, BINS])
def test_what_comes_back_stands_where_it_stood_with_zeros_at_padding(rows):
    layout = Layout.of(MASK, rows)
    for x in (IDS, torch.randn(5, 5, 3, 2)):
        assert torch.equal(layout.unpack(layout.pack(x)), x * MASK.view(5, 5, *[1] * (x.ndim - 2)))
        assert torch.equal(layout.spread(layout.real(x)), layout.unpack(layout.pack(x)))
    heads = layout.pack(x).transpose(1, 2)
    assert torch.equal(layout.unpack_heads(heads), layout.unpack(layout.pack(x)).transpose(1, 2))


@pytest.mark.parametrize("rows", [ONE_ROW, BINS, lambda lengths: ((1, 0), (2,), (3,))])
def test_each_text_attends_to_itself_alone(rows):
    layout = Layout.of(MASK, rows)
    x = torch.randn(5, 5, 2, 4, dtype=torch.float64)  # [B, T, H, D]
    q, k, v = (layout.pack(x * factor).transpose(1, 2) for factor in (1, 2, 3))
    calls = []

    def attend(q, k, v, length):
        calls.append((q.shape[0], length))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    ours = layout.unpack(layout.each_text(attend, q, k, v))
    for text, real in enumerate(MASK):
        alone = x[text, real].transpose(0, 1)
        wanted = torch.nn.functional.scaled_dot_product_attention(alone, alone * 2, alone * 3, is_causal=True).transpose(0, 1)
        assert torch.allclose(ours[text, real], wanted, atol=1e-12)
    assert sorted(calls) == [(1, 1), (1, 5), (2, 2)]


def test_a_gradient_reaches_real_tokens_alone():
    layout = Layout.of(MASK, BINS)
    x = torch.ones(5, 5, 2, requires_grad=True)
    layout.unpack(layout.pack(x)).sum().backward()
    assert torch.equal(x.grad, MASK[..., None].float().expand(-1, -1, 2))
