"""Themes: what many pictures have in common, told by groups of alike vectors and by the words that these pictures share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from discovery.core.alike import Grouping, group_alike

GROUPED_AT_ONCE = 3000  # vectors, whose distances to each other are 36 MB
LEAST_SHARE = 0.3  # of a theme that has a word
WORDS_LEVEL = 0.01  # chance that any word is called telling which is none
MOST_WORDS = 3
WIDTH = 0.8  # of the median distance of two pictures
USUAL_ROWS = 1000  # pictures that are enough for this median
LONGEST_WORD = 40  # characters of a value that may be a label


def themes(vectors: NDArray[np.float32], ids: NDArray[np.bytes_], within: float) -> Grouping:
    """`group_alike` for any number of vectors: those with the smallest ids are grouped, the others join the nearest exemplar within reach.

    vectors: (n, d) unit rows, ids: (n,) S64. within: mean cosine distance inside a theme. Those that are in no reach are grouped by themselves in the
    same way. Does not depend on the order of the rows. Memory: n and 3,000² floats.
    """
    order = np.argsort(ids, kind="stable")
    group = np.full(len(ids), -1, np.int64)
    exemplars: list[int] = []
    left = order
    while len(left):
        first, rest = left[:GROUPED_AT_ONCE], left[GROUPED_AT_ONCE:]
        found = group_alike(vectors[first], ids[first], within)
        group[first] = found.group + len(exemplars)
        middles = first[found.exemplars]
        joined = np.zeros(len(rest), np.bool_)
        for start in range(0, len(rest), GROUPED_AT_ONCE):
            part = rest[start : start + GROUPED_AT_ONCE]
            apart = 1.0 - vectors[part] @ vectors[middles].T
            nearest = apart.argmin(axis=1)
            near = apart[np.arange(len(part)), nearest] <= within
            group[part[near]] = nearest[near] + len(exemplars)
            joined[start : start + len(part)] = near
        exemplars.extend(middles.tolist())
        left = rest[~joined]
    sizes = np.bincount(group, minlength=len(exemplars))
    smallest = [min((ids[row] for row in np.flatnonzero(group == one)), default=b"") for one in range(len(exemplars))]
    ranked = sorted(range(len(exemplars)), key=lambda one: (-sizes[one], smallest[one]))
    number = np.empty(len(exemplars), np.int64)
    number[ranked] = np.arange(len(ranked))
    return Grouping(number[group], np.array([exemplars[one] for one in ranked], np.int64))


def theme_width(usual: NDArray[np.float32]) -> float:
    """The mean cosine distance inside a theme of pictures as these: .8 of the median distance of two of them, so that the unit is the encoder's own.

    usual: (m, d) unit rows, some thousand at most. 0 for fewer than two. At half the median 170 stamps of animals are 155 themes, at .8 they are 53.
    """
    apart = (1.0 - usual @ usual.T)[np.triu_indices(len(usual), 1)]
    return WIDTH * float(np.median(apart)) if len(apart) else 0.0


def telling_words(inside: Sequence[frozenset[str]], everywhere: Sequence[frozenset[str]]) -> list[tuple[str, int]]:
    """Up to three words that stand for a theme, the most telling first, each with how many of its pictures have it.

    inside: the words of each of its pictures, which are among those of `everywhere`. A word counts when a third of them have it, and
    more than chance gives: hypergeometric test at 1 %, corrected for the number of words.

    >>> boats, cars = [frozenset({"boat", "png"})] * 8, [frozenset({"car", "png"})] * 80
    >>> telling_words(boats, boats + cars)
    [('boat', 8)]
    """
    from scipy.stats import hypergeom

    own, all_of = Counter(word for words in inside for word in words), Counter(word for words in everywhere for word in words)
    found = []
    for word, count in own.items():
        if count >= LEAST_SHARE * len(inside) and count > 1:
            p = float(hypergeom.sf(count - 1, len(everywhere), all_of[word], len(inside)))
            if p * len(own) <= WORDS_LEVEL:
                found.append((p, -count, word))
    return [(word, -count) for _, count, word in sorted(found)[:MOST_WORDS]]
