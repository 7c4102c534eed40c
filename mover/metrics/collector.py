"""All metrics of a moment, and the two ways out: as text, or served on loopback."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mover.agentstate import AgentState
from mover.alarms.find import find_alarms
from mover.catalogue.database import Database
from mover.config import Config
from mover.errors import ConfigError, RunDirectoryError
from mover.metrics.box import alarm_metrics, credential_metrics, daemon_metrics, disk_metrics
from mover.metrics.catalogue import (
    bundle_metrics,
    endpoint_metrics,
    job_metrics,
    replica_metrics,
    run_metrics,
    tape_metrics,
)
from mover.steps.retention import fill_percent

log = logging.getLogger("mover")

_END_SECONDS = 30.0


class MoverCollector(Collector):
    """Reads everything anew each time that it is asked; any thread may ask.

    Args:
        now: the clock.
        ask_agents: what the credential agents say; it must not wait for long.
    """

    def __init__(
        self, config: Config, *, now: Callable[[], datetime], ask_agents: Callable[[], tuple[AgentState, ...]]
    ) -> None:
        self._config = config
        self._now = now
        self._ask_agents = ask_agents

    def describe(self) -> list[Metric]:
        """Nothing: prometheus-client would else read all of it just to know the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics of this moment.

        Raises:
            CatalogueError: the catalogue cannot be read.
        """
        config, now, agents = self._config, self._now(), self._ask_agents()
        try:
            filled: float | None = fill_percent(config.runs.directory)
        except RunDirectoryError:
            filled = None
        with closing(Database(config.catalogue, read_only=True)) as database:
            yield from alarm_metrics(find_alarms(database, config, now=now, agents=agents, fill_percent=filled))
            with database.snapshot():
                yield from run_metrics(database, now)
                yield from bundle_metrics(database)
                yield from replica_metrics(database, config, now)
                yield from tape_metrics(database, config, now)
                yield from job_metrics(database, now)
                yield from endpoint_metrics(database, config, now)
                yield from daemon_metrics(database, config)
        yield from disk_metrics(config)
        yield from credential_metrics(agents, now)
        yield GaugeMetricFamily("mover_metrics_made_seconds", "When these metrics were made.", now.timestamp())


def render(collector: MoverCollector) -> bytes:
    """The metrics in Prometheus's text format.

    Raises:
        CatalogueError: the catalogue cannot be read.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


@contextmanager
def served(config: Config, collector: MoverCollector) -> Iterator[None]:
    """Serve them where `[metrics] listen` says, as long as the block lasts; do nothing if it says nothing.

    Raises:
        ConfigError: the port is in use.
    """
    if config.metrics.listen is None:
        yield
        return
    host, port = config.metrics.address()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(
            f"metrics cannot be served at {config.metrics.listen}: {error.strerror}",
            hint="give another port in [metrics], or see who listens there",
        ) from error
    log.info("metrics are served at http://%s/metrics", config.metrics.listen)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_END_SECONDS)
