"""Documents are kept whole or not at all, and used by the model that read them alone."""

import multiprocessing
import sys
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from longreach.checkpoints.checkpoint import load
from longreach.core.errors import InputError, LongreachError, UnsupportedError
from longreach.decoding.generation import prompt_ids, text, tokens
from longreach.decoding.reading import new_cache, prefill
from longreach.engine import snapshot_files
from longreach.engine.apply import apply
from longreach.engine.snapshots import restore
from longreach.library import Library, library, shelf
from longreach.library.frame import frame
from longreach.testing.conformance.base import same
from longreach.testing.models import tiny_learned
from tests.checkpoints.folders import TEMPLATE, VOCABULARY, byte_tokenizer, tiny, write_folder
from tests.library.documents import OTHER, QUESTION, TEXT, asked, files, live, logits_after

METHODS = ("", "yarn:factor=2", "h2o:budget=16,slack=4", "self_extend:neighbours=16,group=4", "snapkv:budget=12,window_size=4")


# what is kept is what was read


@pytest.mark.parametrize("spec", METHODS)
def test_a_document_goes_on_as_if_it_had_just_been_read(shelves, model, tokenizer, spec):
    with apply(model, spec):
        added = shelves.add(model, tokenizer, TEXT, name="a story")
        same(asked(shelves, model, tokenizer, "a story"), live(model, tokenizer, TEXT), "from the library")
        same(asked(shelves, model, tokenizer, added.volume.id), live(model, tokenizer, TEXT), "by its id, again")
    assert (added.manifest.method, added.manifest.tokens, added.fresh) == (spec, len(TEXT) + 3, True)


@pytest.mark.parametrize("family", ["mistral", "gemma3", "llama_dynamic", "gpt_neox"])
def test_a_document_alone_needs_no_positions_moved(shelves, tokenizer, family):
    """Layers that keep only a window, and frequencies that follow the length, too."""
    model = tiny(family)
    shelves.add(model, tokenizer, TEXT, name="a story")
    same(asked(shelves, model, tokenizer, "a story"), live(model, tokenizer, TEXT), family)


def test_what_cannot_be_kept_is_refused_before_it_is_read(shelves, tokenizer, monkeypatch):
    model, read = tiny(), []
    monkeypatch.setattr(library, "new_cache", lambda model: QuantizedKind(config=model.config))
    monkeypatch.setattr(library, "prefill", lambda model, ids, **more: read.append(ids.shape[1]) or prefill(model, ids, **more))
    with pytest.raises(LongreachError, match="a QuantizedKind has no snapshots"):
        shelves.add(model, tokenizer, TEXT, name="a story")
    assert read == [1]


class QuantizedKind(DynamicCache):
    """A cache of a kind that snapshots do not know."""


PROGRAM = """
import sys
import torch
import longreach
from longreach.engine.cache_argument import cache_argument
from longreach.library.frame import frame

model, tokenizer = longreach.load(sys.argv[1])
with longreach.apply(model, sys.argv[4] or None), torch.no_grad():
    cache = longreach.Library(sys.argv[2]).open("a story", model=model, tokenizer=tokenizer)
    ids = frame(tokenizer, chat=False).question("Where?")
    torch.save(model(ids, **cache_argument(model, cache), use_cache=True).logits, sys.argv[3])
"""


@pytest.mark.parametrize("spec", ["", "h2o:budget=16,slack=4"])
def test_another_process_goes_on_bit_for_bit(tmp_path, shelves, plain_transformers, spec):
    folder, program, found = write_folder(tmp_path / "tiny"), tmp_path / "program.py", tmp_path / "logits.pt"
    checkpoint = load(folder)
    with apply(checkpoint.model, spec):
        shelves.add(*checkpoint, TEXT, name="a story")
        wanted = live(*checkpoint, TEXT)
    program.write_text(PROGRAM)
    done = plain_transformers.run([sys.executable, "-P", str(program), str(folder), str(shelves.folder), str(found), spec])
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(found), wanted)


def test_an_answer_is_what_the_whole_prompt_gives_and_changes_no_file(shelves, model, tokenizer):
    added = shelves.add(model, tokenizer, TEXT, name="a story")
    before = added.volume.path.read_bytes()
    around = frame(tokenizer, chat=False)
    whole = torch.cat([torch.tensor([around.document(TEXT, "")]), around.question(QUESTION)], 1)
    wanted = "".join(text(tokens(model, whole, max_new_tokens=12), tokenizer))
    for _ in range(2):
        pieces = shelves.ask("a story", question=QUESTION, model=model, tokenizer=tokenizer, max_new_tokens=12)
        assert "".join(pieces) == wanted
    assert added.volume.path.read_bytes() == before


