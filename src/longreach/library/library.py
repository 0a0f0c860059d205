"""A library of documents that a model has read: kept, opened, asked about, and cleared."""

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase

import longreach
from longreach.core.errors import InputError, LongreachError
from longreach.core.progress import SILENT, Progress
from longreach.decoding.reading import CHUNK, check_eval, new_cache, prefill
from longreach.decoding.sampling import GREEDY, Sampling
from longreach.decoding.writing import Writing, longest, plan, write
from longreach.engine import snapshot_files
from longreach.engine.apply import applied, given_model
from longreach.engine.fingerprint import fingerprint
from longreach.engine.joined import join
from longreach.engine.snapshots import Snapshot, restore, settle, snapshot
from longreach.engine.whole_length import whole_length
from longreach.engine.window import position_limit
from longreach.library import shelf
from longreach.library.frame import PromptFrame, frame, tokenizer_fingerprint
from longreach.library.shelf import Manifest, Volume

ROOM = 1024  # tokens behind a document that are counted on for a question and its answer
APART = "each document was read by itself, so none of them knows of the others; a text read as one knows more"
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What `Library.add` has done. Args: fresh: the document was read; else it was there already."""

    volume: Volume
    manifest: Manifest
    fresh: bool


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What `Library.gc` has removed, or would. Args: bytes: freed."""

    name: str
    why: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class KnownText:
    """A document as it was read. Args: ids: of its tokens, those of the opening before it included. taken: what the cache held then."""

    manifest: Manifest
    ids: list[int]
    taken: Snapshot


