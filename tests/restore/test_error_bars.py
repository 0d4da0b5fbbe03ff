"""The table that corrects log-variances: linear between knots, constant beyond, refused where it is none."""

import numpy as np
import pytest

from firstlight.errors import ModelError
from firstlight.restore.error_bars import KEY, calibrated

TABLE = {"level": [2.0, 8.0, 32.0], "log_variance": [-4.0, -2.0], "log_scale": [[0.1, 0.2], [0.3, -0.4], [0.0, 0.5]]}


def test_between_knots_it_is_linear_and_beyond_constant() -> None:
    mean = np.array([[2.0, 4.0, 8.0, 1e5, -3.0, 32.0]], np.float32)
    spread = np.array([[-4.0, -4.0, -3.0, -9.0, 5.0, -2.0]], np.float32)
    given = spread.copy()
    want = [0.1, 0.2, -0.05, 0.0, 0.2, 0.5]
    np.testing.assert_allclose(calibrated({KEY: TABLE}, mean, spread) - spread, 2 * np.array([want]), atol=1e-5)
    np.testing.assert_array_equal(spread, given)


def test_without_a_table_nothing_changes() -> None:
    spread = np.zeros((3, 3), np.float32)
    assert calibrated({"domain": "stabilised"}, spread, spread) is spread


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": [2.0, 1.0, 3.0]},
        {"log_variance": [-4.0]},
        {"log_scale": [[0.1, 0.2]]},
        {"level": None},
        {"level": [0.0, 1, 2]},
    ],
)
def test_what_is_no_table_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="calibrate_error_bars"):
        calibrated({KEY: TABLE | wrong}, np.ones((2, 2)), np.ones((2, 2)))


def test_a_table_of_texts_is_refused() -> None:
    with pytest.raises(ModelError):
        calibrated({KEY: "wide"}, np.ones((2, 2)), np.ones((2, 2)))