def test_in_a_chat_template_the_tokens_are_those_of_one_message(shelves, model):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    around = frame(tokenizer, chat=True)
    ids = [*around.document(TEXT + "\n", ""), *around.question(QUESTION)[0].tolist()]
    assert ids == prompt_ids(tokenizer, f"{TEXT}\n\n{QUESTION}", chat=True)[0].tolist()
    assert shelves.add(model, tokenizer, TEXT, name="message").manifest.chat
    assert not shelves.add(model, tokenizer, TEXT, name="plain", chat=False).manifest.chat
    with pytest.raises(InputError, match=r"read differently \(message in the chat template, plain as plain text\)"):
        shelves.open("message", "plain", model=model, tokenizer=tokenizer)


def test_text_that_spells_a_special_token_is_text(tokenizer):
    around = frame(tokenizer, chat=False)
    assert 2 not in around.document("the end <eos> is near", "")
    assert 2 not in around.question("what is <eos>?")[0].tolist()


def test_frequencies_stay_those_of_one_text(shelves, tokenizer):
    """A checkpoint with others for texts behind 32 tokens: the document is below, the question crosses the line."""
    model = tiny("llama_longrope", hidden_size=64)
    document = "a short document"
    shelves.add(model, tokenizer, document, name="short")
    around = frame(tokenizer, chat=False)
    whole = torch.cat([torch.tensor([around.document(document, "")]), around.question(QUESTION)], 1)
    assert whole.shape[1] < 32 < whole.shape[1] + 12
    wanted = "".join(text(tokens(model, whole, max_new_tokens=12), tokenizer))
    found = "".join(shelves.ask("short", question=QUESTION, model=model, tokenizer=tokenizer, max_new_tokens=12))
    assert found == wanted


def test_several_documents_stand_in_one_prompt(shelves, model, tokenizer):
    for name, document in (("one", TEXT), ("two", OTHER)):
        shelves.add(model, tokenizer, document, name=name)
    around, told, cache = frame(tokenizer, chat=False), [], new_cache(model)
    both = [*around.document(TEXT, ""), *around.document(OTHER, "")[len(around.opening) :]]
    prefill(model, torch.tensor([both]), cache=cache)
    found = shelves.open("one", "two", model=model, tokenizer=tokenizer)
    torch.testing.assert_close(found.layers[0].keys, cache.layers[0].keys, rtol=0, atol=1e-5)
    assert tokenizer.decode(both) == f"\n{TEXT}\n\n{OTHER}\n\n"
    list(shelves.ask("one", "two", question=QUESTION, model=model, tokenizer=tokenizer, max_new_tokens=2, tell=told.append))
    assert told == [library.APART]
    with apply(model, "sinks:window_size=16"):
        for name, document in (("three", TEXT), ("four", OTHER)):
            shelves.add(model, tokenizer, document, name=name)
        with pytest.raises(UnsupportedError, match="several documents in one prompt cannot be used"):
            shelves.open("three", "four", model=model, tokenizer=tokenizer)


# what is there already


def test_a_document_that_is_there_is_not_read_again(shelves, model, tokenizer, monkeypatch):
    first = shelves.add(model, tokenizer, TEXT, name="a story")
    monkeypatch.setattr(library, "prefill", lambda *args, **more: pytest.fail("it was read again"))
    again = shelves.add(model, tokenizer, TEXT, name="another name")
    assert (again.fresh, again.manifest) == (False, first.manifest)
    assert len(shelves.entries()) == 1


def test_what_differs_is_another_document(shelves, model, tokenizer):
    shelves.add(model, tokenizer, TEXT, name="a")
    with apply(model, "yarn:factor=2"):
        shelves.add(model, tokenizer, TEXT, name="b")
    shelves.add(tiny(num_hidden_layers=2), tokenizer, TEXT, name="c")
    shelves.add(model, tokenizer, OTHER, name="d")
    assert [volume.name for volume in shelves.entries()] == ["a", "b", "c", "d"]


def test_a_name_is_given_once(shelves, model, tokenizer):
    first = shelves.add(model, tokenizer, TEXT, name="a story")
    with pytest.raises(InputError, match=f"another document is called a story .*longreach library remove {first.volume.id}"):
        shelves.add(model, tokenizer, OTHER, name="a story")
    assert len(shelves.entries()) == 1


def test_what_is_recalled_serves_many_caches(shelves, model, tokenizer):
    shelves.add(model, tokenizer, TEXT, name="a story")
    known = shelves.recall("a story", model=model, tokenizer=tokenizer)
    assert known.ids == frame(tokenizer, chat=False).document(TEXT, "")
    for _ in range(2):
        restore(cache := new_cache(model), known.taken)
        same(logits_after(model, cache, frame(tokenizer, chat=False).question(QUESTION)), live(model, tokenizer, TEXT), "recalled")


