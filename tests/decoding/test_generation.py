import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from longreach.core.errors import InputError
from longreach.core.progress import Progress
from longreach.decoding import generation
from longreach.decoding.generation import end_tokens, prompt_ids, text, tokens
from longreach.decoding.sampling import Sampling
from longreach.engine.apply import apply
from tests.checkpoints.folders import TEMPLATE, byte_tokenizer, tiny

WORDS = "né 🙂 漢字 \U0001f468\u200d\U0001f469\u200d\U0001f467 end"


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="module")
def ids(tokenizer):
    return prompt_ids(tokenizer, "once upon a time there was a model that was tiny")


# ids


@pytest.mark.parametrize("family", ["llama", "gemma3", "mistral"])
def test_greedy_is_that_of_transformers(family, ids):
    model = tiny(family)
    model.generation_config.eos_token_id = None
    expected = model.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :].tolist()
    assert list(tokens(model, ids, max_new_tokens=24)) == expected
    assert list(tokens(model, ids, max_new_tokens=24, chunk_size=7)) == expected


def test_sampling_is_that_of_transformers(model, ids):
    """Drawn often, tokens come as often as the probabilities of transformers' own `generate` say."""
    sampling = {"temperature": 1.5, "top_k": 6, "top_p": 0.8}
    out = model.generate(ids, max_new_tokens=1, do_sample=True, **sampling, return_dict_in_generate=True, output_scores=True)
    expected = out.scores[0][0].softmax(-1) * 2000
    choose = generation.chooser(Sampling(**sampling, seed=0), torch.device("cpu"))
    logits = model(ids).logits[:, -1]
    drawn = torch.bincount(torch.tensor([int(choose(logits)) for _ in range(2000)]), minlength=expected.numel())
    possible = expected > 0
    assert 1 < possible.sum() < 6, "top-p is felt"
    assert not drawn[~possible].any()
    assert ((drawn - expected)[possible] ** 2 / expected[possible]).sum() < 25, "chi square of at most 5 degrees of freedom"


def test_a_seed_repeats_itself(model, ids):
    def drawn(seed):
        return list(tokens(model, ids, max_new_tokens=20, sampling=Sampling(temperature=2, seed=seed)))

    once, again, other = drawn(1), drawn(1), drawn(2)
    assert once == again
    assert once != other


@pytest.mark.parametrize("several", [False, True])
def test_it_stops_at_the_end_token(model, ids, several, monkeypatch):
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    usual = list(tokens(model, ids, max_new_tokens=12))
    stop = usual[6]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [263, stop] if several else stop)
    assert list(tokens(model, ids, max_new_tokens=12)) == usual[: usual.index(stop)]
    assert list(tokens(model, ids, max_new_tokens=None)) == usual[: usual.index(stop)]


def test_end_tokens(model, monkeypatch):
    assert end_tokens(model) == {2}
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    assert end_tokens(model) == {2}, "then the config says"
    monkeypatch.setattr(model.config, "eos_token_id", None)
    assert end_tokens(model) == set()


def test_nothing_is_computed_for_tokens_that_are_not_wanted(model, ids, monkeypatch):
    calls = []
    monkeypatch.setattr(model, "forward", lambda *args, real=model.forward, **kwargs: calls.append(1) or real(*args, **kwargs))
    assert len(list(tokens(model, ids, max_new_tokens=3))) == 3
    assert len(calls) == 3


def test_prefill_tells_how_far_it_is(model, ids):
    class Told(Progress):
        def __init__(self):
            self.told = []

        def start(self, label, total):
            self.told.append((label, total))

        def advance(self, tokens):
            self.told.append(tokens)

    progress, total = Told(), ids.shape[1]
    next(tokens(model, ids, max_new_tokens=5, chunk_size=20, progress=progress))
    assert progress.told == [("reading", total), 20, 20, total - 40]


