"""What the box says of itself, as metrics: daemons, disks, credentials, alarms."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

from mover.agentstate import AgentState, Urgency
from mover.alarms.alarm import Alarm, AlarmKind, Severity
from mover.catalogue.database import Database
from mover.catalogue.services import services_here
from mover.config import Config

_DAEMONS = ("engine", "reco agent")


def alarm_metrics(alarms: Iterable[Alarm]) -> Iterator[Metric]:
    """How many alarms there are of each kind."""
    counts = Counter((one.kind, one.severity) for one in alarms)
    found = GaugeMetricFamily("mover_alarms", "Alarms by kind and severity.", labels=["kind", "severity"])
    for kind in AlarmKind:
        for severity in Severity:
            found.add_metric([kind, severity], counts[kind, severity])
    yield found


def daemon_metrics(database: Database, config: Config) -> Iterator[Metric]:
    """Whether the daemons run here, and by the configuration that the file has now."""
    runs = GaugeMetricFamily("mover_service_up", "1 if the daemon runs on this machine.", labels=["service"])
    current = GaugeMetricFamily(
        "mover_service_config_current", "1 if it goes by the configuration that the file has now.", labels=["service"]
    )
    here = {one.name: one for one in services_here(database)}
    for name in _DAEMONS if config.reco else _DAEMONS[:1]:
        runs.add_metric([name], name in here)
        if name in here:
            current.add_metric([name], here[name].config == config.digest())
    yield from (runs, current)


def disk_metrics(config: Config) -> Iterator[Metric]:
    """How full the disks are that it needs: of the run directory, of the catalogue, of the jobs."""
    size = GaugeMetricFamily("mover_disk_bytes", "Size of the disk for ordinary users.", labels=["of"])
    free = GaugeMetricFamily("mover_disk_free_bytes", "What is free of it for ordinary users.", labels=["of"])
    folders: dict[str, Path] = {"runs": config.runs.directory, "catalogue": config.catalogue.parent}
    if config.reco is not None:
        folders["scratch"] = config.reco.scratch
    for name, folder in folders.items():
        try:
            found = os.statvfs(folder)
        except OSError:
            # Its metrics are missing then, which is an alert of its own.
            continue
        used = found.f_blocks - found.f_bfree
        size.add_metric([name], (used + found.f_bavail) * found.f_frsize)
        free.add_metric([name], found.f_bavail * found.f_frsize)
    yield from (size, free)


def credential_metrics(agents: Iterable[AgentState], now: datetime) -> Iterator[Metric]:
    """Until when the credential agents are good, for each identity."""
    answers = GaugeMetricFamily("mover_agent_up", "1 if the credential agent answers.", labels=["socket"])
    urgency = GaugeMetricFamily(
        "mover_credential_urgency", "0: all is well; 1: a person is needed soon; 2: no proxies.", labels=["identity"]
    )
    left = GaugeMetricFamily(
        "mover_credential_seconds",
        "Until the first of session, certificate, attributes and revocation lists ends.",
        labels=["identity"],
    )
    plug = GaugeMetricFamily(
        "mover_plug_seconds", "Until the dongle and its PIN are needed; missing if nobody is.", labels=["identity"]
    )
    for agent in agents:
        answers.add_metric([str(agent.socket)], agent.problem is None)
        for one in agent.identities:
            urgency.add_metric([one.name], list(Urgency).index(one.urgency))
            if one.not_after is not None:
                left.add_metric([one.name], (one.not_after - now).total_seconds())
            if one.plug_before is not None:
                plug.add_metric([one.name], (one.plug_before - now).total_seconds())
    yield from (answers, urgency, left, plug)
