"""How the features that a model gives for places of a picture become one vector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from discovery.errors import EncoderNotFound

if TYPE_CHECKING:
    import torch

GEM_POWER = 3.0  # Radenović et al. 2018, "Fine-tuning CNN image retrieval with no human annotation"


def pooled(model: Any, pooling: str, x: torch.Tensor) -> torch.Tensor:
    """(n, dim) features: the model's own pooling, or 'cls', 'mean' or 'gem' over what it gives for places. EncoderNotFound: no CLS."""
    if pooling == "model":
        return model(x)  # type: ignore[no-any-return]
    features = model.forward_features(x)
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    if pooling == "cls":
        if features.ndim != 3 or prefix < 1:
            raise EncoderNotFound(f"{type(model).__name__} has no CLS token. Use encoder.pooling 'model', 'mean' or 'gem'.")
        return features[:, 0]  # type: ignore[no-any-return]
    if features.ndim == 3:  # (n, tokens, d)
        places = features[:, prefix:]
    elif features.shape[1] == model.num_features:  # (n, d, h, w)
        places = features.flatten(2).transpose(1, 2)
    else:  # (n, h, w, d)
        places = features.flatten(1, 2)
    if pooling == "mean":
        return places.mean(dim=1)  # type: ignore[no-any-return]
    return places.float().clamp(min=1e-6).pow(GEM_POWER).mean(dim=1).pow(1.0 / GEM_POWER)  # type: ignore[no-any-return]
