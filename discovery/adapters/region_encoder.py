"""What a model says of the places of a picture, seen larger than for its one vector: the vectors of regions, and of a query that is one.

The last two stages of a timm model are taken before its head: on crops of 2 % of a picture they find it twice as often as the
features its vector is made of, with a third of the dimensions (decision 17).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.decode import decode
from discovery.adapters.encoder_spec import Encoder, resize
from discovery.adapters.encoders import load_encoder
from discovery.adapters.torch_encoder import TorchEncoder
from discovery.addressing import content_id
from discovery.config import Config, EncoderConfig, RegionsConfig, S3Config
from discovery.core.regions import SIDE, STEP, joined, pool, windows
from discovery.errors import InvalidInput

STAGES = (-2, -1)  # of the model, in timm's own numbering of those that change the scale; of a ViT, its last two blocks
QUERY_PX: tuple[int, ...] = (96, 192)  # square roots of the areas at which a query is looked at; one alone finds only what has its scale


@dataclass(frozen=True, slots=True)
class RegionSpec:
    """All that decides the vectors of regions. canvas_px: the longer side of a picture; cell_px: of one cell in it; the rest as of an EncoderSpec."""

    model: str
    weights_sha256: str
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    canvas_px: int
    cell_px: int
    dim: int
    query_px: tuple[int, ...]
    stages: tuple[int, ...] = STAGES
    side: int = SIDE
    step: int = STEP
    decoder: str = "pillow-draft-3"

    @property
    def region_encoder_id(self) -> str:
        """The name under which vectors of regions are kept; only those of one name may be compared."""
        return f"{self.model}@regions-{content_id(asdict(self))[:12]}"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A picture on the canvas: pixels (canvas_px, canvas_px, 3) uint8, of which the left upper rows x columns cells are picture."""

    pixels: NDArray[np.uint8]
    rows: int
    columns: int
    width_px: int  # of the upright original
    height_px: int


class RegionEncoder:
    """The stages of a TorchEncoder's model, run on a canvas larger than the encoder's own input where the model allows it."""

    def __init__(self, encoder: Encoder, config: RegionsConfig) -> None:
        if not isinstance(encoder, TorchEncoder) or not hasattr(encoder.float32_model, "forward_intermediates"):
            raise InvalidInput(
                f"Encoder {encoder.spec.model} says nothing of places, so regions of pictures cannot be searched with it. Use a timm model that has "
                "forward_intermediates, such as 'default'; a box can still be searched among whole pictures: `discovery search --box … --whole`."
            )
        self._encoder, self._model = encoder, encoder.float32_model
        spec, canvas_px, query_px = encoder.spec, config.canvas_px, QUERY_PX
        try:
            maps = self._maps(np.zeros((1, canvas_px, canvas_px, 3), np.uint8))
        except Exception:  # models of one input size refuse others each in its own way
            canvas_px, query_px = spec.input_px, ()
            maps = self._maps(np.zeros((1, canvas_px, canvas_px, 3), np.uint8))
        self.spec = RegionSpec(
            spec.model, spec.weights_sha256, spec.interpolation, spec.mean, spec.std, canvas_px, canvas_px // maps[-1].shape[1],
            sum(part.shape[-1] for part in maps), query_px,
        )  # fmt: skip
        self.batch_size = max(1, int(encoder.batch_size * (spec.input_px / canvas_px) ** 2))

    @property
    def runtime(self) -> str:
        """Device and batch size, for the record; always in float32."""
        return f"{self._encoder.device.type} float32 batch {self.batch_size}"

    def fit(self, data: bytes) -> Fitted:
        """A picture with its longer side canvas_px, its sides whole cells, on the mean colour. Raises Undecodable."""
        spec = self.spec
        picture = decode(data, max_pixels=2**62, at_least_px=spec.canvas_px)
        scale = spec.canvas_px / max(picture.image.size) / spec.cell_px
        columns, rows = (max(1, round(side * scale)) for side in picture.image.size)
        small = resize(picture.image, columns * spec.cell_px, rows * spec.cell_px, spec.interpolation)
        pixels = np.empty((spec.canvas_px, spec.canvas_px, 3), np.uint8)
        pixels[:] = [round(255 * value) for value in spec.mean]
        pixels[: small.shape[0], : small.shape[1]] = small
        return Fitted(pixels, rows, columns, picture.width_px, picture.height_px)

    def regions(self, pictures: Sequence[Fitted]) -> list[NDArray[np.float32]]:
        """For each picture the (r, dim) float32 unit vectors of its `windows`. A picture's do not depend on the others."""
        found: list[NDArray[np.float32]] = []
        for start in range(0, len(pictures), self.batch_size):
            some = pictures[start : start + self.batch_size]
            batch = np.zeros((self.batch_size, *some[0].pixels.shape), np.uint8)
            for row, picture in enumerate(some):
                batch[row] = picture.pixels
            maps = self._maps(batch)
            for row, picture in enumerate(some):
                places = windows(picture.rows, picture.columns)
                found.append(joined([pool(part[row, : picture.rows, : picture.columns], places) for part in maps]))
        return found

    def query(self, data: bytes) -> NDArray[np.float32]:
        """(dim,) float32 unit vector of a picture that is itself a region: the mean over the sizes QUERY_PX. Raises Undecodable."""
        if not self.spec.query_px:  # one input size: as a picture, all of it
            whole = self.fit(data)
            maps = self._maps(whole.pixels[None])
            return _one([pool(part[0], np.array([[0, 0, whole.rows, whole.columns]])) for part in maps])
        image = decode(data, max_pixels=2**62, at_least_px=max(self.spec.query_px)).image
        seen = []
        for px in self.spec.query_px:
            scale = px / (image.width * image.height) ** 0.5 / self.spec.cell_px
            columns, rows = (min(64, max(1, round(side * scale))) for side in image.size)
            pixels = resize(image, columns * self.spec.cell_px, rows * self.spec.cell_px, self.spec.interpolation)
            maps = self._maps(pixels[None])
            seen.append(joined([pool(part[0], np.array([[0, 0, *part.shape[1:3]]])) for part in maps]))
        return _one([np.mean(seen, axis=0, dtype=np.float32)])

    def _maps(self, batch: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """For each of STAGES (n, rows, columns, d) float32, all on the cells of the last."""
        import torch

        with torch.inference_mode():
            x = self._encoder.normalised(torch.from_numpy(batch).to(self._encoder.device))
            stages = self._model.forward_intermediates(x, indices=list(STAGES), intermediates_only=True, output_fmt="NCHW")
            grid = stages[-1].shape[-2:]
            return [_on_grid(stage.float(), grid).permute(0, 2, 3, 1).cpu().numpy() for stage in stages]


def _one(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The only row of `joined`."""
    return np.asarray(joined(parts)[0], np.float32)


def _on_grid(stage: Any, grid: Sequence[int]) -> Any:
    """(n, d, rows, columns) as means over the cells of a coarser grid."""
    from torch.nn.functional import adaptive_avg_pool2d

    return stage if stage.shape[-2:] == grid else adaptive_avg_pool2d(stage, tuple(grid))


@functools.lru_cache(maxsize=2)
def _loaded(encoder: EncoderConfig, s3: S3Config, regions: RegionsConfig) -> RegionEncoder:
    return RegionEncoder(load_encoder(encoder, s3), regions)


def load_region_encoder(config: Config) -> RegionEncoder:
    """The region encoder of a configuration, once a process. Raises EncoderNotFound; InvalidInput for an encoder that knows no places."""
    return _loaded(config.encoder, config.s3, config.regions)
