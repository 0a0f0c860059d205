"""Shows whether a published encoder with learned positions finds long documents once its table of positions is lengthened.

    python experiments/minilm.py --model FOLDER [--name minilm-l6-v2] [--text FILE]... [--sets 2] [--work DIR] [--evidence FOLDER]

FOLDER is what `make real` writes. A document is real text of 256 to 4096 tokens with one person's pass key at a random depth, and a
query asks for it, as in the passkey task of LongEmbed (arXiv:2404.12096). The documents of a set have the same text, so that the fact alone
tells them apart. The model as it is reads the first 512 tokens of a document (sentence-transformers, by the model's own settings, the first
256). Embeddings are those of its card: the mean over all tokens, normalised. A set takes about 8 minutes on one core. What was measured is
found again.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import longreach
from longreach.core import registry
from longreach.core.errors import InputError, LongreachError
from longreach.data.stdlib import stdlib_text
from longreach.decoding.encoder import Encoder
from longreach.engine.window import window_before_export
from longreach.evaluation.evidence import Number, bounds, claim_row, describe, found_share, write
from longreach.evaluation.intervals import paired_share_interval
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.text import read_texts
from longreach.positions.base import TableMethod

LENGTHS = (256, 512, 1024, 2048, 4096)
DOCUMENTS = 25  # of a set, among which a query's own has to be the nearest
MODEL = "minilm-l6-v2"  # in the docs
TRAINED_ON = "1B pairs of sentences, each cut at 128 tokens (as its publisher says)"
STOCK = "stock model"  # in the table by length
METRICS = {
    "found_gain": "share of queries whose own document is the nearest, above that of the model as it is, which reads the first 512 tokens",
}
_FIRST = (
    "Alice", "Bruno", "Carla", "David", "Elena", "Frank", "Grace", "Henry", "Irene", "James", "Karen", "Louis", "Maria", "Nancy", "Oscar",
    "Paula", "Quentin", "Rachel", "Simon", "Teresa",
)  # fmt: skip
_LAST = (
    "Adams", "Baker", "Carter", "Dixon", "Evans", "Fisher", "Garcia", "Harris", "Irving", "Jones", "Kelly", "Lopez", "Martin", "Nelson",
    "Owens", "Parker", "Reed", "Stewart", "Turner", "Walker",
)  # fmt: skip
_BATCH = 4096  # tokens
_CHARACTERS = 6  # more than most tokens have
Ids = Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One person's pass key. Args: depth: where in a document it stands, 0 to 1."""

    name: str
    key: int
    depth: float

    @property
    def stated(self) -> str:
        """What the document says."""
        return f"\n{self.name}'s pass key is {self.key}. Remember it. {self.key} is the pass key for {self.name}.\n"

    @property
    def asked(self) -> str:
        """The query."""
        return f"What is the pass key for {self.name}?"


