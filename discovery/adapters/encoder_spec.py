"""What an encoder is: all that decides a vector, its name made of that, and the protocols that embedding and search need of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from discovery.addressing import content_id

VIEWS = {"centre": (1, 1), "flip": (1, 2), "three_crops": (3, 1), "three_crops_flip": (3, 2)}  # (crops, orientations)
FITS = ("crop", "squash", "border")


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """All that decides a vector. Sizes in px; mean and std per channel, of values in [0, 1].

    pooling: how the features of places become one: 'model' (its own), 'cls', 'mean' or 'gem'. views: which parts of a picture are
    looked at, a vector being the mean of theirs: 'centre', 'flip' (and its mirror image), 'three_crops' (along the longer side, so
    that nothing is cut off), 'three_crops_flip'. fit: how an oblong picture becomes a square, as the model was trained: 'crop' its
    shorter side to resize_px and cut, 'squash' both sides to resize_px, 'border' its longer side and fill up with the mean colour.
    projection: id of the projection that is applied to the model's vectors, or empty. decoder: raised when the pixels change that
    bytes give.
    """

    model: str
    weights_sha256: str
    dim: int
    input_px: int
    resize_px: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pooling: str = "model"
    views: str = "centre"
    fit: str = "crop"
    projection: str = ""
    decoder: str = "pillow-draft-3"

    @property
    def encoder_id(self) -> str:
        """The name under which vectors are kept."""
        return f"{self.model}@{content_id(asdict(self))[:12]}"

    @property
    def crops(self) -> int:
        """Crops of a picture that `preprocess` gives."""
        return VIEWS[self.views][0]

    @property
    def flips(self) -> int:
        """2 when each crop is looked at in a mirror too."""
        return VIEWS[self.views][1]

    @property
    def view_count(self) -> int:
        """Forward passes a picture takes."""
        return self.crops * self.flips

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one preprocessed picture: (px, px, 3), with crops first where there are several."""
        square = (self.input_px, self.input_px, 3)
        return square if self.crops == 1 else (self.crops, *square)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EncoderSpec:
        """The inverse of `to_dict`; KeyError or TypeError when fields are missing or unknown."""
        return cls(**{**data, "mean": tuple(data["mean"]), "std": tuple(data["std"])})


class Encoder(Protocol):
    """What embedding needs. `preprocess` is called from many threads at once, `encode` with whole batches.

    spec: all that decides a vector. batch_size: pictures that `encode` is best given. runtime: how it computes here, for the record.
    It may also have `empty_batch()`, memory for such a batch, and `prepare(pictures)`, called before so many are encoded.
    """

    spec: EncoderSpec
    batch_size: int

    @property
    def runtime(self) -> str:
        """Device, precision and the like, for a person."""

    def preprocess(self, data: bytes) -> NDArray[np.uint8]:
        """(*spec.shape) uint8 from picture bytes. Raises Undecodable."""

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, dim) float32, L2-normalised, from (n, *spec.shape) uint8. A row may not depend on the others."""


@runtime_checkable
class TextEncoder(Protocol):
    """What search by text needs: an encoder whose vectors of texts lie in the space of its vectors of pictures."""

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim) float32, L2-normalised; texts longer than the tower's context are cut off there."""


def empty_batch(encoder: Encoder) -> NDArray[np.uint8]:
    """Room for batch_size pictures, as the encoder likes it (pinned for a GPU), or plain memory."""
    own = getattr(encoder, "empty_batch", None)
    return own() if own is not None else np.empty((encoder.batch_size, *encoder.spec.shape), np.uint8)


def crop_views(image: Image.Image, spec: EncoderSpec) -> NDArray[np.uint8]:
    """spec.shape uint8: an RGB picture fitted as spec.fit says, then squares of input_px at `crop_corners`."""
    fitted = _fitted(image, spec)
    corners = crop_corners(fitted.shape[1], fitted.shape[0], spec)
    squares = [_square(fitted, left, top, spec.input_px) for left, top in corners]
    return (squares[0] if len(squares) == 1 else np.stack(squares)).reshape(spec.shape)


def crop_corners(width: int, height: int, spec: EncoderSpec) -> list[tuple[int, int]]:
    """(left, top) of each crop of a fitted picture: the middle, or the first, middle and last place along the longer side."""
    left, top = round((width - spec.input_px) / 2), round((height - spec.input_px) / 2)
    if spec.crops == 1:
        return [(left, top)]
    if width >= height:
        return [(0, top), (left, top), (width - spec.input_px, top)]
    return [(left, 0), (left, top), (left, height - spec.input_px)]


def fitted_size(width: int, height: int, spec: EncoderSpec) -> tuple[int, int]:
    """Width and height of a picture that is cropped or squashed, to the pixel as torchvision's Resize, with which models are trained."""
    if spec.fit == "squash":
        return spec.resize_px, spec.resize_px
    short = min(width, height)
    return spec.resize_px * width // short, spec.resize_px * height // short


def _fitted(image: Image.Image, spec: EncoderSpec) -> NDArray[np.uint8]:
    if spec.fit == "border":
        scale = spec.resize_px / max(image.size)
        small = resize(image, max(1, round(image.width * scale)), max(1, round(image.height * scale)), spec.interpolation)
        side = max(spec.resize_px, spec.input_px)
        square = np.empty((side, side, 3), np.uint8)
        square[:] = [round(255 * value) for value in spec.mean]
        left, top = (side - small.shape[1]) // 2, (side - small.shape[0]) // 2
        square[top : top + small.shape[0], left : left + small.shape[1]] = small
        return square
    return resize(image, *fitted_size(*image.size, spec), spec.interpolation)


def resize(image: Image.Image, width: int, height: int, interpolation: str) -> NDArray[np.uint8]:
    """(height, width, 3) uint8. Bilinear and bicubic by torch's own code for bytes: that of Pillow, within 2 levels, 4 times as fast.

    It is arithmetic of integers, and gives the same bytes whatever instructions the processor has.
    """
    if interpolation not in ("bilinear", "bicubic"):
        return np.asarray(image.resize((width, height), Image.Resampling[interpolation.upper()]))
    import torch

    planes = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, size=(height, width), mode=interpolation, antialias=True)
    return np.asarray(resized[0].permute(1, 2, 0).numpy())


def _square(pixels: NDArray[np.uint8], left: int, top: int, px: int) -> NDArray[np.uint8]:
    """The square at that corner; black where it reaches over the picture's edges."""
    height, width = pixels.shape[:2]
    if left >= 0 and top >= 0 and left + px <= width and top + px <= height:
        return pixels[top : top + px, left : left + px]
    square = np.zeros((px, px, 3), np.uint8)
    inside = pixels[max(0, top) : max(0, top + px), max(0, left) : max(0, left + px)]
    square[max(0, -top) : max(0, -top) + inside.shape[0], max(0, -left) : max(0, -left) + inside.shape[1]] = inside
    return square
