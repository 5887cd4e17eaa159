"""The command ends at once, and yet as if Python had ended it: outputs whole, threads joined, exit handlers run, temporary folders gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*arguments: str, stdout: object = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # so that the end has something to flush
    return subprocess.run([sys.executable, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT, env=environ)  # type: ignore[call-overload]


def test_its_code_and_its_whole_answer_arrive(tmp_path: Path) -> None:
    done = run("-m", "discovery", "versions", "--json", "--root", str(tmp_path))
    assert done.returncode == 0 and json.loads(done.stdout) == {"versions": []}
    assert run("-m", "discovery", "search", "--asset", "0" * 64, "--root", str(tmp_path)).returncode == 2
    assert run("-m", "discovery", "no-such-command").returncode == 2


def test_an_answer_that_cannot_be_written_is_no_success(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run("-m", "discovery", "versions", "--root", str(tmp_path), stdout=full)
    assert done.returncode != 0 and "No space left" in done.stderr


def test_what_must_end_in_order_does(tmp_path: Path) -> None:
    code = """
import sys
from discovery.__main__ import Ending
ending = Ending()
import atexit, tempfile, threading, time
class Late:
    def __del__(self): print("taken apart")
kept = Late()
folder = tempfile.TemporaryDirectory(dir=sys.argv[1])
atexit.register(print, "handler")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
print("main")
if len(sys.argv) > 2: raise ValueError("a fault")
ending.code = 3
sys.exit(3)
"""
    done = run("-c", code, str(tmp_path))
    assert (done.returncode, done.stdout.split("\n")) == (3, ["main", "thread", "handler", ""]) and not done.stderr  # and nothing was taken apart
    assert not list(tmp_path.iterdir())
    broken = run("-c", code, str(tmp_path), "break")
    assert broken.returncode == 1 and "ValueError: a fault" in broken.stderr and broken.stdout.split() == ["main", "thread", "handler", "taken", "apart"]
