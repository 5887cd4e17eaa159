"""Weights: a state dict and its digest from a file or URI, without executing anything; the packaged checkpoint's names in timm's terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from discovery.adapters.files import is_local, local_path, open_filesystem, translated
from discovery.addressing import content_id, sha256_hex
from discovery.config import S3Config
from discovery.errors import EncoderNotFound


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


def digest_state(state: dict[str, Any]) -> str:
    """Id of names, types, shapes and values; for weights that come without a file."""
    import torch

    def values(tensor: Any) -> bytes:
        return bytes(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16

    return content_id([[name, str(t.dtype), list(t.shape), sha256_hex(values(t))] for name, t in sorted(state.items())])
