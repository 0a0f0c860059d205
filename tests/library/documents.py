"""Documents that the tests of the library read, and what they do to the files."""

import json

import torch

from longreach.decoding.reading import new_cache, prefill
from longreach.engine.cache_argument import cache_argument
from longreach.library.frame import frame

TEXT, OTHER, QUESTION = "Once upon a time there was a cache.", "It was kept in a library.", "Where?"


def logits_after(model, cache, ids):
    with torch.no_grad():
        return model(ids, **cache_argument(model, cache), use_cache=True).logits


def live(model, tokenizer, document, question=QUESTION):
    """The logits after the question, without a library."""
    around, cache = frame(tokenizer, chat=False), new_cache(model)
    prefill(model, torch.tensor([around.document(document, "")]), cache=cache)
    return logits_after(model, cache, around.question(question))


def asked(shelves, model, tokenizer, *names):
    return logits_after(model, shelves.open(*names, model=model, tokenizer=tokenizer), frame(tokenizer, chat=False).question(QUESTION))


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def manifest_of(volume):
    return volume.folder / f"{volume.id}.json"


def edited(**changes):
    def change(volume):
        data = json.loads(manifest_of(volume).read_text())
        manifest_of(volume).write_text(json.dumps({**data, **changes}))

    change.__name__ = "_".join(changes)
    return change


def flipped_bit(volume):
    data = bytearray(volume.path.read_bytes())
    data[-1000] ^= 1
    volume.path.write_bytes(bytes(data))


def cut_short(volume):
    volume.path.write_bytes(volume.path.read_bytes()[:-100])


def without_file(volume):
    volume.path.unlink()


def without_tokens(volume):
    volume.path.with_suffix(".tokens").unlink()


def other_tokens(volume):
    path = volume.path.with_suffix(".tokens")
    path.write_text(path.read_text().replace("[", "[1, "))


def no_json(volume):
    manifest_of(volume).write_text("{")


def no_object(volume):
    manifest_of(volume).write_text("[1]")
