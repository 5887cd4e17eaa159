"""Projections: the axes of a reference that was made with known axes, whitening in between, and what is refused."""

import numpy as np
import pytest

from discovery.core.projection import fit_projection
from discovery.errors import InvalidInput


def ellipsoid(n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """(n, 5) with standard deviations 8, 4, 2, 1, .5 around a mean, turned by a known rotation, and that rotation."""
    rng = np.random.default_rng(2)
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    return (rng.normal(size=(n, 5)) * [8, 4, 2, 1, 0.5] @ turn.T + 3).astype(np.float32), turn


def test_the_axes_and_their_variances_are_those_the_reference_was_made_with():
    vectors, turn = ellipsoid()
    fitted = fit_projection(vectors, 3, 0.0)
    assert np.abs((fitted.axes * turn[:, :3]).sum(axis=0)).min() > 0.999  # parallel, whichever way round
    assert np.sqrt(fitted.variances) == pytest.approx([8, 4, 2], rel=0.05)
    assert fitted.explained == pytest.approx((64 + 16 + 4) / (64 + 16 + 4 + 1 + 0.25), abs=0.01)
    assert fitted.mean == pytest.approx(vectors.mean(axis=0), abs=1e-4)


@pytest.mark.parametrize(("whitening", "spread"), [(0.0, [8, 4, 2]), (0.5, [8**0.5, 4**0.5, 2**0.5]), (1.0, [1, 1, 1])])
def test_whitening_takes_as_much_of_the_spread_as_it_says(whitening, spread):
    vectors, _ = ellipsoid()
    fitted = fit_projection(vectors, 3, whitening)
    assert ((vectors - fitted.mean) @ fitted.axes).std(axis=0) == pytest.approx(spread, rel=0.05)


def test_projected_vectors_have_length_1_and_the_mean_itself_too():
    vectors, _ = ellipsoid(100)
    fitted = fit_projection(vectors, 4, 0.5)
    projected = fitted(np.concatenate([vectors, fitted.mean[np.newaxis]]))
    assert projected.shape == (101, 4) and projected.dtype == np.float32
    assert np.linalg.norm(projected, axis=1) == pytest.approx(np.ones(101), abs=1e-6)


def test_all_dimensions_without_whitening_keep_every_distance_from_the_mean():
    vectors, _ = ellipsoid(200)
    fitted = fit_projection(vectors, 5, 0.0)
    centred = vectors - vectors.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert fitted(vectors) @ fitted(vectors).T == pytest.approx(unit @ unit.T, abs=1e-4)
    assert fitted.explained == pytest.approx(1.0)


def test_the_order_of_the_reference_does_not_turn_the_axes():
    vectors, _ = ellipsoid(500)
    forward, backward = fit_projection(vectors, 3, 1.0), fit_projection(vectors[::-1].copy(), 3, 1.0)
    assert forward.axes == pytest.approx(backward.axes, abs=1e-5)


def test_more_dimensions_than_there_are_or_vary_are_refused():
    vectors, _ = ellipsoid(50)
    flat = vectors * np.float32([1, 1, 0, 0, 0])
    for reference, dim, text in ((vectors, 6, "1 to 5"), (vectors, 0, "1 to 5"), (vectors[:3], 3, "there are 3"), (flat, 3, "varies along 2 axes")):
        with pytest.raises(InvalidInput, match=text):
            fit_projection(reference, dim, 0.0)
    with pytest.raises(InvalidInput, match="varies along 0 axes"):
        fit_projection(np.ones((9, 4), np.float32), 1, 0.0)
