"""A decoder process whose library has the faults that real ones have, at pictures of certain widths."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

from discovery.adapters import decoder_child

examine = decoder_child.examine


def faulty(data: bytes, *limits: Any) -> tuple[dict[str, Any], bytes]:
    facts, webp = examine(data, *limits)
    match facts.get("width_px"):
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
    return facts, webp


if __name__ == "__main__":
    decoder_child.examine = faulty
    decoder_child.main()
