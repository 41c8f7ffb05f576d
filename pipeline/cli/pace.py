"""How fast a stage goes and how long it still takes: an estimate that holds.

Knows numbers and times. Does not know what is counted, or how it is shown.
"""

from __future__ import annotations

from collections import deque
from statistics import linear_regression

__all__ = ["Pace"]

# The pace is that of the last so many seconds, or of the last half of the time when that is more: a short one jumps
# with each block that is written, one over everything never forgets a slow start.
WINDOW_S = 60.0
# So many marks are kept of that time.
N_MARKS = 200


class Pace:
    """Of one stage.

    Parameters
    ----------
    n_total, n_done : int
        Units in all, and what an earlier run did.

    Notes
    -----
    Time counts from the first mark on: before it a network is traced, workers start, files are opened.
    """

    def __init__(self, n_total: int = 0, n_done: int = 0) -> None:
        self._n_total, self.n_done = n_total, n_done
        self._marks: deque[tuple[float, int]] = deque()
        self._first_s = 0.0

    def mark(self, n_done: int, now_s: float) -> None:
        """Note that so many units are done by now."""
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
        """Units a second; None before there are two marks."""
        if len(self._marks) < 2 or self._marks[-1][0] <= self._marks[0][0]:
            return None
        # A line through all marks: workers finish their blocks in bursts, whose first and last differ by a burst.
        slope = linear_regression(*zip(*self._marks, strict=True)).slope
        return slope if slope > 0 else None

    def left_s(self, now_s: float) -> float | None:
        """Return the seconds that are left; None where nobody knows yet."""
        rate = self.per_second
        if rate is None or not self._n_total:
            return None
        return max(0.0, (self._n_total - self.n_done) / rate - (now_s - self._marks[-1][0]))
