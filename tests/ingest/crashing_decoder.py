"""A decoder process whose library has the faults that real ones have, at pictures of certain widths, and at the third frame of certain videos."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from typing import Any

from discovery.adapters import decoder_child

examine, examine_video = decoder_child.examine, decoder_child.examine_video


def faulty(data: bytes, *limits: Any) -> decoder_child.Answer:
    answer = examine(data, *limits)
    fail(answer[0].get("width_px"))
    return answer


def faulty_video(request: dict[str, Any], *limits: Any) -> Iterator[decoder_child.Answer]:
    for number, answer in enumerate(examine_video(request, *limits)):
        if number == 2:
            fail(int(request["video_id"][:2]))
        yield answer


def fail(how: int | None) -> None:
    match how:
        case 61:
            ctypes.string_at(0)  # a segmentation fault
        case 62:
            while True:  # a hang that holds the interpreter lock
                pass
        case 63:
            time.sleep(3600)
        case 64:
            os._exit(7)
        case 65:
            print("a library that talks on stdout")


if __name__ == "__main__":
    decoder_child.examine, decoder_child.examine_video = faulty, faulty_video
    decoder_child.main()
