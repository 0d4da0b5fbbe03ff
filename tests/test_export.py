"""ONNX: what is written answers as the network does."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from firstlight import export
from firstlight.errors import MissingExtra, ModelError
from firstlight.export import NEEDED, to_onnx
from firstlight.inference import predict, ready
from firstlight.model_file import Model, new

MISSING = [name for name in NEEDED if find_spec(name) is None]
extra = pytest.mark.skipif(bool(MISSING), reason=f"the optional extra onnx is not installed: {', '.join(MISSING)}")


def model() -> Model:
    torch.manual_seed(2)
    return new("lean", {"inputs": 2, "widths": [4, 6]}, command="test")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_onnx(model(), tmp_path_factory.mktemp("onnx") / "m.onnx")


@extra
@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own calls
def test_parity_at_another_size(written: Path) -> None:
    import onnxruntime

    made = model()
    session = onnxruntime.InferenceSession(str(written), providers=["CPUExecutionProvider"])
    z = np.random.default_rng(3).normal(8, 2, (1, 36, 52)).astype(np.float32)
    mean, log_variance = session.run(None, {"z": z[None]})
    wanted, wanted_log = predict(made, z, net=ready(made.net, bf16=False))
    np.testing.assert_allclose(mean[0], wanted, atol=1e-5)
    np.testing.assert_allclose(log_variance[0], wanted_log, atol=1e-5)
    about = json.loads(session.get_modelmeta().custom_metadata_map["firstlight"])
    assert about["halo"] == made.halo
    assert about["card"]["command"] == "test"


@extra
@pytest.mark.filterwarnings("ignore")
def test_a_graph_that_differs_is_not_kept(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_graph", lambda *_: written.read_bytes())
    made = model()
    with torch.no_grad():
        made.net.last.weight.mul_(1.5)
    with pytest.raises(ModelError, match="differs from the network"):
        to_onnx(made, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_without_the_extra_its_name_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "NEEDED", ("no_such_package",))
    with pytest.raises(MissingExtra, match=r"firstlight\[onnx\]"):
        to_onnx(model(), tmp_path / "m.onnx")


def on_mosaics(name: str, config: dict[str, int]) -> Model:
    torch.manual_seed(5)
    scaling = {"domain": "mosaic", "prefilter": "zero", "pattern": [[0, 1], [1, 2]]}
    return new(name, config, scaling=scaling)


KINDS = [("packed", {"pack": 6, "width": 4, "depth": 1}), ("mosaic-unet", {"base": 2})]


@pytest.mark.parametrize(("name", "config"), KINDS)
@pytest.mark.filterwarnings("ignore")
def test_what_is_written_of_a_network_on_mosaics_takes_any_size(name: str, config: dict[str, int], tmp_path: Path) -> None:
    """The traced program, which ONNX is translated from, answers as the network does at a size that it was not traced at."""
    made = on_mosaics(name, config)
    whole = export._whole(tmp_path, made).eval()
    with torch.inference_mode(False):
        program = torch.export.export(
            whole, export._samples(made, whole, 3), dynamic_shapes=export._sizes(made, whole), strict=False
        )
    samples = export._samples(made, whole, 5)
    with torch.no_grad():
        [found], [wanted] = program.module()(*samples), whole(*samples)
    assert found.shape[1:] == (3, *(n * made.multiple for n in (5, 6)))
    assert float((found - wanted).abs().max()) < 1e-5


def test_a_packed_network_is_written_as_demosaicking_runs_it(tmp_path: Path) -> None:
    from firstlight import Mosaic, cfa
    from firstlight.geometry import XTRANS
    from firstlight.restore import lmmse, packed

    made = on_mosaics(*KINDS[0])
    weights, _ = lmmse.filters(np.array(XTRANS), (0.01,) * 3)
    samples = np.random.default_rng(2).random((30, 36), dtype=np.float32)
    wide, _ = cfa.extend(samples, Mosaic(XTRANS), ((6, 6), (6, 6)))
    base = packed.demosaicked(samples, Mosaic(XTRANS), weights, (0.01,) * 3)
    given = (torch.from_numpy(wide)[None, None], torch.from_numpy(base)[None], torch.full((1, 3), 0.01))
    with torch.inference_mode():
        [found] = export._whole(tmp_path, made)(*given)
    wanted = packed.demosaicked(samples, Mosaic(XTRANS), weights, (0.01,) * 3, net=made.net, bf16=False)
    assert np.abs(found[0].numpy() - wanted).max() < 1e-5
    assert np.abs(base - wanted).max() > 1e-4


@extra
@pytest.mark.parametrize(("name", "config"), KINDS)
@pytest.mark.filterwarnings("ignore")
def test_parity_of_networks_on_mosaics(name: str, config: dict[str, int], tmp_path: Path) -> None:
    """`to_onnx` compares at two sizes and keeps nothing that differs."""
    assert to_onnx(on_mosaics(name, config), tmp_path / "m.onnx").stat().st_size > 0


def test_another_network_on_mosaics_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"network 'lean' on mosaics, expected packed or mosaic-unet"):
        export._whole(tmp_path, on_mosaics("lean", {"inputs": 1, "widths": [4, 6]}))
