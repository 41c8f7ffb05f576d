"""Counts for a monitor, in the form of Prometheus, in a registry of its own.

Knows numbers. Does not know what is asked.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

__all__ = ["MEDIA_TYPE", "Metrics"]

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# From answers out of a sketch to passes over the activations.
SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class Metrics:
    """The counts of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "actisketch_requests",
            "Requests that were answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "actisketch_request_seconds",
            "Time until the last byte of an answer was handed on.",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Add a number that is asked for when the counts are read."""
        Gauge(f"actisketch_{name}", about, registry=self._registry).set_function(value)

    def count(self, method: str, route: str, status: int, elapsed_s: float) -> None:
        """Count a request. A route is the pattern of an address, never the address: there are few of them."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(elapsed_s)

    def text(self) -> bytes:
        """Return all counts as Prometheus reads them."""
        return generate_latest(self._registry)
