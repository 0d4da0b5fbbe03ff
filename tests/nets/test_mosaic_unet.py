"""The documented X-Trans pipeline's U-Net."""

import pytest
import torch

from firstlight.nets import MosaicUNet


@pytest.mark.parametrize(("base", "count"), [(16, 1_942_755), (32, 7_763_395), (64, 31_038_339)])
def test_it_has_the_documented_number_of_parameters(base: int, count: int) -> None:
    assert sum(p.numel() for p in MosaicUNet(base).parameters()) == count


def test_four_planes_become_three() -> None:
    assert MosaicUNet(2)(torch.rand(2, 4, 32, 48)).shape == (2, 3, 32, 48)