@pytest.mark.parametrize("name", ["ä/b [x] *?", "../../etc/passwd", "..", " a ", "--name", "漢字 🙂", "x" * 300])
def test_names_may_be_odd(shelves, model, tokenizer, name):
    shelves.add(model, tokenizer, TEXT, name=name)
    same(asked(shelves, model, tokenizer, name), live(model, tokenizer, TEXT), name)
    assert len(files(shelves.folder)) == 3
    assert files(shelves.folder.parent) == ["library"]
    assert shelves.remove(name).name == name
    assert files(shelves.folder) == []


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "bell\a"])
def test_names_fit_on_a_line(shelves, model, tokenizer, name):
    with pytest.raises(InputError, match="is no name for a document"):
        shelves.add(model, tokenizer, TEXT, name=name)


# what cannot be added


@pytest.mark.parametrize("document", ["", " \n "])
def test_an_empty_document(shelves, model, tokenizer, document):
    with pytest.raises(InputError, match="^a story is empty$"):
        shelves.add(model, tokenizer, document, name="a story")
    assert not shelves.folder.exists()


def test_a_document_beyond_the_window(shelves, model, tokenizer):
    says = r"^long has 203 tokens, and .* reads 128; add it under a method that reaches further .*\(--method sinks:window_size=64\)$"
    with pytest.raises(InputError, match=says):
        shelves.add(model, tokenizer, "x" * 200, name="long")
    with apply(model, "yarn:factor=1.5", warn=False), pytest.raises(InputError, match="reads 192 under yarn:factor=1.5; add it under"):
        shelves.add(model, tokenizer, "x" * 200, name="long")
    assert not shelves.folder.exists()
    for spec in ("yarn:factor=2", "sinks:window_size=64", "self_extend:neighbours=16,group=4"):
        with apply(model, spec):
            assert shelves.add(model, tokenizer, "x" * 200, name=spec).fresh


def test_a_document_beyond_a_table_of_positions(shelves, tokenizer):
    learned = tiny_learned("gpt2", window=32, vocab_size=VOCABULARY)
    with pytest.raises(InputError, match=r"long has 43 tokens, and GPT2LMHeadModel reads 32; lengthen its table of positions first"):
        shelves.add(learned, tokenizer, "x" * 40, name="long")


def test_a_model_in_training_and_no_model(shelves, tokenizer):
    with pytest.raises(InputError, match=r"call model\.eval\(\) first"):
        shelves.add(tiny().train(), tokenizer, TEXT, name="a")
    with pytest.raises(InputError, match="a loaded transformers model is needed"):
        shelves.add("nano", tokenizer, TEXT, name="a")


def full(*args, **more):
    raise OSError(28, "No space left on device")


def half(tensors, path, metadata):
    Path(path).write_bytes(b"half")
    full()


@pytest.mark.parametrize(("where", "what", "fails"), [(snapshot_files, "save_file", half), (shelf, "write_text", full)])
def test_a_full_disk_leaves_nothing_behind(shelves, model, tokenizer, monkeypatch, where, what, fails):
    shelves.add(model, tokenizer, OTHER, name="other")
    before = files(shelves.folder)
    with monkeypatch.context() as patch:
        patch.setattr(where, what, fails)
        with pytest.raises(InputError, match="^cannot write to the library .*/library: No space left on device$"):
            shelves.add(model, tokenizer, TEXT, name="a story")
    assert files(shelves.folder) == before
    same(asked(shelves, model, tokenizer, "other"), live(model, tokenizer, OTHER), "after a full disk")
    assert shelves.add(model, tokenizer, TEXT, name="a story").fresh


def test_a_library_that_is_a_file(tmp_path, model, tokenizer):
    (tmp_path / "library").write_text("")
    with pytest.raises(InputError, match="cannot write to the library .*library: "):
        Library(tmp_path / "library").add(model, tokenizer, TEXT, name="a story")


# several processes


def _add(folder, document, name, barrier, put):
    """In a process of its own: both write at the same time."""
    torch.set_num_threads(1)
    shelf.put = lambda *args: (barrier.wait(), put(*args))[1]
    Library(folder).add(tiny(), byte_tokenizer(), document, name=name)


@pytest.mark.parametrize(("second", "name"), [(OTHER, "two"), (TEXT, "one"), (OTHER, "one")], ids=["another", "the same", "a name twice"])
def test_two_processes_add_at_once(shelves, model, tokenizer, second, name):
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(2, timeout=60)
    both = [
        fork.Process(target=_add, args=(shelves.folder, document, called, barrier, shelf.put))
        for document, called in ((TEXT, "one"), (second, name))
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    kept = shelves.entries()
    assert [volume.why_not for volume in kept] == [""] * len({TEXT, second})
    assert len(files(shelves.folder)) == 3 * len(kept)
    for volume in kept:
        document = TEXT if volume.manifest.text == library._sha256(TEXT) else OTHER
        same(asked(shelves, model, tokenizer, volume.id), live(model, tokenizer, document), "of two at once")
    if second != TEXT and name == "one":
        with pytest.raises(InputError, match="2 documents are called one; say which by its id: "):
            shelves.open("one", model=model, tokenizer=tokenizer)
