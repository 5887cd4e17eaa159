"""Which source pictures may enter the corpus: those that decode, have a moderate size, show something, come once."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image, ImageStat

from demo.sources import Picture

MIN_SIDE_PX = 48
"""Below this a picture is an icon, and a quality check would be right to quarantine it."""
MAX_PIXELS = 12_000_000
MIN_STANDARD_DEVIATION = 12.0
"""Of the grey values 0 to 255 on white; natural near-uniform pictures would blur the truth about the blank ones."""

log = logging.getLogger(__name__)


def screened(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """The pictures fit for the corpus, in the order given; of pictures with the same pixels only the first.

    Why others are left out is counted and logged when the pictures are at their end.
    """
    seen: set[bytes] = set()
    reasons: Counter[str] = Counter()
    for picture in pictures:
        reason, digest = _judge(picture.path)
        if not reason and digest in seen:
            reason = "same pixels as another"
        if reason:
            reasons[reason] += 1
            continue
        seen.add(digest)
        yield picture
    log.info("left out of the corpus: %s", dict(reasons))


def on_white(image: Image.Image) -> Image.Image:
    """RGB, a transparent picture laid on white."""
    rgba = image.convert("RGBA")
    ground = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(ground, rgba).convert("RGB")


def _judge(path: Path) -> tuple[str, bytes]:
    """(reason to leave it out, digest of its pixels); the reason is empty for a fit picture."""
    try:
        with Image.open(path) as image:
            if min(image.size) < MIN_SIDE_PX:
                return "too small", b""
            if image.width * image.height > MAX_PIXELS:
                return "too many pixels", b""
            pixels = on_white(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "does not decode", b""
    if ImageStat.Stat(pixels.convert("L")).stddev[0] < MIN_STANDARD_DEVIATION:
        return "near-uniform", b""
    return "", hashlib.blake2b(pixels.tobytes(), digest_size=16, salt=repr(pixels.size).encode()[:16]).digest()
