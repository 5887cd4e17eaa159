"""Decoders in processes of their own: what a picture can do to one, and that the run does not notice."""

from __future__ import annotations

import io
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from PIL import Image

from discovery.adapters.decoder_pool import DecodeLimits, DecoderPool
from discovery.config import Config
from discovery.errors import DiscoveryError
from discovery.stages import ingest as stage
from discovery.workspace import open_workspace

LIMITS = DecodeLimits(max_pixels=10**6, thumbnail_px=32, seconds=1.0, memory_bytes=4 * 2**30)
FAULTY = "tests.ingest.crashing_decoder"


def png(width: int, height: int = 40) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(sink, "PNG")
    return sink.getvalue()


def decoders() -> list[psutil.Process]:
    """Decoder processes of this one; other tests leave children of other kinds."""
    return [child for child in psutil.Process().children() if any("decoder" in part for part in child.cmdline())]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@pytest.mark.parametrize(
    ("width", "reason", "detail"),
    [
        (61, "crashed_decoder", "signal SIGSEGV"),
        (62, "timeout", "within 1 s"),
        (63, "timeout", "within 1 s"),
        (64, "crashed_decoder", "exit code 7"),
    ],
)
def test_a_picture_that_kills_its_decoder_costs_itself_only(width: int, reason: str, detail: str) -> None:
    with DecoderPool(1, LIMITS, FAULTY) as pool:
        facts, webp = pool.examine(png(width))
        assert facts["reason"] == reason and detail in facts["detail"] and webp == b""
        facts, webp = pool.examine(png(65))
        assert (facts["width_px"], facts["height_px"]) == (65, 40)
        assert Image.open(io.BytesIO(webp)).size == (32, 20)


def test_threads_share_the_processes_and_get_their_own_answers() -> None:
    with DecoderPool(2, LIMITS) as pool, ThreadPoolExecutor(8) as threads:
        widths = [facts["width_px"] for facts, _ in threads.map(pool.examine, map(png, range(1, 200)))]
        assert widths == list(range(1, 200))
        assert len(decoders()) == 2
    assert decoders() == []


def test_a_decoder_that_was_killed_from_outside_is_replaced() -> None:
    with DecoderPool(1, LIMITS) as pool:
        pool.examine(png(10))
        (child,) = decoders()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert pool.examine(png(11))[0]["reason"] == "crashed_decoder"
        assert pool.examine(png(11))[0]["width_px"] == 11


def test_memory_is_limited() -> None:
    tight = DecodeLimits(max_pixels=10**9, thumbnail_px=32, seconds=30.0, memory_bytes=700 * 2**20)
    with DecoderPool(1, tight) as pool:
        facts, _ = pool.examine(png(14_000, 14_000))
        assert facts["reason"] == "too_many_pixels" and "memory" in facts["detail"]
        assert pool.examine(png(20))[0]["width_px"] == 20


def test_decoders_that_cannot_start_end_the_run_and_reject_nothing() -> None:
    with DecoderPool(1, LIMITS, "discovery.no_such_module") as pool, pytest.raises(DiscoveryError, match="exit code 1 before its first"):
        pool.examine(png(10))


def test_a_decoder_ends_with_its_parent() -> None:
    with DecoderPool(1, LIMITS) as pool:
        pool.examine(png(10))
        (child,) = decoders()
    assert not child.is_running()


def test_ingest_goes_on_after_crashes_and_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    for width in range(58, 68):
        (tmp_path / "photos" / f"{width}.png").write_bytes(png(width))
    monkeypatch.setattr(stage, "DecoderPool", lambda size, limits: DecoderPool(size, limits, FAULTY))
    settings = {"decoders": 2, "decode_seconds": 0.5}
    with open_workspace(Config(root=str(tmp_path / "root")).replace(ingest=settings, dask={"scheduler": "inline"})) as ws:
        manifest = stage.ingest([str(tmp_path / "photos")], ws)
        assert manifest.assets == 6 and manifest.rejections == {"crashed_decoder": 2, "timeout": 2}
        rejected = [Path(row["source_uri"]).stem for row in ws.store.read_table(manifest).to_pylist() if row["reason"]]
        assert rejected == ["61", "62", "63", "64"]
