"""Encoders with a text tower, through open_clip: pictures and texts in one space, so that a search may begin with words.

`open_clip:ViT-B-32` with `encoder.weights`, `open_clip:ViT-B-32/laion2b_s34b_b79k` with weights that open_clip fetches, or
`open_clip:local-dir:/models/siglip`, a folder that holds weights, configuration and tokenizer (what a hub would give).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from discovery.adapters.torch_encoder import TorchEncoder
from discovery.adapters.weights import digest_state, read_weights
from discovery.config import EncoderConfig, S3Config
from discovery.errors import ConfigError, EncoderNotFound, InvalidInput

if TYPE_CHECKING:
    from discovery.adapters.encoder_spec import EncoderSpec

SCHEMES = ("hf-hub:", "local-dir:")  # open_clip's own, for models that are described outside of it
FITS = {"shortest": "crop", "squash": "squash"}  # open_clip's words for how a picture becomes a square; its 'longest' fills with black


class ClipEncoder(TorchEncoder):
    """A TorchEncoder of the picture tower that also encodes texts, in float32."""

    def __init__(self, spec: EncoderSpec, clip: Any, tokenizer: Any, config: EncoderConfig) -> None:
        super().__init__(spec, _picture_tower(clip), config)
        self._clip, self._tokenizer = clip.eval().to(self.device), tokenizer

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim) float32 unit vectors, near to those of pictures that show what is said. Raises InvalidInput for an empty text."""
        import torch

        if not all(text.strip() for text in texts):
            raise InvalidInput("An empty text says nothing to search for.")
        with torch.inference_mode():
            features = self._clip.encode_text(self._tokenizer(list(texts)).to(self.device)).float()
            vectors = torch.nn.functional.normalize(features, dim=1).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise InvalidInput(f"Encoder {self.spec.encoder_id} gave NaN or infinite features for a text. Check its weights.")
        return np.ascontiguousarray(vectors, dtype=np.float32)


def build(config: EncoderConfig, s3: S3Config) -> ClipEncoder:
    """The encoder of a name `open_clip:…`. Raises EncoderNotFound: open_clip, the model, its weights or its tokenizer is not there."""
    from discovery.adapters.encoders import measured_spec, prepared_timm

    prepared_timm(config)
    if config.pooling != "model":
        raise ConfigError(f"encoder.pooling = '{config.pooling}': vectors of texts fit only those that {config.name} pools itself. Use 'model'.")
    try:
        import open_clip
    except ImportError as error:
        raise EncoderNotFound(f"{config.name} needs open_clip. Install it: pip install 'open-clip-torch==3.3.0'.") from error
    name = config.name.partition(":")[2]
    model, _, pretrained = (name, "", "") if name.startswith(SCHEMES) else name.partition("/")
    if not name.startswith(SCHEMES) and model not in open_clip.list_models():
        raise EncoderNotFound(f"open_clip has no model {model!r}. open_clip.list_models() lists the names.")
    if not (config.weights or pretrained or name.startswith(SCHEMES)):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)[:3])
        raise EncoderNotFound(f"{config.name} has no weights. Give a file (encoder.weights), or a tag: {config.name}/TAG, TAG one of {tags}.")
    try:
        with _no_warning_of_random_weights():
            clip = open_clip.create_model(
                model, pretrained=pretrained or None, load_weights=not config.weights, require_pretrained=not config.weights
            )
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # the hub, the folder and the tokenizers answer with many error types
        raise EncoderNotFound(
            f"{config.name} could not be made ({type(error).__name__}: {str(error)[:200]}). Where no hub is reached, give encoder.weights, or a "
            "folder with weights, open_clip_config.json and tokenizer: open_clip:local-dir:/path."
        ) from error
    if config.weights:
        state, digest = read_weights(config.weights, s3)
        try:
            clip.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise EncoderNotFound(f"The weights do not fit {config.name}: {str(error)[:300]}. Check encoder.name against the file.") from error
    else:
        digest = digest_state(clip.state_dict())
    data = clip.visual.preprocess_cfg
    size = data["size"] if isinstance(data["size"], (tuple, list)) else (data["size"],) * 2
    spec = measured_spec(
        _picture_tower(clip), config, name=f"open_clip:{name}" if not name.startswith("local-dir:") else "open_clip:local", digest=digest,
        input_size=tuple(size), crop_pct=1.0, interpolation=str(data["interpolation"]), fit=FITS.get(str(data["resize_mode"]), ""),
        mean=data["mean"], std=data["std"],
    )  # fmt: skip
    return ClipEncoder(spec, clip, tokenizer, config)


def _picture_tower(clip: Any) -> Any:
    """A module that gives the picture tower's vectors, as TorchEncoder runs it."""
    import torch

    class PictureTower(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.visual = clip.visual

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.visual(x)  # type: ignore[no-any-return]

    return PictureTower()


@contextlib.contextmanager
def _no_warning_of_random_weights() -> Iterator[None]:
    """open_clip warns on the root logger that a model starts with random weights, before ours are put in."""

    def is_other(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    logging.getLogger().addFilter(is_other)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(is_other)
