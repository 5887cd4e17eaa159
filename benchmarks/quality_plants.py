"""Pictures with one planted fault each, for benchmarks/quality_issues.py: dark, bright, blurred, odd in size, empty, grey and so on, at several strengths.

Every fault is done to a real photograph, as a camera, a program or a person does it, and saved again as a file of the kind that one finds. Half of
the photographs are for choosing thresholds, the other half for judging them; a photograph and all that was made of it are in one half.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from discovery.adapters.decode import decode, shrink
from discovery.adapters.planted import EDITS, planted

SEED = 6
SOURCES = ("gcompris", "kphotoalbum", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "mate-backgrounds", "scratch")
LONGER_PX = (440, 640)  # photographs are brought to sizes of one batch, so that an odd size can be told; smaller ones stay as they are
NATURAL = {  # what a person who looked at the photographs saw in them before anything was planted: no negatives of these issues
    "castleClinton": ("grey",), "moon.jpg": ("grey", "dark"), "stars.gif": ("dark", "low_information", "blank", "low_contrast"), "night-city": ("dark", "screenshot"),
}  # fmt: skip
ALIKE = (  # photographs that are, to a person who looked at them, near-duplicates of others among them: no part in the search for copies
    "Elephants_", "night-city", "basketball-court1", "wonders/colosseum", "germany/brandenburgGate", "egypt/greatPyramidOfGiza", "bedroom",
)  # fmt: skip
OVERLAP = {  # a fault that may rightly be called by another name too: not a negative of that issue
    "dark": ("low_information", "blank", "low_contrast", "grey", "clipped"), "bright": ("low_information", "blank", "low_contrast", "grey", "clipped", "bordered"),
    "low_information": ("dark", "bright", "blurry", "blank", "low_contrast", "grey", "clipped", "screenshot", "bordered"),
    "blurry": ("low_information",), "odd_size": ("blurry", "noisy", "blocky", "low_information"), "odd_aspect": ("odd_size", "blurry", "low_information", "low_contrast", "clipped", "dark", "bright", "grey"),
    "grey": (), "noisy": ("grey",), "blocky": ("blurry",), "bordered": ("dark", "bright", "clipped", "low_information", "odd_aspect"), "clipped": ("bright", "dark"),
    "screenshot": ("grey", "low_information", "low_contrast", "clipped", "bordered", "odd_aspect", "odd_size", "blank", "bright", "dark", "blurry"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planted:
    """One file: `issue` is empty for a photograph as it is; `strength` says how much, in words."""

    file: str
    base: str
    issue: str
    strength: str
    half: str  # "choose" or "judge"


Plant = Callable[[Image.Image, float, np.random.Generator], Image.Image]


def exposed(image: Image.Image, stops: float, rng: np.random.Generator) -> Image.Image:
    """As if exposed by so many stops more (negative: less): linear light times 2**stops, clipped."""
    x = np.asarray(image, np.float64) / 255.0
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) * 2.0**stops
    y = np.clip(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055), 0, 1)
    return Image.fromarray(np.round(y * 255).astype(np.uint8))


def overexposed(image: Image.Image, stops: float, rng: np.random.Generator) -> Image.Image:
    """So many stops over its exposure, or over that which a light meter gives (a mean of 18 % of linear light) when the photograph is darker."""
    x = np.asarray(image, np.float64) / 255.0
    mean = float(np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).mean())
    return exposed(image, stops + max(0.0, np.log2(0.18 / max(mean, 0.002))), rng)


def lamplit(image: Image.Image, stops: float, rng: np.random.Generator) -> Image.Image:
    """Underexposed, with a lamp in it: a soft white disc on 1 to 4 % of the picture."""
    dark = exposed(image, stops, rng)
    radius = (image.width * image.height * rng.uniform(0.01, 0.04) / np.pi) ** 0.5
    x, y = rng.uniform(radius, max(radius, image.width - radius)), rng.uniform(radius, max(radius, image.height - radius))
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return Image.composite(Image.new("RGB", image.size, (255, 248, 225)), dark, mask.filter(ImageFilter.GaussianBlur(radius / 8)))


def blurred(image: Image.Image, percent: float, rng: np.random.Generator) -> Image.Image:
    """Out of focus: a Gaussian whose standard deviation is so many per cent of the longer side."""
    return image.filter(ImageFilter.GaussianBlur(max(image.size) * percent / 100))


def shaken(image: Image.Image, percent: float, rng: np.random.Generator) -> Image.Image:
    """Camera shake: the mean along a straight line, so many per cent of the longer side long, in any direction."""
    length, angle = max(image.size) * percent / 100, rng.uniform(0, np.pi)
    pixels, steps = np.asarray(image, np.float64), np.linspace(-0.5, 0.5, int(np.ceil(length)) * 2 + 1) * length
    reach = int(np.ceil(length / 2)) + 1
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    h, w = pixels.shape[:2]
    total = np.zeros_like(pixels)
    for step in steps:
        y, x = step * np.sin(angle) + reach, step * np.cos(angle) + reach
        top, left = int(np.floor(y)), int(np.floor(x))
        fy, fx = y - top, x - left
        for dy, dx, weight in ((0, 0, (1 - fy) * (1 - fx)), (0, 1, (1 - fy) * fx), (1, 0, fy * (1 - fx)), (1, 1, fy * fx)):
            total += weight * padded[top + dy : top + dy + h, left + dx : left + dx + w]
    return Image.fromarray(np.round(total / len(steps)).astype(np.uint8))


def resized(image: Image.Image, times: float, rng: np.random.Generator) -> Image.Image:
    """So many times as wide and high."""
    return image.resize((max(2, round(image.width * times)), max(2, round(image.height * times))), Image.Resampling.LANCZOS)


def strip(image: Image.Image, aspect: float, rng: np.random.Generator) -> Image.Image:
    """A strip from the middle, lying or standing, its longer side so many times the shorter."""
    w, h = image.size
    if rng.integers(2):
        high = max(2, round(w / aspect))
        return image.crop((0, (h - high) // 2, w, (h + high) // 2))
    wide = max(2, round(h / aspect))
    return image.crop(((w - wide) // 2, 0, (w + wide) // 2, h))


def flattened(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Almost one tone: the differences from the mean colour times `share` (a lens cap, fog, a wall)."""
    x = np.asarray(image, np.float64)
    mean = x.mean(axis=(0, 1))
    return Image.fromarray(np.clip(np.round(mean + (x - mean) * share), 0, 255).astype(np.uint8))


