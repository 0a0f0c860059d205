"""Trains the bundled model `nano`: a 7.6M-parameter Llama with a window of 512 tokens.

    python experiments/nano.py --data FOLDER [--tokens 40M] [--work DIR] [--out DIR]

FOLDER holds `train/*.txt` and `valid/*.txt` (books). The standard library's source and synthetic recall are added here. A run that was
killed goes on when the same command is given again; a run with more tokens goes on from the state before the decay.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nano_card import write_card
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from longreach.data.recall import RecallGenerator
from longreach.data.stdlib import stdlib_text
from longreach.training.pretrain import PretrainConfig, pretrain

WINDOW = 512
VOCABULARY = 4096
SHARES = {"books": (0.45, 0.6), "code": (0.1, 0.15), "recall": (0.45, 0.25)}  # of the sequences, in the first part and in the rest
FIRST_PART = 0.6  # of the steps: looking back is learnt only where much of the text rewards it, and kept with less
BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"


def model_config() -> LlamaConfig:
    """Llama with grouped-query attention: 6 query heads on 2 key-value heads of 64 dimensions."""
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=384, intermediate_size=704, num_hidden_layers=5, num_attention_heads=6,
        num_key_value_heads=2, head_dim=64, max_position_embeddings=WINDOW, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE; every digit is a token of its own, so that numbers are copied digit by digit."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[BOS, EOS, PAD], initial_alphabet=alphabet, show_progress=False)
    )
    bpe.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=WINDOW, clean_up_tokenization_spaces=False
    )


class Mixture:
    """Batches of the three sources; every batch depends on the seed and the step alone."""

    def __init__(
        self, books: np.ndarray[Any, Any], code: np.ndarray[Any, Any], recall: RecallGenerator, config: PretrainConfig, seed: int
    ) -> None:
        self.books, self.code, self.recall, self.config, self.seed = books, code, recall, config, seed

    def __call__(self, step: int) -> torch.Tensor:
        """Ids [batch_size, WINDOW + 1] of a step."""
        rng = np.random.default_rng((self.seed, step))
        part = int(step >= FIRST_PART * self.config.steps)
        kinds = rng.choice(3, size=self.config.batch_size, p=[shares[part] for shares in SHARES.values()])
        return torch.tensor([[0, *self._sequence(rng, kind)] for kind in kinds])

    def _sequence(self, rng: np.random.Generator, kind: int) -> list[int]:
        if kind == 2:
            return self.recall.sample(rng, WINDOW)
        source = (self.books, self.code)[kind]
        start = int(rng.integers(0, len(source) - WINDOW))
        return source[start : start + WINDOW].tolist()


def bits_per_byte(tokenizer: PreTrainedTokenizerFast, text: str, windows: int = 64) -> Callable[[torch.nn.Module], float]:
    """Mean loss over windows spread evenly over the text, in bits for each byte that the tokens stand for."""
    ids = np.array(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)
    starts = np.linspace(0, len(ids) - WINDOW, windows).astype(int)
    batch = torch.tensor(np.stack([np.concatenate(([0], ids[s : s + WINDOW - 1])) for s in starts]))
    total_bytes = sum(len(str(tokenizer.decode(row[1:].tolist())).encode()) for row in batch)

    @torch.no_grad()
    def evaluate(model: torch.nn.Module) -> float:
        device = next(model.parameters()).device
        nats = 0.0
        for rows in batch.split(16):
            logits = model(rows.to(device), use_cache=False).logits[:, :-1].float()
            nats += torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].to(device).flatten(), reduction="sum").item()
        return nats / math.log(2) / total_bytes

    return evaluate


def read_books(folder: Path) -> list[str]:
    """All `*.txt` of a folder."""
    files = sorted(folder.glob("*.txt"))
    if not files:
        sys.exit(f"{folder} holds no *.txt: --data wants a folder with train/*.txt and valid/*.txt")
    return [path.read_text(encoding="utf-8") for path in files]


def main() -> None:
    """Train, then save the model in bf16 with its tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/*.txt and valid/*.txt")
    parser.add_argument("--tokens", default="40M", help="tokens to train on, in millions (40M)")
    parser.add_argument("--work", type=Path, default=Path("nano-run"), help="folder for checkpoints and the loss curve")
    parser.add_argument("--out", type=Path, help="folder for the finished model (default: WORK/model)")
    parser.add_argument("--note", default="", help="a sentence for the model card")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = PretrainConfig(tokens=int(float(args.tokens.rstrip("M")) * 1e6))
    args.work.mkdir(parents=True, exist_ok=True)
    books = read_books(args.data / "train")
    stdlib = stdlib_text("train")
    if not (args.work / "tokenizer" / "tokenizer.json").exists():
        make_tokenizer([*books, stdlib]).save_pretrained(args.work / "tokenizer")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.work / "tokenizer")

    def encode(text: str) -> list[int]:
        return tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids

    def encoded(name: str, texts: list[str]) -> np.ndarray[Any, Any]:
        path = args.work / f"{name}.npy"
        if not path.exists():
            np.save(path, np.concatenate([np.array([*encode(text), 1], dtype=np.uint16) for text in texts]))
        return np.load(path)

    book_ids, code_ids = encoded("books", books), encoded("code", [stdlib])
    short = {word for book in books[:12] for word in book.split() if 3 <= len(word) <= 9}
    words = sorted(word for word in short if word.isalpha() and word.isascii() and word.islower())
    recall = RecallGenerator(encode=encode, filler=book_ids, words=np.array(words), eos=1)
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = LlamaForCausalLM(model_config()).to(device)  # type: ignore[arg-type] # transformers' wrapper of `to` hides its type
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.2f}M parameters, {config.steps} steps on {device}")
    print(f"{len(book_ids) / 1e6:.1f}M book and {len(code_ids) / 1e6:.1f}M code tokens")
    valid = "\n\n".join(read_books(args.data / "valid"))
    evaluate = bits_per_byte(tokenizer, valid)
    pretrain(model, Mixture(book_ids, code_ids, recall, config, args.seed), config, args.work, evaluate=evaluate)
    out = args.out or args.work / "model"
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    facts = {
        "books": f"{len(book_ids) / 1e6:.1f}M", "code": f"{len(code_ids) / 1e6:.1f}M", "window": WINDOW, "vocabulary": VOCABULARY,
        "shares": ", ".join(f"{name} {first:.0%} then {then:.0%}" for name, (first, then) in SHARES.items()),
        "first_part": f"{FIRST_PART:.0%}", "device": device, "note": args.note,
    }  # fmt: skip
    write_card(out, args.work, config, valid, facts)


if __name__ == "__main__":
    main()
