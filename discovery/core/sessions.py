"""Device sessions: pictures that one camera took without a long pause, such as an afternoon's walk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SESSION_GAP_S = 1800.0  # half an hour without a picture ends a session


def device_sessions(cameras: Sequence[str | None], taken_s: NDArray[np.float64], gap_s: float = SESSION_GAP_S) -> list[str | None]:
    """A name for the session of each of n pictures: its camera and the time of its first picture; None where camera or time is unknown.

    cameras: what tells cameras apart, such as make and model. taken_s: (n,) seconds by the camera's clock, NaN for unknown. Pictures of one
    camera are of one session as long as none is more than gap_s after the one before. Two cameras of one make and model are taken for one.

    >>> device_sessions(["X", "X", "Y", "X", None], np.array([0.0, 1700.0, 100.0, 9000.0, 5.0]))
    ['X 1970-01-01T00:00:00', 'X 1970-01-01T00:00:00', 'Y 1970-01-01T00:01:40', 'X 1970-01-01T02:30:00', None]
    """
    names: list[str | None] = [None] * len(cameras)
    known = [row for row, camera in enumerate(cameras) if camera and np.isfinite(taken_s[row])]
    last: tuple[str, float] | None = None
    name = ""
    for row in sorted(known, key=lambda row: (str(cameras[row]), taken_s[row])):
        camera, moment = str(cameras[row]), float(taken_s[row])
        if last is None or camera != last[0] or moment - last[1] > gap_s:
            name = f"{camera} {np.datetime64(round(moment), 's')}"
        names[row], last = name, (camera, moment)
    return names
