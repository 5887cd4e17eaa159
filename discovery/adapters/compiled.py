"""torch.compile where it pays: tried once a machine when there is enough to do, remembered, and used where it saves more than it takes."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from discovery.addressing import content_id

if TYPE_CHECKING:
    import torch

TRY_FROM_S = 180.0  # of forward passes as they are: compiling took 15 to 25 s on a CPU and takes about a minute on a GPU
TIMED_BATCHES = 3
TRY_FROM_BATCHES = 200  # so that timing them costs 2 % at most


@dataclass(frozen=True, slots=True)
class CompileTiming:
    """Seconds of one batch as it is and compiled, and of the compiling. error: why it cannot be compiled here, or empty."""

    eager_s: float
    compiled_s: float
    compile_s: float
    error: str = ""

    def saves_s(self, batches: float) -> float:
        """Seconds that compiling saves over so many batches, its own included; negative when it costs more."""
        return -float("inf") if self.error else batches * (self.eager_s - self.compiled_s) - self.compile_s


def compile_forward(forward: Callable[[torch.Tensor], torch.Tensor], device: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same function, compiled at its first call, for the one shape that every batch has."""
    import torch

    options: dict[str, Any] = {"freezing": True} if device == "cpu" else {}  # weights become constants: batch norms are folded away
    return torch.compile(forward, dynamic=False, options=options)  # type: ignore[no-any-return]


def seconds_a_batch(encode: Callable[[], object]) -> float:
    """The fastest of a few runs, after one that does not count."""
    encode()
    times = []
    for _ in range(TIMED_BATCHES):
        started = time.perf_counter()
        encode()
        times.append(time.perf_counter() - started)
    return min(times)


def timing_key(encoder_id: str, runtime: str, threads: int) -> str:
    """Under which a timing is remembered: the encoder, how it runs, and the machine with its versions."""
    import torch

    hardware = torch.cuda.get_device_name() if runtime.startswith("cuda") else torch.backends.cpu.get_cpu_capability()
    return content_id([encoder_id, runtime, threads, hardware, platform.node(), torch.__version__])


def remembered(key: str) -> CompileTiming | None:
    """What was measured on this machine, or None."""
    try:
        return CompileTiming(**json.loads(_file(key).read_text()))
    except (OSError, ValueError, TypeError):
        return None  # never tried, or by another version


def remember(key: str, timing: CompileTiming) -> None:
    """Keep a timing for the processes and runs to come; a home that cannot be written costs measuring again."""
    file = _file(key)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(asdict(timing)))
        draft.replace(file)


def _file(key: str) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "discovery" / "compiled" / f"{key}.json"
