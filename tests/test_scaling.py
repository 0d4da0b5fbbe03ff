import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from firstlight.errors import FrameError
from firstlight.frame import Frame, Observation, Unit
from firstlight.noise import Noise, Unmodelled
from firstlight.scaling import Scaling, scale, unscale


@given(st.floats(-100, 2e5, width=32), st.sampled_from([(80000.0, 0.0), (66000.0, 0.0), (170.0, 5.0)]))
def test_inverse_within_two_ulp(x: float, row: tuple[float, float]) -> None:
    assume(x == 0 or abs(x) > 1e-30)  # scaled, it must not underflow float32
    s = Scaling(*row)
    back = s.invert(s.apply(np.float32(x)))
    assert abs(float(back) - x) <= 2 * np.spacing(np.float32(max(abs(x), s.offset)))


@pytest.mark.parametrize("row", [(80000.0, 0.0), (66000.0, 0.0), (3.0, 0.0), (7e-3, 0.0), (0.1, 0.0), (170.0, 5.0)])
def test_scaled_values_are_rounded_once(row: tuple[float, float]) -> None:
    s, rng = Scaling(*row), np.random.default_rng(7)
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    tie = (rng.integers(0, 2**25, 100_000) * row[0]).astype(np.float32)
    tiny = (np.arange(-50_000, 50_000) * 1.4e-45 * row[0]).astype(np.float32)  # scaled, subnormal
    x = np.concatenate([bits[np.isfinite(bits)], tie, tiny])
    with np.errstate(over="ignore"):
        expected = ((x.astype(np.float64) + (row[1] or -0.0)) / row[0]).astype(np.float32)  # -0 + 0 were 0
        found = s.apply(x)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
    assert s.apply(np.float32(8.0)).shape == ()


def test_zero_scale_is_refused() -> None:
    with pytest.raises(FrameError, match="positive"):
        Scaling(0.0)


def electrons(**more) -> Frame:
    about = Observation(saturation=np.array([[1000.0, 900.0]]))
    given = {"noise": Noise(1.0, 9.0, 2.0, c=1e-4, d=0.5), "std": np.full((1, 4), 3.0), "observation": about} | more
    return Frame(np.arange(12.0).reshape(3, 4), "YX", Unit.ELECTRON, **given)


def test_scale_takes_noise_std_and_saturation_along_and_unscale_brings_them_back() -> None:
    frame = electrons()
    done = scale(frame, scale=170.0, offset=5.0)
    assert (done.unit, done.data.dtype) == (Unit.ARBITRARY, np.float32)
    assert done.data == pytest.approx((frame.data + 5) / 170)
    assert done.noise.variance((frame.data + 5) / 170) == pytest.approx(frame.noise.variance(frame.data) / 170**2)
    assert done.noise.offset == pytest.approx(7 / 170)
    assert done.std == pytest.approx(np.full((1, 4), 3 / 170))
    assert done.observation.saturation == pytest.approx(np.array([[1005.0, 905.0]]) / 170)
    assert done.history[-1].params == {"scale": 170.0, "offset": 5.0}
    back = unscale(done, scale=170.0, offset=5.0)
    assert back.unit is Unit.ELECTRON
    assert back.data == pytest.approx(frame.data, abs=1e-5)
    assert back.noise.variance(frame.data) == pytest.approx(frame.noise.variance(frame.data))
    assert back.std == pytest.approx(frame.std)
    assert back.observation.saturation == pytest.approx(frame.observation.saturation)


def test_scale_needs_electrons_and_invents_nothing() -> None:
    plain = scale(electrons(noise=Unmodelled("why"), std=None, observation=Observation()), scale=2.0)
    assert (plain.noise.reason, plain.std, plain.observation.saturation) == ("why", None, None)
    with pytest.raises(FrameError, match="expected electron"):
        scale(plain, scale=2.0)
    with pytest.raises(FrameError, match="expected arbitrary"):
        unscale(electrons(), scale=2.0)
