"""A store never ingests itself, whatever name leads to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import s3fs

from discovery.config import Config
from discovery.errors import SourceNotFound
from discovery.stages.ingest import ingest
from discovery.workspace import open_workspace
from tests.ingest.test_ingest_incremental import open_root, picture, read_by, rows


def by_a_link(base: Path) -> tuple[str, str]:
    (base / "link").symlink_to(base / "photos")
    return str(base / "link"), str(base / "photos" / "store")


def by_dots(base: Path) -> tuple[str, str]:
    (base / "photos" / "a").mkdir()
    return str(base / "photos"), str(base / "photos" / "a" / ".." / "store")


def by_a_glob(base: Path) -> tuple[str, str]:
    return str(base / "photos" / "**" / "*"), str(base / "photos" / "store")


def by_a_glob_below(base: Path) -> tuple[str, str]:
    return str(base / "photos" / "**" / "*.webp"), str(base / "photos" / "store")


def by_a_linked_folder(base: Path) -> tuple[str, str]:
    (base / "photos" / "album").symlink_to(base / "elsewhere" / "store" / "thumbnails")
    return str(base / "photos"), str(base / "elsewhere" / "store")


def by_a_linked_file(base: Path) -> tuple[str, str]:
    (base / "photos" / "linked").symlink_to(base / "elsewhere" / "store" / "catalog.db")
    return str(base / "photos"), str(base / "elsewhere" / "store")


@pytest.mark.parametrize("way", [by_a_link, by_dots, by_a_glob, by_a_glob_below, by_a_linked_folder, by_a_linked_file])
def test_no_name_leads_into_the_store(way: object, tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "photos" / f"{number}.{('png', 'webp')[number % 2]}", number)
    assert callable(way)
    source, root = way(tmp_path)
    with open_root(Path(root)) as ws:  # type: ignore[attr-defined]
        first = ingest([source], ws)  # after it there are thumbnails and copies to be found
        assert first.rows == first.assets > 0
        picture(tmp_path / "photos" / "new.webp", 9)
        second = ingest([source], ws)
        assert (second.rows, second.assets, second.rejections) == (first.rows + 1, first.rows + 1, {})


@pytest.mark.live
@pytest.mark.parametrize("source", ["s3://photos", "s3://photos/", "s3://photos/**"])
def test_a_bucket_that_holds_the_root(source: str, moto_endpoint: str, tmp_path: Path) -> None:
    filesystem = s3fs.S3FileSystem(client_kwargs={"endpoint_url": moto_endpoint})
    filesystem.mkdir("photos")
    data = picture(tmp_path / "x.png", 1).read_bytes()
    filesystem.pipe({"photos/a.png": data, "photos/store2/b.png": data + b" "})
    config = Config(root="s3://photos/store").replace(
        dask={"scheduler": "inline"}, ingest={"decoders": 1}, s3={"endpoint_url": moto_endpoint},
        catalog={"url": f"sqlite:///{tmp_path / 'catalog.db'}"}, mlflow={"tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"},
    )  # fmt: skip
    with open_workspace(config) as ws:
        first = ingest([source], ws)
        assert [row["source_uri"] for row in rows(first, ws)] == ["s3://photos/a.png", "s3://photos/store2/b.png"]
        assert ingest([source], ws) == first  # though the store has grown
        with pytest.raises(SourceNotFound, match=r"is empty.*without the store's own files"):
            ingest(["s3://photos/store"], ws)


def test_pictures_below_the_root_are_a_source_and_what_the_store_made_there_is_none(tmp_path: Path) -> None:
    picture(tmp_path / "photos" / "a.png", 1)
    (tmp_path / "photos" / "up").symlink_to(tmp_path)
    with open_root(tmp_path) as ws:  # type: ignore[attr-defined]
        manifest, _ = read_by(ws, tmp_path / "photos")
        assert manifest.rows == manifest.assets == 1
        for own in (tmp_path, tmp_path / "assets", next((tmp_path / "assets").iterdir()), tmp_path / "thumbnails" / "256" / "*" / "*"):
            with pytest.raises(SourceNotFound, match="is empty"):
                read_by(ws, own)


def test_a_list_that_names_a_file_of_the_store_says_so(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    with open_root(tmp_path / "store") as ws:  # type: ignore[attr-defined]
        read_by(ws, tmp_path / "a.png")
        (thumbnail,) = (tmp_path / "store" / "thumbnails").rglob("*.webp")
        (tmp_path / "list.csv").write_text(f"uri\na.png\n{os.path.relpath(thumbnail, tmp_path)}\n")
        manifest, _ = read_by(ws, tmp_path / "list.csv")
        assert [row["detail"] for row in rows(manifest, ws)] == [None, "a file of the store itself, which is no source"]
