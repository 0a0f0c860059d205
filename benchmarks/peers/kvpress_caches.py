"""The same prompt and budgets through kvpress and here: which tokens each keeps, and what it takes. Draws docs/peers.md.

    python3 -m venv PEER && PEER/bin/pip install torch==2.13.0 "kvpress==0.5.5" "transformers<5.3"
    python benchmarks/peers/kvpress_caches.py MODEL --peer PEER/bin/python [--name NAME] [--length 4096] [--share 0.25]

kvpress needs an older transformers, and so an environment of its own. MODEL: a folder. Processor time, one thread, the better of two runs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROWS, PAGE = DOCS / "evidence" / "peers", DOCS / "peers.md"
ROUNDS, WRITTEN = 2, 32  # runs, and tokens decoded after the prompt, as reports/peers_page.py says
SINKS, WINDOW = 4, 32  # first tokens of streaming, and observed queries of SnapKV


def specs(budget: int) -> dict[str, str]:
    """Name -> our spec, "" for the whole cache. What a window of ours holds before a token is what kvpress leaves."""
    return {
        "full": "", "snapkv": f"snapkv:budget={budget},window_size={WINDOW}", "knorm": f"knorm:budget={budget}",
        "expected_attention": f"expected_attention:budget={budget}", "tova": f"tova:budget={budget}",
        "sinks": f"sinks:num_sinks={SINKS},window_size={budget - SINKS + 1}",
    }  # fmt: skip


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of processor time, and what it gives."""
    began = time.process_time()
    found = run()
    return time.process_time() - began, found


@torch.no_grad()
def theirs(args: argparse.Namespace) -> None:
    """In the environment of kvpress: kept tokens and times, written to a file."""
    from contextlib import nullcontext

    import kvpress

    given = json.loads(args.given.read_text(encoding="utf-8"))
    ids, budget = torch.tensor([given["ids"]]), given["budget"]
    length = ids.shape[1]
    cut = {"compression_ratio": 1 - (budget + 0.5) / length}
    presses = {
        "full": None, "snapkv": kvpress.SnapKVPress(**cut, window_size=WINDOW), "knorm": kvpress.KnormPress(**cut),
        "expected_attention": kvpress.ExpectedAttentionPress(**cut), "tova": kvpress.TOVAPress(**cut),
        "sinks": kvpress.StreamingLLMPress(**cut, n_sink=SINKS),
    }  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    found, whole = {}, None
    for name, press in presses.items():
        prefill, decode = [], []
        for _ in range(ROUNDS):
            cache = DynamicCache()
            with nullcontext() if press is None else press(model):
                prefill.append(timed(lambda: model(ids, past_key_values=cache, logits_to_keep=1))[0])  # noqa: B023
            keys = [layer.keys.clone() for layer in cache.layers]
            decode.append(timed(lambda: _their_decoding(model, cache, length))[0])  # noqa: B023
        whole = whole or keys
        kept = [_places(some[0], every[0]) for some, every in zip(keys, whole, strict=True)]
        found[name] = {"kept": kept, "prefill": min(prefill), "decode": min(decode)}
    torch.save(found, args.found)


def _their_decoding(model: Any, cache: DynamicCache, length: int) -> None:
    for place in range(length, length + WRITTEN):
        model(torch.tensor([[5]]), past_key_values=cache, position_ids=torch.tensor([[place]]))


def _places(some: Tensor, every: Tensor) -> list[list[int]]:
    """Which of the keys [K, n, D] of the prompt each head kept, [K, m, D]; rotated to their places, no two are equal."""
    places = [{key.numpy().tobytes(): place for place, key in enumerate(head)} for head in every]
    return [sorted(places[head][key.numpy().tobytes()] for key in kept) for head, kept in enumerate(some)]


