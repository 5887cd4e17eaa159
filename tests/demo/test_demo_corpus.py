"""The demo corpus without a network: planted files are what the truth says, on pictures generated here."""

import csv
import hashlib
import random
import struct
import subprocess
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from demo import corpus, packages, planting, plants, rcc, screen
from demo.licences import licence_of, stanzas
from demo.packages import Package, PackageUnavailable
from demo.planting import Plan, TooFewPictures, plant
from demo.sources import Picture, slug
from demo.truth import BadTruth, Truth

PLAN = Plan(
    held_out=6,
    novel=4,
    wallpapers=2,
    exact=(4, 2),
    near=(6, 3),
    blank=3,
    reencoded=("gif", "tiff", "bmp"),
    oriented=(3, 6, 8),
)


def made(path: Path, seed: int, size: tuple[int, int] = (160, 140)) -> Path:
    """A smooth picture of random colours, unlike that of any other seed; JPEG or PNG by its suffix."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path


def sources(folder: Path, everyday: int = 40, wallpapers: int = 5, novel: int = 6) -> list[Picture]:
    """Half JPEG, half PNG; two labels of everyday pictures."""
    found: list[Picture] = []
    for label, number in (("animals", everyday // 2), ("food", everyday - everyday // 2), ("wallpaper", wallpapers)):
        for at in range(number):
            path = made(folder / label / f"{at:02d}.{'jpg' if at % 2 else 'png'}", seed=len(found))
            found.append(Picture(path, label, f"pack-{label}", "CC0-1.0"))
    for at in range(novel):
        path = made(folder / "deep-sky" / f"m{at}.png", seed=10_000 + at)
        found.append(Picture(path, "deep-sky", "pack-sky", "GPL-2+"))
    return found


def built(tmp_path: Path, name: str = "corpus", seed: int = 7) -> tuple[Path, Truth]:
    out = tmp_path / name
    out.mkdir()
    return out, plant(sources(tmp_path / "sources"), out, seed, PLAN, reduced=False)


def fingerprints(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def grey(
    content: bytes | Path, size: tuple[int, int] = (64, 64)
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    with Image.open(BytesIO(content) if isinstance(content, bytes) else content) as image:
        upright = ImageOps.exif_transpose(image)
        return np.asarray(screen.on_white(upright).convert("L").resize(size), dtype=np.float64)


# The plan on generated pictures.


def test_counts_of_a_planted_corpus_are_those_of_the_plan(tmp_path: Path) -> None:
    _, truth = built(tmp_path)
    # 40 everyday pictures and 2 of 5 wallpapers make 42; 6 are held out, 36 stay. 36 + 4 + 6 + 8 + 3 = 57.
    assert truth.counts["batch-1"] == {
        "files": 57, "exact_copies": 4, "near_copies": 6, "unreadable": 8, "blank": 3, "novel_family": 0,
    }  # fmt: skip
    # 6 held out + 4 novel + 2 exact + 3 near + 2 unreadable = 17.
    assert truth.counts["batch-2"] == {
        "files": 17, "exact_copies": 2, "near_copies": 3, "unreadable": 2, "blank": 0, "novel_family": 4,
    }  # fmt: skip
    assert sum(truth.sources.values()) == 46
    assert truth.sources["pack-wallpaper"] == 2


def test_files_on_disk_are_those_counted_and_licensed(tmp_path: Path) -> None:
    out, truth = built(tmp_path)
    on_disk = {path for path in fingerprints(out) if path.startswith("batch-")}
    assert len(on_disk) == 57 + 17
    with (out / "LICENCES.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == on_disk
    assert all(row["source"] and row["licence"] for row in rows)
    assert Truth.load(out) == truth


def test_byte_identical_files_are_exactly_the_planted_pairs(tmp_path: Path) -> None:
    out, truth = built(tmp_path)
    by_digest: dict[str, set[str]] = {}
    for path, digest in fingerprints(out).items():
        by_digest.setdefault(digest, set()).add(path)
    found = {frozenset(paths) for paths in by_digest.values() if len(paths) > 1}
    assert found == {frozenset(pair) for pair in truth.exact_copies}
    assert [copy.split("/")[0] for _, copy in truth.exact_copies] == ["batch-1"] * 4 + ["batch-2"] * 2
    assert all(original.startswith("batch-1/") for original, _ in truth.exact_copies)


def test_files_that_do_not_decode_are_exactly_the_unreadable_ones(tmp_path: Path) -> None:
    out, truth = built(tmp_path)
    failing = {path for path in fingerprints(out) if "/" in path and not plants.decodes((out / path).read_bytes())}
    assert failing == {entry["path"] for entry in truth.unreadable}


def test_uniform_pictures_are_exactly_the_blank_ones(tmp_path: Path) -> None:
    out, truth = built(tmp_path)
    unreadable = {entry["path"] for entry in truth.unreadable}
    readable = {path for path in fingerprints(out) if "/" in path} - unreadable
    assert {path for path in readable if grey(out / path).std() < 1} == set(truth.blank)
    assert len(truth.blank) == 3


def test_no_original_is_copied_twice(tmp_path: Path) -> None:
    _, truth = built(tmp_path)
    originals = [pair[0] for pair in truth.exact_copies] + [near[0] for near in truth.near_copies]
    assert len(originals) == len(set(originals)) == 6 + 9


def test_near_copies_are_nearer_to_their_original_than_to_any_other_picture(tmp_path: Path) -> None:
    out, truth = built(tmp_path)
    originals = {original: grey(out / original) for original, _, _ in truth.near_copies}
    for original, copy, _edit in truth.near_copies:
        pixels = grey(out / copy)
        distances = {path: float(np.abs(pixels - other).mean()) for path, other in originals.items()}
        assert min(distances, key=lambda path: distances[path]) == original
        assert (out / copy).read_bytes() != (out / original).read_bytes()


def test_novel_family_is_in_batch_2_only_and_below_half_of_it(tmp_path: Path) -> None:
    _, truth = built(tmp_path)
    assert len(truth.novel_family) == 4
    assert all(path.startswith("batch-2/deep-sky/") for path in truth.novel_family)
    for plan in (planting.FULL, planting.REDUCED):
        planted = plan.exact[1] + plan.near[1] + len(plan.unreadable[1])
        assert plan.novel / (plan.held_out + plan.novel + planted) < 0.35


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, second, other = (built(tmp_path, name, seed)[0] for name, seed in (("a", 7), ("b", 7), ("c", 8)))
    assert fingerprints(first) == fingerprints(second)
    assert fingerprints(first).keys() != fingerprints(other).keys()


def test_too_few_novel_pictures_are_refused_with_both_numbers(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(TooFewPictures, match=r"4 novel and 12 everyday pictures, the sources have 3 and 42"):
        plant(sources(tmp_path / "sources", novel=3), tmp_path / "out", 7, PLAN, reduced=False)


# What is planted.


@pytest.mark.parametrize("edit", plants.EDITS)
def test_each_edit_changes_the_file_and_little_of_the_picture(tmp_path: Path, edit: str) -> None:
    original = made(tmp_path / "a.png", seed=1)
    content, suffix = plants.near_copy(original, edit)
    assert content != original.read_bytes()
    assert suffix == (".jpg" if edit == "jpeg-60" else ".png")
    assert 0 < np.abs(grey(content) - grey(original)).mean() < 12


@pytest.mark.parametrize(
    ("edit", "size"), [("resize-1/2", (80, 70)), ("resize-3/4", (120, 105)), ("crop-0.04", (154, 134))]
)
def test_sizes_after_an_edit_of_160_x_140(tmp_path: Path, edit: str, size: tuple[int, int]) -> None:
    # crop: 2 % on each side are 3.2 and 2.8 px, both rounded to 3.
    content, _ = plants.near_copy(made(tmp_path / "a.jpg", seed=1), edit)
    with Image.open(BytesIO(content)) as image:
        assert image.size == size


def test_transparent_pictures_are_copied_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (140, 140), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    content, _ = plants.near_copy(tmp_path / "clear.png", "resize-1/2")
    assert grey(content).min() == 255


@pytest.mark.parametrize("kind", plants.UNREADABLE)
def test_unreadable_files_do_not_decode_and_are_repeatable(tmp_path: Path, kind: str) -> None:
    donor = made(tmp_path / "donor.jpg", seed=2)
    content, suffix = plants.unreadable(kind, donor, random.Random(1))
    assert not plants.decodes(content)
    assert suffix in {".jpg", ".png", ".webp"}
    assert (content, suffix) == plants.unreadable(kind, donor, random.Random(1))


def test_bomb_is_tiny_and_declares_1600_megapixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)  # Pillow's default; our decoder checks its own limit instead
    content, _ = plants.unreadable("bomb", made(tmp_path / "donor.jpg", seed=2), random.Random(1))
    assert len(content) < 100
    assert struct.unpack(">2I", content[16:24]) == (40_000, 40_000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(BytesIO(content))


def test_a_plant_that_still_decodes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    donor = made(tmp_path / "donor.jpg", seed=2)
    monkeypatch.setitem(plants.UNREADABLE, "empty", lambda donor, rng: (donor.read_bytes(), ".jpg"))
    with pytest.raises(plants.PlantFailed, match="empty"):
        plants.unreadable("empty", donor, random.Random(1))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_oriented_pictures_lie_turned_and_show_upright(tmp_path: Path, orientation: int) -> None:
    original = made(tmp_path / "a.jpg", seed=3)
    content = plants.oriented(original, orientation)
    with Image.open(BytesIO(content)) as image:
        assert image.getexif()[plants.ORIENTATION_TAG] == orientation
        assert image.size == ((160, 140) if orientation == 3 else (140, 160))
        as_stored = np.asarray(image.convert("L").resize((64, 64)), dtype=np.float64)
    assert np.abs(grey(content) - grey(original)).mean() < 3
    assert np.abs(as_stored - grey(original)).mean() > 20


@pytest.mark.parametrize(("suffix", "format_name"), plants.FORMATS.items())
def test_reencoded_pictures_have_the_format_of_their_suffix(tmp_path: Path, suffix: str, format_name: str) -> None:
    content = plants.reencoded(made(tmp_path / "a.png", seed=4), suffix)
    with Image.open(BytesIO(content)) as image:
        assert image.format == format_name
    assert np.abs(grey(content) - grey(tmp_path / "a.png")).mean() < 12


# What is left out.


def test_screen_keeps_one_of_equal_pixels_and_no_icon_blank_or_broken_file(tmp_path: Path) -> None:
    kept = made(tmp_path / "kept.png", seed=5)
    with Image.open(kept) as image:
        image.save(tmp_path / "same-pixels.bmp")
        image.resize((47, 200)).save(tmp_path / "icon.png")
        image.resize((4000, 3001)).save(tmp_path / "12-megapixels.jpg")
    Image.new("RGB", (100, 100), "white").save(tmp_path / "white.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    names = ("kept.png", "same-pixels.bmp", "icon.png", "12-megapixels.jpg", "white.png", "broken.jpg")
    pictures = [Picture(tmp_path / name, "x", "y", "z") for name in names]
    assert [picture.path.name for picture in screen.screened(pictures)] == ["kept.png"]


# Truth.


def test_truth_survives_json(tmp_path: Path) -> None:
    _, truth = built(tmp_path)
    assert Truth.from_json(truth.to_json()) == truth


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"recipe": 1, "other": 2}'])
def test_truth_with_other_fields_is_refused(text: str) -> None:
    with pytest.raises(BadTruth, match=r"truth\.json"):
        Truth.from_json(text)


# The folder that appears at the end.


@pytest.fixture
def local_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """build_corpus on generated pictures; the list has an entry for each fetch."""
    fetches: list[int] = []

    def fetch(cache: Path) -> list[Picture]:
        fetches.append(1)
        return sources(tmp_path / "sources")

    monkeypatch.setattr(corpus, "fetch_apt", fetch)
    monkeypatch.setattr(corpus, "FULL", PLAN)
    monkeypatch.setattr(corpus, "REDUCED", PLAN)
    return fetches


def test_a_corpus_that_is_there_is_not_built_again(tmp_path: Path, local_sources: list[int]) -> None:
    first = corpus.build_corpus(tmp_path / "out", tmp_path / "cache")
    assert corpus.build_corpus(tmp_path / "out", tmp_path / "cache") == first
    assert len(local_sources) == 1


def test_a_corpus_of_another_seed_or_recipe_is_replaced(
    tmp_path: Path, local_sources: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.build_corpus(tmp_path / "out", tmp_path / "cache")
    assert corpus.build_corpus(tmp_path / "out", tmp_path / "cache", seed=8).seed == 8
    monkeypatch.setattr(corpus, "RECIPE", planting.RECIPE + 1)
    corpus.build_corpus(tmp_path / "out", tmp_path / "cache", seed=8)
    assert len(local_sources) == 3
    assert Truth.load(tmp_path / "out").seed == 8


def test_a_folder_with_other_files_is_left_as_it_is(tmp_path: Path, local_sources: list[int]) -> None:
    made(tmp_path / "out" / "holiday.jpg", seed=1)
    with pytest.raises(corpus.NotACorpus, match="left as it is"):
        corpus.build_corpus(tmp_path / "out", tmp_path / "cache")
    assert list(fingerprints(tmp_path / "out")) == ["holiday.jpg"]


def test_a_build_that_fails_leaves_nothing_and_keeps_the_old_corpus(
    tmp_path: Path, local_sources: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.build_corpus(tmp_path / "out", tmp_path / "cache")
    before = fingerprints(tmp_path / "out")
    monkeypatch.setattr(plants, "blank", lambda number: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        corpus.build_corpus(tmp_path / "out", tmp_path / "cache", seed=8)
    assert fingerprints(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["out", "sources"]


def test_without_apt_the_reduced_corpus_is_built_and_says_so(
    tmp_path: Path, local_sources: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_apt(cache: Path) -> list[Picture]:
        raise PackageUnavailable("no apt here")

    monkeypatch.setattr(corpus, "fetch_pypi", lambda cache: sources(tmp_path / "sources"))
    monkeypatch.setattr(corpus, "fetch_apt", no_apt)
    assert corpus.build_corpus(tmp_path / "out", tmp_path / "cache").reduced
    with pytest.raises(PackageUnavailable):
        corpus.build_corpus(tmp_path / "out", tmp_path / "cache", source="apt")


# Packages.


def test_no_command_runs_for_packages_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package("some", ".*", "CC0-1.0", "1.0")
    for kind in ("deb", "wheel"):
        (tmp_path / f"{kind}-v{packages.UNPACK_VERSION}" / ("some" if kind == "deb" else "some-1.0")).mkdir(
            parents=True
        )
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("a command was run"))
    assert packages.unpacked_deb(package, tmp_path).name == "some"
    assert packages.unpacked_wheel(package, tmp_path).name == "some-1.0"


def test_a_machine_without_apt_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackageUnavailable, match=r"some: apt-get is not on this machine's PATH.*--source pypi"):
        packages.unpacked_deb(Package("some", ".*", "CC0-1.0"), tmp_path)


def test_a_failed_pip_is_told_and_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="WARNING: x\nERROR: No matching distribution\n")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: failed)
    with pytest.raises(PackageUnavailable, match=r"some==1\.0: pip download failed: ERROR: No matching distribution"):
        packages.unpacked_wheel(Package("some", ".*", "CC0-1.0", "1.0"), tmp_path)
    assert list((tmp_path / f"wheel-v{packages.UNPACK_VERSION}").iterdir()) == []


@pytest.mark.parametrize("path", ["../outside.png", "/outside.png"])
def test_paths_outside_of_the_package_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(PackageUnavailable, match="outside"):
        packages._write(tmp_path / "folder", path, BytesIO(b"x"))


# Qt resources and licences.


def resource(flags: int = 0, content: bytes = b"picture") -> bytes:
    """A resource, version 3, with the one file images/fish.webp: root, folder, file; nodes of 22 bytes."""
    names, at = b"", []
    for name in ("images", "fish.webp"):
        at.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    root = struct.pack(">IHII", 0, rcc.IS_FOLDER, 1, 1) + bytes(8)
    folder = struct.pack(">IHII", at[0], rcc.IS_FOLDER, 1, 2) + bytes(8)
    file = struct.pack(">IHII", at[1], flags, 0, 0) + bytes(8)
    data = struct.pack(">I", len(content)) + content
    tree_at = 20
    data_at = tree_at + 66
    header = b"qres" + struct.pack(">4I", 3, tree_at, data_at, data_at + len(data))
    return header + root + folder + file + data + names


def test_resource_gives_its_files_by_path() -> None:
    assert list(rcc.files(resource())) == [("images/fish.webp", b"picture")]


def test_packed_file_of_a_resource_is_unpacked() -> None:
    packed = struct.pack(">I", 700) + zlib.compress(b"picture" * 100)
    assert list(rcc.files(resource(rcc.IS_ZLIB, packed))) == [("images/fish.webp", b"picture" * 100)]


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (b"PK\x03\x04" + bytes(60), "magic"),
        (resource()[:30], "damaged"),
        (resource(rcc.IS_ZSTD), "zstd"),
        (resource(rcc.IS_ZLIB, b"not zlib at all"), "damaged"),
        (resource()[:48] + struct.pack(">II", 1, 0) + resource()[56:], "loop"),
    ],
)
def test_damaged_resources_are_refused(damaged: bytes, said: str) -> None:
    with pytest.raises(rcc.BadResource, match=said):
        list(rcc.files(damaged))


def test_licence_of_a_file_is_that_of_the_last_fitting_stanza() -> None:
    known = stanzas(
        "Format: x\n\nFiles: *\nLicense: GPL-3+\n\nFiles: src/a/fish1.jpg\n src/a/b*\nLicense: CC0-1.0\n text\n"
    )
    assert licence_of("src/a/fish1.webp", known, "?") == "CC0-1.0"
    assert licence_of("src/a/bird.webp", known, "?") == "CC0-1.0"
    assert licence_of("src/a/fish10.webp", known, "?") == "GPL-3+"
    assert licence_of("src/a/fish1.webp", [], "unknown") == "unknown"


@pytest.mark.parametrize(
    ("text", "expected"), [("Doors and windows", "doors-and-windows"), ("Ünïcode_9", "n-code-9"), ("…", "x")]
)
def test_slug(text: str, expected: str) -> None:
    assert slug(text) == expected
