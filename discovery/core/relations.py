"""What the relation of two copies is called, and how one became the other, in words, from the way they were laid on each other."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.core.alignment import Alignment
from discovery.core.grid import TURNS

RELATIONS = (
    "same_pixels", "burst", "captioned", "cropped", "bordered", "mirrored", "turned", "recoloured", "resized", "re_encoded",
)  # fmt: skip
BACK = {"turn_left": "turn_right", "turn_right": "turn_left"}  # all other turns undo themselves
WORDS = {
    "mirror": "mirrored", "turn_180": "turned by half", "flip": "upside down mirrored", "transpose": "mirrored and turned to the left",
    "turn_left": "turned to the left", "turn_right": "turned to the right", "transverse": "mirrored and turned to the right",
}  # fmt: skip
FLAT_SURROUND = 6.0  # levels of 255: beside a part that much plain is a border
NEARLY_ALL = 0.95  # of the area; less is missing when an edge is rounded
TONE, OFFSET = 0.1, 8.0  # a tone curve that deviates by more was meant; compression moves it less


@dataclass(frozen=True, slots=True)
class Geometry:
    """What of an Alignment is kept of a pair (a, b), in plain values; the names are those of `schemas.PAIRS`."""

    direction: str
    turn: str
    left: float
    top: float
    width: float
    height: float
    surround: float
    gamma: float
    gain: float
    offset: float
    is_grey: bool
    is_captioned: bool

    @property
    def is_part(self) -> bool:
        """Whether one shows clearly less than the other."""
        return self.direction != "whole" and self.width * self.height < NEARLY_ALL

    @property
    def is_recoloured(self) -> bool:
        """Whether one has no colours, or other tones."""
        return self.is_grey or abs(self.gamma - 1) > TONE or abs(self.gain - 1) > TONE or abs(self.offset) > OFFSET


SAME = Geometry("whole", TURNS[0], 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, False, False)


def geometry(found: Alignment) -> Geometry:
    """The plain values of an alignment."""
    window, agreed = found.window, found.agreement
    return Geometry(
        found.direction, TURNS[found.turn], window.left, window.top, window.width, window.height, found.surround, agreed.gamma, agreed.gain,
        agreed.offset, agreed.is_grey, found.is_captioned,
    )  # fmt: skip


def relation_of(seen: Geometry, size_a: tuple[int, int], size_b: tuple[int, int], is_same_burst: bool) -> str:
    """One of RELATIONS: of several edits the one that changes most. Sizes are (width, height) in pixels.

    >>> relation_of(SAME, (400, 300), (200, 150), False), relation_of(SAME, (400, 300), (400, 300), False)
    ('resized', 're_encoded')
    """
    if is_same_burst:
        return "burst"
    if seen.is_captioned:
        return "captioned"
    if seen.is_part:
        return "bordered" if seen.surround < FLAT_SURROUND else "cropped"
    if seen.turn != TURNS[0]:
        return "mirrored" if seen.turn == "mirror" else "turned"
    if seen.is_recoloured:
        return "recoloured"
    return "resized" if size_a != size_b else "re_encoded"


def transformation(seen: Geometry, size_a: tuple[int, int], size_b: tuple[int, int], from_b: bool = False) -> str:
    """How a became b, or b became a (`from_b`), in words.

    >>> transformation(SAME, (400, 300), (200, 150))
    '400 x 300 to 200 x 150'
    """
    before, after = (size_b, size_a) if from_b else (size_a, size_b)
    words: list[str] = []
    turn = seen.turn if from_b else BACK.get(seen.turn, seen.turn)  # `turn` is what brings b back onto a
    if turn != TURNS[0]:
        words.append(WORDS[turn])
    if seen.is_part:
        is_smaller = (seen.direction == "part") != from_b
        what = f"{seen.width:.0%} x {seen.height:.0%} at {max(0.0, seen.left):.0%}, {max(0.0, seen.top):.0%}"
        if seen.surround < FLAT_SURROUND:
            words.append(f"border cut off, left {what}" if is_smaller else f"border around {what}")
        else:
            words.append(f"cropped to {what}" if is_smaller else f"shows more around {what}")
    if seen.is_captioned:
        words.append("words on it")
    if seen.is_grey:
        words.append("colours gone or added")
    elif seen.is_recoloured:
        words.append("other tones")
    if before != after:
        words.append(f"{before[0]} x {before[1]} to {after[0]} x {after[1]}")
    return ", ".join(words)
