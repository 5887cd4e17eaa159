"""Fixtures shared by all tests: generated pictures, settings that stay in this process, a local S3 server."""

import logging
import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # before numpy and torch are loaded: their threads wait for one another by spinning, and tests beside
    for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # each other, with all cores each, take half as much time again
        os.environ.setdefault(_name, str(max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))))

import numpy as np
import pytest
from absl import logging as absl_logging
from PIL import Image

from tests.order import rank

# absl, which mlcroissant logs with, closes the stream that it found when it was imported, as soon as somebody sets logging up anew and `sys.stderr` is another
# one then: Airflow does, at its first import, and in a test with capsys the stream is pytest's own. The process's standard error it never closes.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stable: files of one rank, and the tests of a file, stay in their order."""
    items.sort(key=lambda item: rank(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from tests.order import SlowestFirst

    config.option.loadscopereorder = False  # it puts the files with the fewest tests, which are the slowest, last
    return SlowestFirst(config, log)


@pytest.fixture(autouse=True)
def _the_root_logger_stays() -> Iterator[None]:
    """A test that is the first to import Airflow has its logging set up, onto a standard error that pytest closes after that test.

    Without this the tests after it in the same process print `I/O operation on closed file` where they log.
    """
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in [one for one in root.handlers if type(one) is logging.StreamHandler and one not in before]:
        root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="session")
def tiny_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 12 pictures of 64 x 48 px that share nothing."""
    folder = tmp_path_factory.mktemp("tiny pictures")
    rng = np.random.default_rng(5)
    for number in range(12):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
        coarse.resize((64, 48), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def moto_endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty S3 server on this machine, with credentials for it in the environment."""
    import s3fs
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    s3fs.S3FileSystem.clear_instance_cache()
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()  # one memory a process
    yield f"http://{host}:{port}"
    server.stop()
