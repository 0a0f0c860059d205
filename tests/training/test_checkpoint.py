import pytest
import torch

from longreach.training.checkpoint import load_checkpoint, save_checkpoint


def test_what_is_saved_is_loaded(tmp_path):
    save_checkpoint(tmp_path / "deep" / "state.pt", {"step": 3, "weights": torch.arange(4)})
    state = load_checkpoint(tmp_path / "deep" / "state.pt")
    assert state["step"] == 3
    assert torch.equal(state["weights"], torch.arange(4))


def test_no_checkpoint_is_none(tmp_path):
    assert load_checkpoint(tmp_path / "state.pt") is None


def test_a_kill_while_saving_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    save_checkpoint(path, {"step": 1})

    def half(state, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("longreach.training.checkpoint.torch.save", half)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]
