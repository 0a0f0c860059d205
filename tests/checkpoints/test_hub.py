import pytest

from longreach.checkpoints.hub import name_and_revision
from longreach.cli._options import Loading


@pytest.mark.parametrize(
    ("name", "revision", "meant"),
    [
        ("some/model", None, ("some/model", None)),
        ("some/model", "v2", ("some/model", "v2")),
        ("https://huggingface.co/some/model", None, ("some/model", None)),
        ("https://huggingface.co/some/model.v1/tree/main?x=1", None, ("some/model.v1", "main")),
        ("https://hf.co/some/model/blob/abc/config.json", "v2", ("some/model", "v2")),
        ("https://example.org/some/model", None, ("https://example.org/some/model", None)),
    ],
)
def test_a_link_names_a_model_and_its_revision(name, revision, meant):
    assert name_and_revision(name, revision) == meant


def test_rows_of_a_link_are_those_of_its_model():
    link = "https://huggingface.co/some/model/tree/v2"
    assert Loading().name(link) == Loading(revision="v2").name("some/model") == "some/model@v2"
    assert Loading(adapter="https://hf.co/some/adapter").name("some/model") == "some/model+some/adapter"
