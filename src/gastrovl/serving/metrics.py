"""What happens in a server to numbers that Prometheus reads."""

from __future__ import annotations

from collections.abc import Sequence

from gastrovl.serving.engine import Engine

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server, in a registry of their own; an `engine.Watch`."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        self._requests = Counter(
            "gastrovl_requests", "Requests by route and status.", ["route", "status"], registry=self._registry
        )
        self._request_seconds = Histogram(
            "gastrovl_request_seconds",
            "From a request to its end.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._refused = Counter(
            "gastrovl_refused", "Requests that got no answer, by reason.", ["code"], registry=self._registry
        )
        self._batch = Histogram(
            "gastrovl_batch_size", "Questions answered together.", ["model"], buckets=_BATCH, registry=self._registry
        )
        self._batch_seconds = Histogram(
            "gastrovl_batch_seconds", "Of one batch.", ["model", "way"], buckets=_SECONDS, registry=self._registry
        )
        self._failures = Counter(
            "gastrovl_failures", "Questions at which a model failed.", ["model"], registry=self._registry
        )
        self._waiting = Gauge("gastrovl_waiting", "Questions in the queue.", ["model"], registry=self._registry)
        self._running = Gauge("gastrovl_running", "Questions being answered.", ["model"], registry=self._registry)

    def requested(self, route: str, status: int, seconds: float) -> None:
        """A request has ended."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def refused(self, code: str) -> None:
        self._refused.labels(code).inc()

    def worked(self, model: str, batch: int, seconds: float, is_stream: bool) -> None:
        self._batch.labels(model).observe(batch)
        self._batch_seconds.labels(model, "stream" if is_stream else "whole").observe(seconds)

    def failed(self, model: str, error: BaseException) -> None:
        del error
        self._failures.labels(model).inc()

    def watch(self, engines: Sequence[Engine]) -> None:
        """Show how many questions wait and run."""
        for engine in engines:
            self._waiting.labels(engine.name).set_function(lambda engine=engine: engine.waiting)
            self._running.labels(engine.name).set_function(lambda engine=engine: engine.running)

    def text(self) -> tuple[bytes, str]:
        """All numbers in Prometheus' text form, and its media type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._registry), CONTENT_TYPE_LATEST
