"""Pictures made from a seed, each unlike any other: what copies are planted of in tests."""

import numpy as np
from PIL import Image


def scene(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """Coloured blobs of all sizes with sharp and soft edges on a gradient."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    picture = np.stack([rng.uniform(40, 200) + rng.uniform(-60, 60) * x + rng.uniform(-60, 60) * y for _ in range(3)], axis=-1)
    for _ in range(40):
        centre, radius = rng.uniform(0, 1, 2), rng.uniform(0.02, 0.2)
        away = np.hypot(x - centre[0], (y - centre[1]) * rng.uniform(0.5, 2)) / radius
        cover = np.clip((1 - away) * rng.choice([1.5, 40.0]), 0, 1)[..., None]
        picture = picture * (1 - cover) + rng.uniform(0, 255, 3) * cover
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
