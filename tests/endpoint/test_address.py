import pytest

from longreach.core.errors import InputError
from longreach.endpoint.address import api_key, base_address


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/v1/chat/completions", "/v1/completions", "/v1/models/"])
def test_any_part_of_the_address_will_do(end):
    assert base_address(f"http://127.0.0.1:8000{end}") == "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("https://api.example.com/openai", "https://api.example.com/openai/v1"),
        ("https://api.example.com/openai/v1", "https://api.example.com/openai/v1"),
        ("https://example.com/v1beta/openai/", "https://example.com/v1beta/openai"),
        ("https://example.com/api/v3", "https://example.com/api/v3"),
        ("https://example.com/chat/completions", "https://example.com"),
        (" http://[::1]:8000 ", "http://[::1]:8000/v1"),
        ("http://my_box.local.", "http://my_box.local./v1"),
        ("HTTPS://Example.com:443", "https://Example.com:443/v1"),
    ],
)
def test_other_versions_and_folders_are_kept(given, meant):
    assert base_address(given) == meant


@pytest.mark.parametrize(
    "given",
    [
        "localhost:8000", "", "/v1", "ftp://example.com", "http://", "http://host:port", "http://host:99999", "http://host:0", "http://[::1",
        "http://a host", "http://host/a path", "http://host..org", "http://hôte", f"http://{'a' * 64}",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_an_example(given):
    with pytest.raises(InputError, match="is not the address of an endpoint; give one such as http://localhost:8000/v1"):
        base_address(given)


@pytest.mark.parametrize("given", ["http://me:secret@host/v1", "http://host/v1?key=secret", "http://host/v1#secret"])
def test_secrets_in_an_address_are_refused_and_not_shown(given):
    with pytest.raises(InputError, match="no user and no query") as caught:
        base_address(given)
    assert "secret" not in str(caught.value)


def test_keys_come_from_the_environment(monkeypatch):
    assert api_key(None) == ""
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    assert api_key(None) == "second"
    monkeypatch.setenv("LONGREACH_API_KEY", "first\n")
    assert api_key(None) == "first"
    assert (api_key("given"), api_key("")) == ("given", "")


def test_a_key_that_cannot_be_sent_is_refused_and_not_shown():
    with pytest.raises(InputError, match="set LONGREACH_API_KEY anew") as caught:
        api_key("sk-schlüssel")
    assert "sk-" not in str(caught.value)
