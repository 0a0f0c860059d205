import pytest

from longreach.core.errors import SpecError
from longreach.core.lengths import format_length, parse_length


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("1", 1),
        ("4096", 4096),
        ("32k", 32768),
        ("32K", 32768),
        ("1.5k", 1536),
        ("1M", 1048576),
        ("0.5m", 524288),
        (" 8k ", 8192),
        (7, 7),
        ("1e3", 1000),
        ("1E6", 10**6),
        ("1.5e+4", 15_000),
    ],
)
def test_reads_what_people_write(text, tokens):
    assert parse_length(text) == tokens


@pytest.mark.parametrize(
    "text",
    ["", "k", "4096 tokens", "-1", "0", "0k", "0.1", "1.0001k", "1e-3", "1.55e1", "1e", "1e100", "1_000", "32kk", "nan", "9" * 5000, "٣"],
)
def test_refuses_anything_else_and_names_it(text):
    with pytest.raises(SpecError, match="not a length") as caught:
        parse_length(text)
    assert repr(text) in str(caught.value)


def test_fractions_are_exact():
    assert parse_length("999999999.9990234375k") == 1023999999999


@pytest.mark.parametrize(
    ("tokens", "text"), [(0, "0"), (1, "1"), (1000, "1000"), (1024, "1k"), (32768, "32k"), (1048576, "1M"), (1536, "1536")]
)
def test_writes_the_shortest_exact_form(tokens, text):
    assert format_length(tokens) == text


@pytest.mark.parametrize("tokens", [1, 512, 1000, 1023, 1024, 3 * 1024 * 1024, 1024 * 1024 + 1])
def test_what_is_written_reads_the_same(tokens):
    assert parse_length(format_length(tokens)) == tokens