def bytes_in(thing, seen):
    """Of all tensors that can be reached from a thing."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return thing.untyped_storage().nbytes()
    if isinstance(thing, torch.nn.Module):
        return 0
    inside = list(thing.values()) if isinstance(thing, dict) else list(thing) if isinstance(thing, list | tuple | set) else []
    inside += [*getattr(thing, "__dict__", {}).values(), *(getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ()))]
    return sum(bytes_in(each, seen) for each in inside)


def test_memory_is_bounded_under_a_bounded_method(model, ids, monkeypatch):
    """Far beyond the window, the cache holds no more than before."""
    caches = []
    monkeypatch.setattr(generation, "new_cache", lambda model, real=generation.new_cache: caches.append(real(model)) or caches[0])
    monkeypatch.setattr(model.generation_config, "eos_token_id", [])

    def grows(spec):
        caches.clear()
        with apply(model, spec):
            writing = tokens(model, ids, max_new_tokens=None)
            held = []
            for _ in range(2):
                for _ in range(40):
                    next(writing)
                held.append(bytes_in(caches[0], set()))
        assert caches[0].get_seq_length() == ids.shape[1] + 79
        return held[0] < held[1]

    assert not grows("sinks:num_sinks=4,window_size=8")
    assert grows("full")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"temperature": -1}, r"temperature=-1 must be a number, at least 0"),
        ({"temperature": float("nan")}, r"temperature=nan must be a number, at least 0"),
        ({"temperature": 1, "top_k": 0}, r"top_k=0 must be a whole number, at least 1"),
        ({"temperature": 1, "top_p": 0}, r"top_p=0 must be above 0 and at most 1"),
        ({"temperature": 1, "top_p": 1.5}, r"top_p=1.5 must be above 0 and at most 1"),
        ({"top_k": 5}, r"top_k has no effect on greedy decoding; give a temperature above 0"),
        ({"top_p": 0.5}, r"top_p has no effect on greedy decoding"),
        ({"seed": 5}, r"seed has no effect on greedy decoding"),
    ],
)
def test_sampling_is_checked(settings, says):
    with pytest.raises(InputError, match=says):
        Sampling(**settings)


# text


def test_pieces_are_whole_characters(tokenizer):
    ids = tokenizer(WORDS)["input_ids"]
    pieces = list(text(ids, tokenizer))
    assert "".join(pieces) == WORDS
    assert all(len(piece) == 1 for piece in pieces), "each character comes as soon as its bytes are there"


def test_text_of_any_length_is_that_of_decoding_at_once(tokenizer):
    ids = tokenizer(WORDS * 40)["input_ids"]
    assert "".join(text(ids, tokenizer)) == WORDS * 40


def test_bytes_that_are_no_text_are_shown_and_disturb_nothing(tokenizer):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        noise = torch.randint(3, 259, (150,), generator=generator).tolist()
        joined = "".join(text([*noise, *tokenizer(WORDS)["input_ids"]], tokenizer))
        assert joined == tokenizer.decode([*noise, *tokenizer(WORDS)["input_ids"]])
        assert joined.endswith(WORDS[1:])


def test_an_unfinished_character_comes_out_at_the_end(tokenizer):
    ids = tokenizer("a🙂")["input_ids"]
    assert list(text(ids[:-1], tokenizer)) == ["a", "\ufffd"]
    assert list(text([], tokenizer)) == []


def test_the_replacement_character_itself(tokenizer):
    assert "".join(text(tokenizer("a\ufffdb\ufffd")["input_ids"], tokenizer)) == "a\ufffdb\ufffd"


def test_special_tokens_are_left_out(tokenizer):
    assert "".join(text([1, *tokenizer("hi")["input_ids"], 2], tokenizer)) == "hi"


def test_few_tokens_are_kept(tokenizer, monkeypatch):
    longest = []
    monkeypatch.setattr(
        generation, "_decode", lambda tokenizer, ids, real=generation._decode: longest.append(len(ids)) or real(tokenizer, ids)
    )
    endless_garbage = tokenizer.convert_tokens_to_ids(["Ã"]) * 500  # 0xC3: always the beginning of a character
    assert set("".join(text(endless_garbage, tokenizer))) == {"\ufffd"}
    assert max(longest) <= 2 * generation._PENDING


def test_tokenizers_with_words_and_bytes():
    """The sentencepiece way: a space belongs to the word after it, the first is dropped, and rare characters are byte tokens."""
    vocabulary = ["<unk>", "▁he", "llo", "▁wor", "ld", "é", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary)}, [], unk_token="<unk>", byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    smile = [vocabulary.index(f"<0x{byte:02X}>") for byte in "🙂".encode()]
    ids = [1, 2, 3, 4, *smile, 5, 3] * 30
    pieces = list(text(ids, tokenizer))
    assert "".join(pieces) == tokenizer.decode(ids)
    assert pieces[:6] == ["he", "llo", " wor", "ld", "🙂", "é"]


def test_streamed_text_is_the_text_of_the_tokens(model, tokenizer, ids, monkeypatch):
    monkeypatch.setattr(model.generation_config, "eos_token_id", [])
    expected = tokenizer.decode(list(tokens(model, ids, max_new_tokens=40)), skip_special_tokens=True)
    assert "".join(text(tokens(model, ids, max_new_tokens=40), tokenizer)) == expected


# prompts


def test_prompts_are_whole(tokenizer):
    assert prompt_ids(tokenizer, "ab" * 500).shape == (1, 1000)
    with pytest.raises(InputError, match=r"the prompt is empty"):
        prompt_ids(tokenizer, "")


def test_chat_templates(tokenizer):
    with pytest.raises(InputError, match=r"the tokenizer has no chat template; leave chat \(--chat\) away, or choose a chat model"):
        prompt_ids(tokenizer, "hi", chat=True)
    templated = byte_tokenizer()
    templated.chat_template = TEMPLATE
    assert tokenizer.decode(prompt_ids(templated, "hi", chat=True)[0]) == "<bos>user: hi!"
    assert prompt_ids(templated, "hi", chat=True)[0, 0] == 1
