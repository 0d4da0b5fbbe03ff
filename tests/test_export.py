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
