"""Random draws by id: a salted order that does not depend on where or when a member came in."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from discovery.errors import InvalidInput

ID_DIGITS = 64  # of a SHA-256 in hex


def id_array(ids: list[str] | NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """(n,) fixed-width bytes of asset ids. Raises InvalidInput for one that is not 64 hexadecimal digits long.

    >>> id_array(["ab" * 32]).dtype
    dtype('S64')
    """
    found = np.asarray(ids if len(ids) else np.zeros(0, f"S{ID_DIGITS}"), dtype=np.bytes_)
    if found.dtype.itemsize != ID_DIGITS or (len(found) and (np.char.str_len(found) != ID_DIGITS).any()):
        raise InvalidInput(f"Expected ids of {ID_DIGITS} hexadecimal digits.")
    return found


def salted_order(ids: NDArray[np.bytes_], salt: str) -> NDArray[np.uint64]:
    """(n,) a number for each id by which to sort; another salt gives an order that is unrelated.

    ids: (n,) S64, content hashes in hex, of whose bits any 64 are as good as random. They are mixed with the salt by splitmix64's finaliser, a
    bijection, so that two ids share a number only if they share those 64 bits. Source: Steele, Lea and Flood 2014.
    """
    digits = np.ascontiguousarray(ids).view(np.uint8).reshape(len(ids), ID_DIGITS)[:, :16].astype(np.uint64)
    nibbles = np.where(digits >= 97, digits - 87, digits - 48)  # '0'..'9', 'a'..'f'
    with np.errstate(over="ignore"):
        value = (nibbles << np.arange(60, -1, -4, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
        value ^= np.frombuffer(hashlib.sha256(salt.encode()).digest()[:8], np.uint64)[0]
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(value ^ (value >> np.uint64(31)), np.uint64)


def draw(ids: NDArray[np.bytes_], count: int, salt: str) -> NDArray[np.int64]:
    """Rows of `count` ids (all, when there are fewer), drawn by the salt, in the order drawn.

    Growing a population by a share replaces about that share of the draw, and leaves the rest.
    """
    order = salted_order(ids, salt)
    count = min(count, len(ids))
    if count == 0:
        return np.zeros(0, np.int64)
    first = np.argpartition(order, count - 1)[:count]
    return np.asarray(first[np.argsort(order[first], kind="stable")], np.int64)
