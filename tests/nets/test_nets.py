"""The table of networks."""

from __future__ import annotations

import pytest

from firstlight.errors import ModelError
from firstlight.nets import NETS, build


@pytest.mark.parametrize("name", NETS)
def test_every_network_says_its_halo_and_multiple(name: str) -> None:
    net = build(name)
    assert net.halo > 0
    assert net.multiple >= 1


def test_only_the_table_is_built() -> None:
    with pytest.raises(ModelError, match="expected one of lean, mosaic-unet, packed, seed"):
        build("os.system")
    with pytest.raises(ModelError, match="refuses the configuration"):
        build("lean", depth=9)
    with pytest.raises(ModelError, match="refuses the configuration"):
        build("lean", widths="wide")
