"""The demo on files of the user's own."""

from pathlib import Path

import numpy as np

from firstlight import Frame, Noise, Unit, demo, io


def test_the_maps_beside_a_file_are_no_inputs(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    read_noise = np.full((48, 48), 4.0, dtype=np.float32)
    read_noise[5, 7] = 90.0
    flags = np.zeros((48, 48), dtype=np.uint8)
    flags[5, 7] = 4
    counts = (100 + 3 * rng.standard_normal((48, 48))).astype(np.float32)
    (tmp_path / "mine").mkdir()
    io.write(Frame(counts, "YX", Unit.ELECTRON, Noise(1.0, read_noise), flags=flags), tmp_path / "mine" / "a.npy")
    assert len(list((tmp_path / "mine").glob("*.npy"))) == 3
    rows, _, _ = demo.run(tmp_path / "out", tmp_path / "mine", detector=None, tick=lambda done, total, what: None)
    assert [Path(r["file"]).name for r in rows] == ["a.npy"]