class Library:
    """A folder of documents that models have read, each under a name of its own.

    A document belongs to the model, the tokenizer and the methods under which it was read; everything else is refused. Any number of
    processes may add, ask and remove at the same time.

    Args: folder: made when the first document is added. None: LONGREACH_LIBRARY in the environment, else ~/.cache/longreach/library.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = shelf.default_folder() if folder is None else Path(folder).expanduser()

    def add(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        text: str,
        *,
        name: str,
        chat: bool | None = None,
        options: Mapping[str, Any] | None = None,
        chunk_size: int = CHUNK,
        progress: Progress = SILENT,
    ) -> Addition:
        """Read a document and keep what was read, or find it there already: the same tokens, read by the same model under the same methods.

        Args: model: under the methods that the document is to be read under. name: to ask for it by. chat: as a user's message, in the
        tokenizer's chat template; None: where it has one. options: arguments of `longreach.load` that the model was loaded with, to be
        remembered. chunk_size: tokens read at a time. progress: is told of the reading.
        Raises: InputError for an empty document, one longer than the model reads under its methods, a name that another document has, and
        a folder that cannot be written to; LongreachError for caches that cannot be kept.
        """
        model = given_model(model)
        check_eval(model)
        chat = bool(tokenizer.chat_template) if chat is None else chat
        around = frame(tokenizer, chat=chat)
        ids = around.document(text, _checked(name))
        self._check_length(model, name, len(ids))
        weights, length = fingerprint(model), len(ids) + ROOM
        manifest = Manifest(
            name=name, model=_place(model), options=dict(options or {}), weights=weights, tokenizer=tokenizer_fingerprint(tokenizer),
            method=applied(model), chat=chat, tokens=len(ids), ids=shelf.ids_digest(ids), text=_sha256(text),
            length=length, reading=0.0, writing=0.0, bytes=0, added="", longreach=longreach.__version__,
        )  # fmt: skip
        if (there := self._there(manifest)) is not None:
            return there
        whole = torch.tensor([ids], device=model.device)
        prefill(model, whole[:, :1], cache=(first := new_cache(model)))
        snapshot(first)  # what cannot be kept is refused before it is read
        cache, begun = new_cache(model), time.perf_counter()
        progress.start(f"reading {name}", len(ids))
        with whole_length(model, length):
            prefill(model, whole, cache=cache, chunk_size=chunk_size, progress=progress)
        settle(cache)
        reading, begun = time.perf_counter() - begun, time.perf_counter()
        with shelf.adding(self.folder) as place:
            written = place / f"{manifest.id}{shelf.CACHE}"
            try:
                snapshot_files.save(snapshot(cache), written, model)
            except InputError as error:  # names a place that is gone by now
                raise InputError(str(error).replace(str(written), f"to the library {self.folder}")) from None
            manifest = replace(
                manifest, reading=reading, writing=time.perf_counter() - begun, bytes=written.stat().st_size,
                added=datetime.now(UTC).isoformat(timespec="seconds"),
            )  # fmt: skip
            return Addition(volume=shelf.put(self.folder, written, ids, manifest), manifest=manifest, fresh=True)

    def entries(self) -> list[Volume]:
        """All documents, by name, those that are of no use included."""
        return shelf.volumes(self.folder)

    def open(self, *names: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Cache:
        """A cache that holds the documents of these names (or ids), one behind the other, ready to be read on from.

        Of several documents, the first tokens of all but the first (the opening of the template, or of the text) are left out; keys are
        turned to the positions that they get. No document has seen the ones before it. Files are mapped into memory, and never changed.
        Raises: InputError for a name that there is not, for documents that are damaged, or of another model, tokenizer, method or release;
        UnsupportedError for several documents where keys cannot be moved exactly (see engine/joined.py).
        """
        return self._open(names, given_model(model), tokenizer)[0]

    def recall(self, name: str, *, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> KnownText:
        """The document of a name or id, with its tokens, to be restored into any number of empty caches of the model.

        Raises: InputError as `open`, and for one whose tokens are not kept.
        """
        volume = shelf.find(self.folder, name)
        manifest = volume.readable()
        _check_tokenizer([manifest], tokenizer)
        known = KnownText(manifest=manifest, ids=volume.ids(), taken=_taken(volume, manifest, given_model(model)))
        volume.touch()
        return known

    def ask(
        self,
        *names: str,
        question: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int | None = None,
        sampling: Sampling = GREEDY,
        tell: Tell = warnings.warn,
        progress: Progress = SILENT,
    ) -> Iterator[str]:
        """The answer to a question about documents, in pieces as they are produced. The documents are not read, only the question.

        Args: names: of the documents, or their ids. max_new_tokens: default: 256, or no end under a method that bounds memory.
        sampling: how tokens are chosen. tell: is told what the user should know. progress: is told of the reading of the question.
        Raises: as `open`; InputError for an empty question, and a text longer than a table of positions.
        """
        model = given_model(model)
        check_eval(model)
        cache, around, length = self._open(names, model, tokenizer)
        asked, held = around.question(question), int(cache.get_seq_length())
        task = plan(model, _title(model), asked, max_new_tokens=max_new_tokens, held=held)
        for concern in [*([APART] if len(names) > 1 else []), *task.concerns]:
            tell(concern)
        return _answer(model, tokenizer, task, cache, length, sampling, progress)

    def remove(self, name: str) -> Removed:
        """Remove the document of a name or id. Raises: InputError where there is none, or it may not be removed."""
        volume = shelf.find(self.folder, name)
        volume.remove()
        return Removed(name=volume.name, why="removed", bytes=volume.bytes)

    def gc(
        self, *, older_than: float | None = None, max_bytes: int | None = None, dry_run: bool = False, progress: Progress = SILENT
    ) -> list[Removed]:
        """Remove what is broken or half written, what was not used for long, and, oldest use first, what is too much.

        Every file is read whole, to see whether it is damaged. What another release of longreach wrote is not broken. What was begun and
        not finished is left alone for ten minutes, for another process may be at it.
        Args: older_than: seconds since the last question, or since it was added. max_bytes: of all documents that stay. dry_run: only say
        what would be removed.
        Raises: InputError where something may not be removed.
        """
        known = self.entries()
        progress.start("checking", sum(each.bytes for each in known))
        gone: list[tuple[Volume, str]] = []
        for volume in known:
            why = volume.broken or _damage(volume)
            if not why and older_than is not None and time.time() - volume.used > older_than:
                why = "not used for that long"
            gone += [(volume, why)] if why else []
            progress.advance(volume.bytes)
        if max_bytes is not None:
            out = {volume.id for volume, _ in gone}
            gone += [(volume, "over the limit") for volume in shelf.over([each for each in known if each.id not in out], max_bytes)]
        removed = [Removed(name=volume.name, why=why, bytes=volume.bytes) for volume, why in gone]
        left = shelf.leftovers(self.folder)
        if not dry_run:
            for volume, _ in gone:
                volume.remove()
            for path, _ in left:
                shelf.discard(path)
        return [*removed, *(Removed(name=path.name, why="half written", bytes=size) for path, size in left)]

    def _there(self, manifest: Manifest) -> Addition | None:
        """The same document, where it is there and whole. Raises: InputError where another one has its name."""
        for volume in self.entries():
            if volume.id == manifest.id and volume.manifest is not None and not volume.why_not:
                volume.touch()
                return Addition(volume=volume, manifest=volume.manifest, fresh=False)
        for volume in self.entries():
            if volume.manifest is not None and not volume.broken and volume.name == manifest.name and volume.id != manifest.id:
                other = f"{volume.manifest.tokens} tokens, read by {volume.manifest.model} under {volume.manifest.under}"
                raise InputError(
                    f"another document is called {volume.name} ({other}); give this one another name (--name), or remove that: "
                    f"longreach library remove {volume.id}"
                )
        return None

    def _check_length(self, model: PreTrainedModel, name: str, tokens: int) -> None:
        """Refuse a document that the model does not read to its end under what is applied to it."""
        limit = longest(model)
        if limit is not None and tokens > limit:
            under = f" under {applied(model)}" if applied(model) else ""
            bounded = f"one that bounds memory (--method sinks:window_size={limit // 2})"
            remedy = f"add it under a method that reaches further (--method yarn:factor=auto), or {bounded}"
            if position_limit(model) is not None:
                remedy = f"lengthen its table of positions first (longreach stretch {_title(model)} --to {tokens + ROOM} --out DIR)"
            raise InputError(f"{name} has {tokens} tokens, and {_title(model)} reads {limit}{under}; {remedy}")

    def _open(self, names: tuple[str, ...], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[Cache, PromptFrame, int]:
        """The cache, what stands around the documents, and the length of text that frequencies were chosen for."""
        if not names:
            raise InputError("no document is named; longreach library list shows what there is")
        found = [shelf.find(self.folder, name) for name in names]
        manifests = [volume.readable() for volume in found]
        if len({manifest.chat for manifest in manifests}) > 1:
            ways = ", ".join(f"{manifest.name} {'in the chat template' if manifest.chat else 'as plain text'}" for manifest in manifests)
            raise InputError(f"these documents were read differently ({ways}) and cannot stand in one prompt; ask about one at a time")
        _check_tokenizer(manifests, tokenizer)
        around = frame(tokenizer, chat=manifests[0].chat)
        caches = [new_cache(model) for _ in found]
        for cache, volume, manifest in zip(caches, found, manifests, strict=True):
            restore(cache, _taken(volume, manifest, model))
        for volume in found:
            volume.touch()
        return join(model, caches, skip=len(around.opening)), around, max(manifest.length for manifest in manifests)


def _taken(volume: Volume, manifest: Manifest, model: PreTrainedModel) -> Snapshot:
    """What the cache held when the document was read. Raises: InputError for what is not that, or of another model or method."""
    try:
        taken = snapshot_files.load(volume.path, model)
    except LongreachError as error:
        raise InputError(f"{manifest.name} cannot be used: {error}") from None
    if taken.tokens != manifest.tokens:
        raise InputError(f"{manifest.name} cannot be used: its file is that of another document; add it again")
    return taken


def _check_tokenizer(manifests: Sequence[Manifest], tokenizer: PreTrainedTokenizerBase) -> None:
    known = tokenizer_fingerprint(tokenizer)
    for manifest in manifests:
        if manifest.tokenizer != known:
            raise InputError(f"{manifest.name} was read with another tokenizer; load the one it was read with, or add it again")


def _answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Writing, cache: Cache, length: int, sampling: Sampling,
    progress: Progress,
) -> Iterator[str]:  # fmt: skip
    with whole_length(model, length):
        yield from write(model, tokenizer, task, sampling=sampling, progress=progress, cache=cache)


def _damage(volume: Volume) -> str:
    """What is wrong with the contents of a file that looks whole; "" for nothing."""
    if volume.foreign:
        return ""
    try:
        snapshot_files.check_whole(volume.path)
        volume.ids()
    except InputError:
        return "damaged"
    return ""


def _checked(name: str) -> str:
    """The name. Raises: InputError for one that no list could show on a line."""
    if not name.strip() or not name.isprintable():
        raise InputError(f"{name!r} is no name for a document; give one of printable characters (--name)")
    return name


def _place(model: PreTrainedModel) -> str:
    """Where the model was loaded from, also seen from another folder."""
    name = str(model.name_or_path)
    path = Path(name).expanduser()
    return str(path.resolve()) if name not in ("", "nano") and path.exists() else name


def _title(model: PreTrainedModel) -> str:
    return model.name_or_path or type(model).__name__


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
