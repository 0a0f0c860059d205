"""What is damaged, or of another model, is never used."""

import pytest
import torch

from longreach.core.errors import InputError
from longreach.engine.apply import apply
from longreach.library import Library, shelf
from longreach.testing.conformance.base import same
from tests.checkpoints.folders import TEMPLATE, byte_tokenizer, tiny
from tests.library.documents import (
    TEXT,
    asked,
    cut_short,
    edited,
    flipped_bit,
    live,
    no_json,
    no_object,
    other_tokens,
    without_file,
    without_tokens,
)


def another_file(volume):
    """Whole, of the same model and as many tokens, but of another text: only its checksum of the ids would tell, which a file has not."""
    Library(volume.folder).add(tiny(), byte_tokenizer(), TEXT[::-1] + "!", name="backwards")
    (other,) = (each for each in shelf.volumes(volume.folder) if each.name == "backwards")
    other.path.replace(volume.path)
    size = volume.path.stat().st_size
    edited(bytes=size)(volume)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (flipped_bit, "is damaged: its contents are not those that were saved"),
        (cut_short, r"its file has \d+ bytes of \d+; add it again"),
        (without_file, "its file is missing; add it again"),
        (no_json, "its manifest is damaged; add it again"),
        (no_object, "its manifest is damaged; add it again"),
        (edited(format=2), r"its manifest has format 2 \(longreach .*\) and this longreach reads 1; add it again"),
        (edited(tokens="many"), "its manifest is damaged; add it again"),
        (edited(ids="0" * 64), "its manifest is that of another document; add it again"),
        (edited(method="yarn:factor=2"), "its manifest is that of another document; add it again"),
        (edited(longreach="0.0.1"), "longreach 0.0.1 wrote it, and this is "),
        (edited(tokens=7), "its file is that of another document; add it again"),
        (another_file, "its file is that of another document; add it again"),
        (without_tokens, "its tokens are missing; add it again"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_damaged_is_never_used_and_can_be_added_again(shelves, model, tokenizer, damage, why):
    volume = shelves.add(model, tokenizer, TEXT, name="a story").volume
    damage(volume)
    with pytest.raises(InputError, match=f"cannot be used: .*{why}") as caught:
        shelves.open(volume.id, model=model, tokenizer=tokenizer)
    assert "\n" not in str(caught.value)
    if damage in (flipped_bit, another_file) or damage.__name__ == "tokens":  # what only reading it shows
        volume.remove()
    assert shelves.add(model, tokenizer, TEXT, name="a story").fresh
    same(asked(shelves, model, tokenizer, volume.id), live(model, tokenizer, TEXT), "added again")


def test_tokens_that_are_damaged_are_not_recalled(shelves, model, tokenizer):
    volume = shelves.add(model, tokenizer, TEXT, name="a story").volume
    other_tokens(volume)
    with pytest.raises(InputError, match="a story cannot be used: its tokens are damaged; remove it, and add it again"):
        shelves.recall("a story", model=model, tokenizer=tokenizer)


def test_only_the_model_the_tokenizer_and_the_method_that_read_it(shelves, model, tokenizer):
    shelves.add(model, tokenizer, TEXT, name="a story")
    tuned = tiny()
    with torch.no_grad():
        tuned.model.layers[1].mlp.up_proj.weight.add_(1e-3)
    for other in (tuned, tiny(num_hidden_layers=2), tiny().bfloat16()):
        with pytest.raises(InputError, match="a story cannot be used: .* was read by another model"):
            shelves.open("a story", model=other, tokenizer=tokenizer)
    with apply(model, "yarn:factor=2"), pytest.raises(InputError, match="was read under no method, and yarn:factor=2 is applied"):
        shelves.open("a story", model=model, tokenizer=tokenizer)
    longer, templated = byte_tokenizer(), byte_tokenizer()
    longer.add_tokens(["upon"])
    templated.chat_template = TEMPLATE
    for another in (longer, templated):
        with pytest.raises(InputError, match="a story was read with another tokenizer; load the one it was read with, or add it again"):
            shelves.open("a story", model=model, tokenizer=another)
    padded = byte_tokenizer()
    padded(["a", "long text"], padding=True, truncation=True, max_length=3)
    same(asked(shelves, model, padded, "a story"), live(model, tokenizer, TEXT), "with a tokenizer that has padded")


def test_names_that_are_not_there(shelves, model, tokenizer):
    with pytest.raises(InputError, match="has no document nothing; longreach library list shows what there is"):
        shelves.open("nothing", model=model, tokenizer=tokenizer)
    shelves.add(model, tokenizer, TEXT, name="a story")
    with pytest.raises(InputError, match="has no document a tory; did you mean a story"):
        shelves.open("a tory", model=model, tokenizer=tokenizer)
    with pytest.raises(InputError, match="no document is named"):
        shelves.open(model=model, tokenizer=tokenizer)
    with pytest.raises(InputError, match="the question is empty"):
        shelves.ask("a story", question=" ", model=model, tokenizer=tokenizer)
