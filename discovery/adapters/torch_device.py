"""What torch computes on here: the device, the types it is fast in, the threads of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from discovery.config import EncoderConfig
from discovery.errors import ConfigError

if TYPE_CHECKING:
    import torch


def torch_threads() -> int:
    """Of one operation of this process."""
    import torch

    return int(torch.get_num_threads())


def device_of(config: EncoderConfig) -> str:
    """'cuda' or 'cpu', with 'auto' decided. Raises ConfigError: CUDA asked for and absent."""
    import torch

    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if config.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError("encoder.device = 'cuda', but torch finds no CUDA device here. Use 'auto' or 'cpu'.")
    return config.device


def fast_types(device: str) -> list[torch.dtype]:
    """Types that are faster than float32 on this device, the fastest first: none where the hardware only emulates them."""
    import torch

    if device == "cuda":
        return [torch.bfloat16, torch.float16] if torch.cuda.is_bf16_supported(including_emulation=False) else [torch.float16]
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return [torch.bfloat16] if has_bf16 else []