def placeholder(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """A plain page in one tone with the words of a missing picture, as wide as `share` of it."""
    page = Image.new("RGB", image.size, tuple(int(v) for v in rng.integers(0, 256, 3)))
    draw, words = ImageDraw.Draw(page), ("no image", "404", "missing", "loading")[int(rng.integers(4))]
    font = ImageFont.load_default(max(8.0, share * image.width * 100 / ImageDraw.Draw(page).textlength(words, font=ImageFont.load_default(100))))
    draw.text((image.width / 2, image.height / 2), words, font=font, anchor="mm", fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return page


def grey(image: Image.Image, kind: float, rng: np.random.Generator) -> Image.Image:
    """Without colour; kind 0: a file of one channel, 1: of three."""
    return image.convert("L") if kind == 0 else image.convert("L").convert("RGB")


def noisy(image: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
    """Gaussian noise of this standard deviation (of 255), independent in each channel."""
    return Image.fromarray(np.clip(np.round(np.asarray(image, np.float64) + rng.normal(0, sigma, (image.height, image.width, 3))), 0, 255).astype(np.uint8))


def blocky(image: Image.Image, quality: float, rng: np.random.Generator) -> Image.Image:
    """Through JPEG of this quality; the file keeps the blocks, not the quality."""
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=int(quality))
    with Image.open(sink) as decoded:
        return decoded.convert("RGB")


def letterboxed(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Bars above and below, at the sides, or all around, that make up `share` of the picture, black, white or grey."""
    w, h = image.size
    kind = int(rng.integers(3))
    tone = ((0, 0, 0), (255, 255, 255), (128, 128, 128))[int(rng.integers(3))]
    if kind < 2:
        bar = max(2, round((h, w)[kind] * share / (1 - share) / 2))
        return ImageOps.expand(image, (0, bar) if kind == 0 else (bar, 0), tone)
    return ImageOps.expand(image, max(2, round((w + h) * (1 - (1 - share) ** 0.5) / 4)), tone)


FAULTS: dict[str, tuple[tuple[str, Plant, float], ...]] = {
    "dark": (*((f"{stops:+} stops", exposed, stops) for stops in (-3.0, -4.0, -5.0, -6.0)), ("-5 stops, a lamp", lamplit, -5.0)),
    "bright": tuple((f"{stops:+} stops", overexposed, stops) for stops in (2.0, 3.0, 4.0, 5.0)),
    "blurry": (
        *((f"focus {percent} %", blurred, percent) for percent in (0.5, 0.8, 1.3, 2.0)), *((f"shake {percent} %", shaken, percent) for percent in (2.5, 4.0)),
    ),
    "odd_size": tuple((f"x {times:.3g}", resized, times) for times in (1 / 12, 1 / 8, 1 / 5, 4.0, 6.0)),
    "odd_aspect": tuple((f"1:{aspect:.0f}", strip, aspect) for aspect in (4.0, 6.0, 10.0)),
    "low_information": (
        *((f"contrast x {share}", flattened, share) for share in (0.0, 0.02, 0.05)), *((f"page with words, {share:.0%}", placeholder, share) for share in (0.1, 0.3)),
    ),
    "grey": (("1 channel", grey, 0.0), ("3 channels", grey, 1.0)),
    "noisy": tuple((f"sigma {sigma:.0f}", noisy, sigma) for sigma in (8.0, 15.0, 25.0, 40.0)),
    "blocky": tuple((f"JPEG {quality:.0f}", blocky, quality) for quality in (5.0, 10.0, 15.0, 25.0)),
    "bordered": tuple((f"{share:.0%}", letterboxed, share) for share in (0.05, 0.1, 0.2, 0.4)),
}  # fmt: skip


def photographs(corpora: Path) -> list[str]:
    """Paths of the photographs and drawn scenes, in the order of the corpora's manifest."""
    with open(corpora / "manifest.csv", newline="") as file:
        return [row["path"] for row in csv.DictReader(file) if row["source"] in SOURCES]


def natural(path: str) -> tuple[str, ...]:
    """Issues that a photograph has by itself."""
    return tuple(issue for part, issues in NATURAL.items() if part in path for issue in issues)


def plant(corpora: Path, folder: Path, screenshots: Path | None) -> list[Planted]:
    """Fill `folder`/choose and `folder`/judge: each photograph as it is, and once with each fault, at a strength that is drawn."""
    listed: list[Planted] = []
    for path in photographs(corpora):
        base = hashlib.sha256(path.encode()).hexdigest()[:12]
        half = ("choose", "judge")[int(base, 16) % 2]
        (folder / half).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([SEED, int(base, 16)])
        image = shrink(decode((corpora / path).read_bytes(), 2**62).image, int(rng.integers(*LONGER_PX)))
        listed.append(keep(image, f"{base}.jpg", base, "", "as it is", half, folder, rng))
        for issue, strengths in FAULTS.items():
            strength, fault, amount = strengths[int(rng.integers(len(strengths)))]
            listed.append(keep(fault(image, amount, rng), f"{base}-{issue}.jpg", base, issue, strength, half, folder, rng))
    for path in sorted(screenshots.rglob("*.png")) if screenshots else ():
        with Image.open(path) as opened:
            if min(opened.size) < 240 or not any(part in str(path) for part in ("/dialogs/", "/preferences/", "/C/gnome-help/")):
                continue
        base = hashlib.sha256(path.name.encode()).hexdigest()[:12]
        half = "judge" if "gnome" in str(path) else ("choose", "judge")[int(base, 16) % 2]
        (folder / half / f"{base}-screenshot.png").write_bytes(path.read_bytes())
        listed.append(Planted(f"{half}/{base}-screenshot.png", base, "screenshot", "a program's window", half))
    return listed


def plant_copies(files: list[Planted], corpora: Path, folder: Path) -> dict[str, bool]:
    """Fill `folder`/choose and /judge with the photographs as they are and an edited copy of every second; file to whether it has a copy there."""
    unjudged = {hashlib.sha256(path.encode()).hexdigest()[:12] for path in photographs(corpora) if any(part in path for part in ALIKE)}
    truth: dict[str, bool] = {}
    for item in files:
        if item.issue or item.base in unjudged:
            continue
        rng = np.random.default_rng([SEED, 1, int(item.base, 16)])
        (folder / item.half).mkdir(parents=True, exist_ok=True)
        source = (folder.parent / "pictures" / item.file).read_bytes()
        (folder / item.file).write_bytes(source)
        truth[item.file] = bool(rng.integers(2))
        if truth[item.file]:
            edit = list(EDITS)[int(rng.integers(len(EDITS)))]
            copy = f"{item.half}/{item.base}-{edit}.png"
            (folder / copy).write_bytes(planted(decode(source, 2**62).image, edit, rng))
            truth[copy] = True
    return truth


def keep(image: Image.Image, name: str, base: str, issue: str, strength: str, half: str, folder: Path, rng: np.random.Generator) -> Planted:
    """Write one file: JPEG of quality 85 to 95, or one in five as PNG; faults of compression always as PNG, which keeps their blocks."""
    if issue == "blocky" or rng.integers(5) == 0:
        name = name.replace(".jpg", ".png")
        image.save(folder / half / name)
    else:
        image.save(folder / half / name, quality=int(rng.integers(85, 96)))
    return Planted(f"{half}/{name}", base, issue, strength, half)