class Texts:
    """Documents and queries as ids, special tokens included. Args: text: real text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
        self.encoder, self.text = Encoder(tokenizer), text
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        with_special: list[int] = tokenizer("a")["input_ids"]
        self.suffix = with_special[len(self.encoder.prefix) + len(self.encoder.encode("a")) :]

    def haystack(self, number: int, length: int) -> list[int]:
        """The real text that all documents of a set have: `length` ids from a random place on.

        Raises: InputError where the text is too short.
        """
        last = len(self.text) - _CHARACTERS * length
        start = int(np.random.default_rng((0, number)).integers(max(1, last)))
        found = self.encoder.first_tokens(self.text[self.text.find("\n", start) + 1 :], length)
        if last < 0 or len(found) < length:
            raise InputError(f"the text is too short for documents of {length} tokens: give {_CHARACTERS * length} characters or more")
        return found

    def document(self, haystack: Ids, fact: Fact, length: int) -> list[int]:
        """Exactly `length` ids: the beginning of the haystack with the fact at its depth; only the haystack is cut."""
        stated = self.encoder.encode_inside(fact.stated)
        room = length - len(self.encoder.prefix) - len(stated) - len(self.suffix)
        place = round(fact.depth * room)
        return [*self.encoder.prefix, *haystack[:place], *stated, *haystack[place:room], *self.suffix]

    def query(self, fact: Fact) -> list[int]:
        """The ids of what is asked."""
        return [*self.encoder.prefix, *self.encoder.encode(fact.asked), *self.suffix]

    def cut(self, ids: Ids, length: int) -> list[int]:
        """What a tokenizer that truncates leaves of a document: its beginning, with the special tokens at its end."""
        return list(ids) if len(ids) <= length else [*ids[: length - len(self.suffix)], *self.suffix]


def facts(number: int) -> list[Fact]:
    """The facts of a set: different people, with keys of five digits, at depths drawn evenly."""
    rng = np.random.default_rng((1, number))
    people = rng.choice(len(_FIRST) * len(_LAST), size=DOCUMENTS, replace=False).tolist()
    keys, depths = rng.integers(10_000, 100_000, size=DOCUMENTS).tolist(), rng.random(DOCUMENTS).tolist()
    return [
        Fact(name=f"{_FIRST[person % len(_FIRST)]} {_LAST[person // len(_FIRST)]}", key=key, depth=depth)
        for person, key, depth in zip(people, keys, depths, strict=True)
    ]


@torch.inference_mode()
def embed(model: PreTrainedModel, texts: Sequence[Ids]) -> torch.Tensor:
    """[N, hidden size]: the mean of each text's last hidden states, normalised; texts of a batch are padded on the right."""
    found, size = [], max(1, _BATCH // max(map(len, texts)))
    for batch in (texts[start : start + size] for start in range(0, len(texts), size)):
        longest = max(map(len, batch))
        ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in batch])
        seen = torch.arange(longest) < torch.tensor([[len(text)] for text in batch])
        states = model(input_ids=ids, attention_mask=None if seen.all() else seen.long()).last_hidden_state
        found.append((states * seen[..., None]).sum(1) / seen.sum(1, keepdim=True))
    return normalize(torch.cat(found), dim=-1)


def nearest_is_own(queries: torch.Tensor, documents: torch.Tensor) -> list[bool]:
    """By query: whether the document of the same number is the nearest."""
    return ((queries @ documents.T).argmax(1) == torch.arange(len(queries))).tolist()


def specs(window: int, length: int) -> dict[str, str]:
    """name -> spec, for every method for learned positions: its first suggestion for the length, inside the window for the longest one."""
    methods = [registry.get(name) for name in registry.names("positions")]
    target = length if length > window else LENGTHS[-1]
    return {method.name(): method.suggest(window, target)[0].spec for method in methods if issubclass(method, TableMethod)}


class Comparison:
    """Answers of one model, measured or found in rows. Args: name: of the model. sets: of documents."""

    def __init__(self, model: PreTrainedModel, name: str, texts: Texts, sets: int, rows: Rows) -> None:
        self.model, self.name, self.texts, self.sets, self.rows = model, name, texts, sets, rows
        self.window = window_before_export(model)

    def answers(self, spec: str, length: int, *, plain_queries: bool = False) -> dict[str, bool]:
        """By query of all sets: whether its document was found. Args: plain_queries: read by the model as it is."""
        found: dict[str, bool] = {}
        for number in range(self.sets):
            rows = self._asked(spec, length, number, plain_queries)
            if any(self.rows.get(row) is None for row in rows):
                self._measure(spec, length, number)
            found |= {str(row.settings["input"]): bool(known.score) for row in rows if (known := self.rows.get(row))}
        return found

    def _asked(self, spec: str, length: int, number: int, plain_queries: bool) -> list[Row]:
        """The rows of a set, not measured yet."""
        common = {"documents": DOCUMENTS, "text": self.texts.digest, "plain_queries": plain_queries}
        return [
            Row(
                task="personal_passkey", model=self.name, method=spec, length=length, depth=fact.depth, seed=number,
                version=longreach.__version__, settings={**common, "input": f"{number}: {fact.asked}"},
            )
            for fact in facts(number)
        ]  # fmt: skip

    def _measure(self, spec: str, length: int, number: int) -> None:
        asked, haystack = facts(number), self.texts.haystack(number, LENGTHS[-1])
        documents = [self.texts.document(haystack, fact, length) for fact in asked]
        queries = [self.texts.query(fact) for fact in asked]
        plain = embed(self.model, queries)
        if spec:
            with longreach.apply(self.model, spec):
                read, own = embed(self.model, documents), embed(self.model, queries)
        else:
            read, own = embed(self.model, [self.texts.cut(document, self.window) for document in documents]), plain
        hits = {False: nearest_is_own(own, read), True: nearest_is_own(plain, read)}
        for plain_queries, each in hits.items():
            rows = self._asked(spec, length, number, plain_queries)
            self.rows.append(replace(row, score=float(hit)) for row, hit in zip(rows, each, strict=True))
        print(f"{spec or STOCK} at {length}, set {number}: {sum(hits[False])} of {DOCUMENTS}", flush=True)


