"""Model files: round trip, and everything that is no such file refused in words."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import pytest
import torch

from firstlight import model_file
from firstlight.errors import ModelError, WriteError
from firstlight.model_file import KEY, from_checkpoint, load, new, save

SMALL = {"inputs": 2, "widths": [4, 6]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    data = [{"name": "simulated", "licence": "BSD-3-Clause"}]
    return save(new("lean", SMALL, data=data, command="train", seed=7, figures={"psnr": 31.5}), tmp_path / "m.safetensors")


def edited(path: Path, change: dict | str) -> Path:
    """The same weights under another card: `change` laid over the header, or in its place."""
    raw = path.read_bytes()
    (n,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + n])
    text = change if isinstance(change, str) else json.dumps(json.loads(header["__metadata__"][KEY]) | change)
    header["__metadata__"][KEY] = text
    body = json.dumps(header).encode()
    body += b" " * (-len(body) % 8)
    path.write_bytes(struct.pack("<Q", len(body)) + body + raw[8 + n :])
    return path


def test_round_trip(path: Path) -> None:
    torch.manual_seed(1)
    first, again = new("lean", SMALL), load(path)
    x = torch.randn(1, 2, 16, 16)
    assert torch.equal(first.net(x), again.net(x))
    assert first.digest() == again.digest()
    assert (again.axes, again.multiple, dict(again.scaling)) == ("YX", 4, model_file.STABILISED)
    assert again.halo == again.net.halo + 4  # the local mean of 9 px
    assert again.card["figures"] == {"psnr": 31.5}
    assert again.card["seed"] == 7
    assert again.card["data"][0]["licence"] == "BSD-3-Clause"
    assert not again.net.training
    with torch.no_grad():
        next(again.net.parameters()).mul_(2)
    assert first.digest() != again.digest()


def test_buffers_travel(tmp_path: Path) -> None:
    model = new("seed", {"channels": 1, "base": 2}, scaling=model_file.PERCENTILE)
    model.net(torch.rand(1, 1, 32, 32))  # moves BatchNorm's running mean
    again = load(save(model, tmp_path / "s.safetensors"))
    assert torch.equal(model.net.state_dict()["middle.1.running_mean"], again.net.state_dict()["middle.1.running_mean"])
    assert again.halo == 107


@pytest.mark.parametrize("keep", [0, 4, 100, 2000, -1])
def test_truncated_files_are_refused(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "newer firstlight"),
        ("[1]", "no JSON object"),
        ("{", "no JSON object"),
        ({"halo": "51"}, "card is wrong at halo"),
        ({"extra": 1}, "card is wrong at extra"),
        ({"card": {}}, "card is wrong at net"),
        ({"card": {"net": {"name": "lean", "config": {"inputs": 3}}}}, "belong to different models"),
        ({"card": {"net": {"name": "lean", "config": {"widths": [10**6, 10**6]}}}}, "belong to different models"),
        ({"card": {"net": {"name": "subprocess.run", "config": {}}}}, "expected one of lean, mosaic-unet, packed, seed"),
        ({"halo": 3}, "halo 3"),
        ({"multiple": 3}, "multiple 3"),
        ({"multiple": 0}, "multiple 0"),
        ({"scaling": {"domain": "wavelets"}}, "expected domain"),
        ({"axes": "XY"}, "axes 'YX' or 'ZYX'"),
    ],
)
def test_wrong_cards_are_refused(path: Path, change: dict | str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load(edited(path, change))


def test_foreign_files_are_refused(tmp_path: Path, path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(ModelError, match="no such file"):
        load(tmp_path / "absent.safetensors")
    save_file({"x": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="without firstlight's card"):
        load(tmp_path / "other.safetensors")
    torch.save({}, tmp_path / "x.pt")
    with pytest.raises(ModelError, match="from_checkpoint"):
        load(tmp_path / "x.pt")
    (tmp_path / "text.safetensors").write_text("not a model at all")
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load(tmp_path / "text.safetensors")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = new("lean", SMALL)
    with torch.no_grad():
        next(model.net.parameters())[0] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        load(save(model, tmp_path / "nan.safetensors"))


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"ends in \.safetensors"):
        save(new("lean", SMALL), tmp_path / "m.pt")
    with pytest.raises(ModelError, match="JSON cannot"):
        save(new("lean", SMALL, figures={"psnr": float("nan")}), tmp_path / "m.safetensors")
    (tmp_path / "taken.safetensors").mkdir()
    with pytest.raises(WriteError):
        save(new("lean", SMALL), tmp_path / "taken.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["taken.safetensors"]  # nothing half-written is left


def documented_state(channels: int = 1, base: int = 2) -> dict[str, torch.Tensor]:
    """A checkpoint's names as document 3's network gives them: enc1 .. enc4, bott, up4, dec4 .. dec1, head."""
    torch.manual_seed(3)
    names = {f"encode.{i}": f"enc{i + 1}" for i in range(4)} | {"middle": "bott", "last": "head"}
    names |= {f"{own}.{i}": f"{old}{4 - i}" for i in range(4) for own, old in (("up", "up"), ("decode", "dec"))}
    state = new("seed", {"channels": channels, "base": base}, scaling=model_file.PERCENTILE).net.state_dict()
    return {next(new + k[len(old) :] for old, new in names.items() if k.startswith(old + ".")): v for k, v in state.items()}


def test_a_documented_checkpoint_is_converted(tmp_path: Path) -> None:
    state = documented_state()
    assert "enc1.0.weight" in state
    assert "up4.bias" in state
    torch.save({"model": state, "epoch": 3}, tmp_path / "ckpt_3352.pt")
    model = from_checkpoint(tmp_path / "ckpt_3352.pt")
    found = model.net.state_dict()
    assert torch.equal(found["up.0.weight"], state["up4.weight"])
    assert torch.equal(found["decode.3.3.weight"], state["dec1.3.weight"])
    assert torch.equal(found["middle.4.running_var"], state["bott.4.running_var"])
    assert dict(model.scaling)["domain"] == "percentile"
    assert load(save(model, tmp_path / "m.safetensors")).digest() == model.digest()


class Trap:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("trapped"),))


def test_a_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": documented_state(), "extra": Trap()}, "trap.pt")
    with pytest.raises(ModelError, match="cannot be read as plain weights"):
        from_checkpoint("trap.pt")
    assert not Path("trapped").exists()


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    for content, words in (
        ({"model": {"layer.weight": torch.zeros(2)}}, "expected enc1 to enc4"),
        ({"model": 3}, "without a table of weights"),
        ({"model": documented_state() | {"enc2.0.weight": torch.zeros(1)}}, "belong to different models"),
    ):
        torch.save(content, tmp_path / "c.pt")
        with pytest.raises(ModelError, match=words):
            from_checkpoint(tmp_path / "c.pt")
    (tmp_path / "c.pt").write_bytes((tmp_path / "c.pt").read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be read"):
        from_checkpoint(tmp_path / "c.pt")
    with pytest.raises(ModelError, match="no such file"):
        from_checkpoint(tmp_path / "absent.pt")


def test_a_network_of_too_few_inputs_is_refused() -> None:
    with pytest.raises(ModelError, match="takes 1 input, prefilter 'mean' makes 2"):
        new("seed", {"channels": 1, "base": 2})


def test_an_interruption_is_not_taken_for_a_damaged_file(path: Path) -> None:
    """Wherever it falls in the reading: before every fifth call of a Python function."""
    calls = 0

    def interrupt(at: int) -> bool:
        nonlocal calls
        calls = 0

        def count(frame: object, event: str, arg: object) -> None:
            nonlocal calls
            calls += event == "call"
            if calls == at:
                raise KeyboardInterrupt

        sys.setprofile(count)
        try:
            model_file._read(path)
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return False

    load(path)
    assert not interrupt(-1)
    for at in range(1, calls, 5):
        assert interrupt(at)