@torch.no_grad()
def ours(model: Any, ids: Tensor, spec: str) -> dict[str, Any]:
    """The same here."""
    import longreach
    from longreach.decoding.reading import new_cache, prefill
    from longreach.engine.cache_argument import cache_argument
    from longreach.engine.snapshots import settle

    reading, writing = [], []
    with longreach.apply(model, spec, warn=False):
        for _ in range(ROUNDS):
            cache = new_cache(model)

            def read() -> None:
                prefill(model, ids, cache=cache, chunk_size=ids.shape[1])  # noqa: B023
                settle(cache)  # noqa: B023

            reading.append(timed(read)[0])
            kept = [_held(layer, ids.shape[1], model.config.num_key_value_heads) for layer in cache.layers]
            given = cache_argument(model, cache)
            writing.append(timed(lambda: [model(torch.tensor([[5]]), **given, use_cache=True) for _ in range(WRITTEN)])[0])  # noqa: B023
    return {"kept": kept, "prefill": min(reading), "decode": min(writing)}


def _held(layer: Any, tokens: int, kv_heads: int) -> list[set[int]]:
    """The tokens that each head of a layer holds."""
    recent = set(range(tokens - len(layer.recent), tokens)) if hasattr(layer, "recent") else set(range(tokens))
    first = set(range(layer.plan.num_sinks)) if hasattr(layer, "plan") else set()
    state = None if getattr(layer, "store", None) is None else next(iter(layer.store.rows.values())).state
    if state is None:
        return [recent | first] * kv_heads
    recent = {token for token in recent if token >= state.upto}
    return [recent | {token for token in head if token >= 0} for head in state.index[0].tolist()]


def compare(args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each method."""
    import longreach
    from longreach.data.stdlib import stdlib_text
    from longreach.decoding.encoder import Encoder

    model, tokenizer = longreach.load(args.model, dtype="float32")
    budget, ids = round(args.share * args.length), Encoder(tokenizer).encode(stdlib_text("held-out"))[: args.length]
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.json", Path(folder) / "found.pt"
        given.write_text(json.dumps({"ids": ids, "budget": budget}), encoding="utf-8")
        command = [args.peer, __file__, args.model, "--given", str(given), "--found", str(found)]
        subprocess.run(command, check=True)  # noqa: S603 - the environment that the user names
        peer = torch.load(found)
    rows = []
    for name, spec in specs(budget).items():
        mine, other = ours(model, torch.tensor([ids]), spec), peer[name]
        shares = [
            len(here & set(there)) / len(there)
            for layers in zip(mine["kept"], other["kept"], strict=True)
            for here, there in zip(*layers, strict=True)
        ]
        rows.append({
            "model": args.name or Path(args.model).name, "length": args.length, "method": name, "spec": spec, "budget": budget,
            "same": sum(shares) / len(shares), "least": min(shares), "prefill": mine["prefill"] / other["prefill"],
            "decode": mine["decode"] / other["decode"],
        })  # fmt: skip
        print(name, f"{rows[-1]['same']:.4f} {rows[-1]['least']:.3f} {rows[-1]['prefill']:.2f} {rows[-1]['decode']:.2f}", flush=True)
    return rows


def main() -> None:
    """Measure, keep the rows, and draw the page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", help="a folder")
    options.add_argument("--peer", help="the Python of an environment with kvpress")
    options.add_argument("--name", help="what the page calls the model [default: the last part of MODEL]")
    options.add_argument("--length", type=int, default=4096, help="tokens of the prompt [default: 4096]")
    options.add_argument("--share", type=float, default=0.25, help="of it that is kept [default: 0.25]")
    options.add_argument("--given", type=Path, help=argparse.SUPPRESS)
    options.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    torch.set_num_threads(1)
    if args.given is not None:
        theirs(args)
        return
    if args.peer is None:
        print("kvpress_caches: give --peer, the Python of an environment with kvpress", file=sys.stderr)
        sys.exit(2)
    rows = compare(args)
    ROWS.mkdir(parents=True, exist_ok=True)
    (ROWS / f"{rows[0]['model']}-{args.length}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    from longreach.reports.peers_page import peers_page  # not for the other environment, which has no longreach

    PAGE.write_text(peers_page(ROWS), encoding="utf-8")


if __name__ == "__main__":
    main()