def by_length(found: Comparison, **told: str) -> list[dict[str, Any]]:
    """Rows of the table by length: the model as it is, and each method. Args: told: model, data, command."""
    rows = []
    for method in (STOCK, *specs(found.window, LENGTHS[-1])):
        for length in LENGTHS:
            spec = "" if method == STOCK else specs(found.window, length)[method]
            answers = found.answers(spec, length)
            nothing = dict.fromkeys(("loss", "rise", "rise_low", "rise_high", "tokens_per_s", "peak_bytes"))
            measured = {"prompts": len(answers), **bounds(found_share(answers), "found", "found_low", "found_high")}
            setting = {
                "window": found.window,
                "condition": "untuned",
                "method": method,
                "setting": spec,
                "length": length,
                "forgets": False,
            }
            rows.append({**told, **setting, "texts": 0, **nothing, **measured})
    return rows


def claims(found: Comparison, **told: str) -> list[dict[str, Any]]:
    """Rows of the evidence table, two for each claim: queries under the method, and by the model as it is. Args: told: as above."""
    rows, longest = [], LENGTHS[-1]
    before = found.answers("", longest)
    for name, spec in specs(found.window, longest).items():
        for claim in (claim for claim in registry.get(name).info.claims if claim.metric in METRICS):
            for plain_queries, words in ((False, ""), (True, " (queries read by the model as it is)")):
                after = found.answers(spec, longest, plain_queries=plain_queries)
                interval = paired_share_interval([(hit, before[query]) for query, hit in after.items()])
                finding = Number(spec=spec, interval=interval, of=f"{len(after)} queries")
                said = {"setting": f"`{spec}`, documents of {longest} tokens", "metric": METRICS[claim.metric] + words, **told}
                rows.append(claim_row(name, claim, finding, **said))
    return rows


def main() -> None:
    """Read, compare, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of an encoder with learned positions")
    parser.add_argument("--name", default=MODEL, help=f"what the docs call it [default: {MODEL}]")
    parser.add_argument("--text", type=Path, action="append", help="real text, UTF-8; may be repeated [default: held-out standard library]")
    parser.add_argument("--sets", type=int, default=2, help=f"of {DOCUMENTS} documents each, at every length [default: 2]")
    parser.add_argument("--work", type=Path, default=Path("longreach-results/minilm"), help="folder for what was measured")
    parser.add_argument("--evidence", type=Path, help="folder for the rows of the docs (docs/evidence)")
    args = parser.parse_args()
    model, tokenizer = AutoModel.from_pretrained(args.model, dtype="float32").eval(), AutoTokenizer.from_pretrained(args.model)
    data = ", ".join(path.name for path in args.text) if args.text else "held-out standard library"
    files = "".join(f" --text {path.name}" for path in args.text or ())
    command = f"python experiments/minilm.py --model FOLDER --name {args.name}{files} --sets {args.sets}"
    told = {"model": args.name, "data": data, "command": command}
    try:
        texts = Texts(tokenizer, read_texts(args.text) if args.text else stdlib_text("held-out"))
        found = Comparison(model, args.name, texts, args.sets, Rows(args.work / "rows.jsonl"))
        lengths, held = by_length(found, **told), claims(found, **told)
        for row in lengths:
            print(f"{row['method']} at {row['length']}: {row['found']:.2f} ({row['found_low']:.2f} to {row['found_high']:.2f})")
        for row in held:
            print(f"{row['setting']}: {row['metric']} {row['number']:+.2f} ({row['low']:.2f} to {row['high']:.2f}): {row['verdict']}")
        if args.evidence:
            about = describe(model, name=args.name, trained_on=TRAINED_ON if args.name == MODEL else None)
            write(args.evidence, about, lengths, "lengths")
            write(args.evidence, about, held)
    except LongreachError as error:
        sys.exit(f"minilm: {error}")


if __name__ == "__main__":
    main()
