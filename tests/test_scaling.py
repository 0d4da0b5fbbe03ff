import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from firstlight.errors import FrameError
from firstlight.scaling import Scaling


@given(st.floats(-100, 2e5, width=32), st.sampled_from([(80000.0, 0.0), (66000.0, 0.0), (170.0, 5.0)]))
def test_inverse_within_two_ulp(x: float, row: tuple[float, float]) -> None:
    assume(x == 0 or abs(x) > 1e-30)  # scaled, it must not underflow float32
    s = Scaling(*row)
    back = s.invert(s.apply(np.float32(x)))
    assert abs(float(back) - x) <= 2 * np.spacing(np.float32(max(abs(x), s.offset)))


def test_zero_scale_is_refused() -> None:
    with pytest.raises(FrameError, match="positive"):
        Scaling(0.0)
