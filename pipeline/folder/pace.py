"""Estimate how fast a stage runs and how long it will take.

Knows numbers and times. Does not know what is counted, or how it is shown.
"""

from __future__ import annotations

from collections import deque
from statistics import linear_regression

__all__ = ["Pace"]

# The pace is measured over the last minute, or over the last half of the time if that is longer: over a short time it
# jumps with each block that is written, over the whole time it never forgets a slow start.
WINDOW_S = 60.0
# The number of marks that are kept of that time.
N_MARKS = 200


class Pace:
    """The pace of one stage.

    Parameters
    ----------
    n_total, n_done : int
        Units in all, and those that an earlier run did.

    Notes
    -----
    Time counts from the first mark: before it, the network is traced, workers start and files are opened.
    """

    def __init__(self, n_total: int = 0, n_done: int = 0) -> None:
        self._n_total, self.n_done = n_total, n_done
        self._marks: deque[tuple[float, int]] = deque()
        self._first_s = 0.0

    def mark(self, n_done: int, now_s: float) -> None:
        """Note how many units are done by now."""
        if not self._marks:
            self._first_s = now_s
        self.n_done = n_done
        window_s = max(WINDOW_S, (now_s - self._first_s) / 2)
        if len(self._marks) > 2 and now_s - self._marks[-2][0] < window_s / N_MARKS:
            self._marks.pop()
        self._marks.append((now_s, n_done))
        while len(self._marks) > 2 and self._marks[1][0] <= now_s - window_s:
            self._marks.popleft()

    @property
    def per_second(self) -> float | None:
        """Units per second; None before the second mark."""
        if len(self._marks) < 2 or self._marks[-1][0] <= self._marks[0][0]:
            return None
        # A line through all marks: workers finish their blocks in bursts, so the first and the last mark alone mislead.
        slope = linear_regression(*zip(*self._marks, strict=True)).slope
        return slope if slope > 0 else None

    def left_s(self, now_s: float) -> float | None:
        """Return the seconds that are left; None while unknown."""
        rate = self.per_second
        if rate is None or not self._n_total:
            return None
        return max(0.0, (self._n_total - self.n_done) / rate - (now_s - self._marks[-1][0]))
