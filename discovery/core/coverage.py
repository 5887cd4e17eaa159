"""What of one set has nothing like it in another: distances to the nearest there, against what is usual within that other set."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from discovery.core.binomial import share_lower_bound
from discovery.errors import EmptyReference, InvalidInput


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which of n rows lie farther from a set than the set's own members lie from each other.

    is_lacking: (n,) bool, in the order of the distances. threshold: the distance beyond which nothing is alike. by_chance: share that would
    be lacking if the rows were drawn as the set was. is_more_than_chance: with a confidence of 95 %, more is lacking than that.
    """

    is_lacking: NDArray[np.bool_]
    threshold: float
    by_chance: float
    is_more_than_chance: bool

    @property
    def share(self) -> float:
        """Of the rows, in [0, 1]; 0 when there are none."""
        return float(self.is_lacking.mean()) if len(self.is_lacking) else 0.0


def coverage(distances: NDArray[np.float32], own: NDArray[np.float32], usual: float) -> Coverage:
    """Which rows have nothing like them in a set, judged by the distances that are usual within it.

    distances: (n,) from each row to its nearest member of the set. own: (r,) from members to their nearest other member. usual: in (0, 1),
    share of the members that are within the threshold, such as .99. The threshold is the ceil((r + 1) usual)-th smallest of `own`, and for
    few members the largest; a row drawn as the members were is beyond it in by_chance = 1 - rank / (r + 1) of the cases (up to one
    more member in the set, whose effect is 1/r). Copies among the members must be left out, or `own` is too small.

    It is the recall of Kynkäänniemi et al. 2019 ("Improved precision and recall metric") and the coverage of Naeem et al. 2020 ("Reliable
    fidelity and diversity metrics") turned round, to name what is not covered; they take a radius around each member, which a lonely member
    makes large, this is one radius for all, from all. Raises EmptyReference for less than two own distances, InvalidInput for NaN.

    >>> found = coverage(np.array([0.1, 0.5], np.float32), np.linspace(0.1, 0.3, 99, dtype=np.float32), 0.99)
    >>> found.is_lacking.tolist(), round(found.threshold, 3), round(found.by_chance, 3)
    ([False, True], 0.3, 0.01)
    """
    if len(own) < 2:
        raise EmptyReference(f"{len(own)} members cannot say what is usual among them. Compare with a set of at least two.")
    if not 0 < usual < 1 or np.isnan(own).any() or np.isnan(distances).any():
        raise InvalidInput(f"Expected a share within (0, 1) and no NaN, found usual = {usual}.")
    rank = min(len(own), math.ceil(round((len(own) + 1) * usual, 9)))
    threshold = float(np.partition(own, rank - 1)[rank - 1])
    is_lacking = distances > threshold
    by_chance = 1 - rank / (len(own) + 1)
    lower = share_lower_bound(int(is_lacking.sum()), len(distances)) if len(distances) else 0.0
    return Coverage(is_lacking, threshold, by_chance, lower > by_chance)
