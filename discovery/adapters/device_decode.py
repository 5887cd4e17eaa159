"""Pictures decoded whole and squared by torch: JPEGs on a GPU by nvJPEG where torchvision has it, all else by Pillow.

This is another decoder than the usual one, which decodes JPEGs at the smallest scale that serves and lets Pillow resize; so it names other
encoders (`encoder.decoder = "nvjpeg"`). What a machine without nvJPEG makes differs by the rounding of the two JPEG decoders alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from discovery.adapters.decode import ORIENTATION_TAG, decode
from discovery.adapters.encoder_spec import EncoderSpec, crop_corners, fitted_size
from discovery.adapters.together import Together
from discovery.errors import ConfigError

if TYPE_CHECKING:
    import torch

WHOLE = "whole-torch-1"  # EncoderSpec.decoder of what is decoded here
FILTERS = ("bicubic", "bilinear")  # that torch has, with antialiasing
GROUP = 32  # pictures that nvJPEG is given at once, at most as many as there are decoding threads


class DeviceDecoder:
    """`views(data)`: from many threads at once. nvJPEG is used after `use_nvjpeg` alone, and never for what it may read otherwise than Pillow."""

    def __init__(self, spec: EncoderSpec) -> None:
        if spec.interpolation not in FILTERS or spec.fit == "border":
            raise ConfigError(
                f"encoder.decoder = 'nvjpeg': {spec.model} resizes by {spec.interpolation} ({spec.fit}), which torch does not. Use 'pillow'."
            )
        self.spec = spec
        self._on_device: Together[bytes, torch.Tensor] | None = None

    @property
    def uses_nvjpeg(self) -> bool:
        """Whether JPEGs are decoded on the device."""
        return self._on_device is not None

    def use_nvjpeg(self, decode_jpegs: Callable[[Sequence[bytes]], Sequence[torch.Tensor]] | None) -> None:
        """Decode JPEGs by this function from now on, (3, h, w) uint8 each, as they lie in the file; None: by Pillow."""
        self._on_device = Together(decode_jpegs, GROUP) if decode_jpegs is not None else None

    def views(self, data: bytes) -> NDArray[np.uint8]:
        """spec.shape uint8 of a picture's bytes. Raises Undecodable."""
        import torch

        picture = self._decoded_on_device(data)
        if picture is None:
            image = decode(data, max_pixels=2**62).image
            picture = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return squared(picture, self.spec)

    def _decoded_on_device(self, data: bytes) -> torch.Tensor | None:
        """(3, h, w) uint8, upright; None for what Pillow has to decode: no JPEG, one of four colours, one that the device refuses."""
        if self._on_device is None or not data.startswith(b"\xff\xd8"):
            return None
        try:
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as header:  # reads no pixels
                mode, orientation = header.mode, int(header.getexif().get(ORIENTATION_TAG, 1))
            return upright(self._on_device(data), orientation) if mode in ("RGB", "L") else None
        except Exception:  # what is wrong with it, if it is, Pillow says
            return None


def squared(picture: torch.Tensor, spec: EncoderSpec) -> NDArray[np.uint8]:
    """spec.shape uint8 of (3, h, w) uint8, resized with antialiasing and cropped where the picture lies."""
    import torch
    from torch.nn.functional import interpolate

    width, height = fitted_size(picture.shape[2], picture.shape[1], spec)
    with torch.inference_mode():
        resized = interpolate(picture[None].float(), (height, width), mode=spec.interpolation, antialias=True, align_corners=False)[0]
        pixels = resized.round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0)
        px = spec.input_px
        crops = torch.stack([pixels[top : top + px, left : left + px] for left, top in crop_corners(width, height, spec)])
        return np.ascontiguousarray(crops.cpu().numpy().reshape(spec.shape))


def upright(picture: torch.Tensor, orientation: int) -> torch.Tensor:
    """(3, h, w) turned as EXIF's orientation 1 to 8 says; others are taken for 1."""
    if orientation in (5, 6, 7, 8):
        picture = picture.transpose(1, 2)
    across = [2] if orientation in (2, 3, 6, 7) else []
    down = [1] if orientation in (3, 4, 7, 8) else []
    return picture.flip(across + down) if across or down else picture


def nvjpeg(device: torch.device) -> Callable[[Sequence[bytes]], Sequence[torch.Tensor]] | None:
    """torchvision's decoder on a CUDA device; None where torchvision was built without its operators, as beside a CPU build of torch."""
    import torch

    from discovery.adapters.torchvision_compat import import_timm

    import_timm()
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except (ImportError, RuntimeError):
        return None
    if device.type != "cuda":
        return None

    def decode_jpegs(pictures: Sequence[bytes]) -> Sequence[torch.Tensor]:
        tensors = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in pictures]
        decoded: Sequence[torch.Tensor] = decode_jpeg(tensors, mode=ImageReadMode.RGB, device=device)
        torch.cuda.current_stream(device).synchronize()  # other threads, with other streams, go on with them
        return decoded

    return decode_jpegs
