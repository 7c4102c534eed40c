"""The one place that picks adapters: endpoints, batch system, credentials and clock from the configuration."""

import os
from collections.abc import Callable
from datetime import UTC, datetime

from mover.agentstate import AgentState
from mover.batch.arc import ArcBatch
from mover.batch.local import LocalBatch
from mover.batch.slurm import SlurmBatch
from mover.config import Config, EndpointConfig
from mover.credential import AgentCredentials, agent_state, protect_memory
from mover.errors import ConfigError
from mover.model import ChecksumKind, EndpointKind
from mover.ports import BatchSystem, CredentialSource, DelegatingSource, StorageEndpoint
from mover.recoconfig import ArcBatchConfig, LocalBatchConfig, SlurmBatchConfig
from mover.storage.davs import DavsEndpoint
from mover.storage.file import FileEndpoint
from mover.storage.gsiftp import GsiFtpEndpoint
from mover.storage.root import RootEndpoint, RootsEndpoint
from mover.tables import CredentialConfig


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The current time (UTC, aware)."""
        return datetime.now(UTC)


def build_endpoints(config: Config) -> dict[str, StorageEndpoint]:
    """An adapter for each configured endpoint, by name, for one thread. Nothing is contacted yet.

    Raises:
        CredentialError: the kernel does not let this process keep proxies to itself.
    """
    return endpoint_factory(config)()


def endpoint_factory(
    config: Config, credentials: CredentialSource | None = None
) -> Callable[[], dict[str, StorageEndpoint]]:
    """What makes adapters for one thread after the other. All of them use the same proxy; by default, the mover's.

    Raises:
        CredentialError: the kernel does not let this process keep proxies to itself.
    """
    credentials = credentials or build_credentials(config)
    # GSI in the XRootD and gfal2 libraries reads its trust anchors from here only.
    os.environ["X509_CERT_DIR"] = str(config.credential.ca_directory)
    return lambda: {place.name: _build(place, config, credentials) for place in config.endpoint}


def build_credentials(config: Config) -> AgentCredentials:
    """The proxies of the configured profile. Nothing is asked of the agent yet.

    Raises:
        CredentialError: the kernel does not let this process keep proxies to itself.
    """
    return _credentials(config.credential)


def reco_credential(config: Config) -> AgentCredentials:
    """The proxies of the reco agent, which may be another robot's with another dongle. Nothing is asked yet.

    Raises:
        CredentialError: the kernel does not let this process keep proxies to itself.
    """
    own = config.reco.credential if config.reco else None
    return _credentials(own or config.credential)


def ask_agents(config: Config, *, timeout_seconds: float = 10.0) -> tuple[AgentState, ...]:
    """The state of every agent that the configuration names: the mover's, and the reco agent's if it is another."""
    own = config.reco.credential if config.reco else None
    sockets = dict.fromkeys(one.agent for one in (config.credential, own) if one)
    return tuple(agent_state(socket, timeout_seconds=timeout_seconds) for socket in sockets)


def build_batch(config: Config, credentials: DelegatingSource) -> BatchSystem:
    """The configured batch system. Nothing is contacted yet.

    Raises:
        ConfigError: there is no `[reco]`.
        BatchUnavailableError: its directory cannot be made.
    """
    reco = config.reco
    if reco is None:
        raise ConfigError("there is no [reco] in the configuration", hint="docs/reco.md says what goes there")
    match reco.batch:
        case LocalBatchConfig(slots=slots):
            return LocalBatch(reco.scratch / "batch", slots=slots)
        case SlurmBatchConfig(partition=partition, account=account):
            return SlurmBatch(partition, account=account, config=reco.batch.config)
        case ArcBatchConfig(url=url, queue=queue):
            ca_directory = (reco.credential or config.credential).ca_directory
            return ArcBatch(url, credentials, ca_directory, queue=queue, staging_seconds=reco.queue_seconds)


def _credentials(credential: CredentialConfig) -> AgentCredentials:
    protect_memory()
    return AgentCredentials(credential.agent, credential.profile, credential.lifetime_seconds)


def _build(place: EndpointConfig, config: Config, credentials: CredentialSource) -> StorageEndpoint:
    if place.scheme == "file":
        return FileEndpoint(name=place.name, base_url=place.url)
    tape = place.kind is EndpointKind.TAPE
    checksums = frozenset(ChecksumKind(name) for name in place.checksums)
    if place.scheme == "davs":
        return DavsEndpoint(
            name=place.name,
            base_url=place.url,
            credentials=credentials,
            ca_directory=config.credential.ca_directory,
            tape=tape,
            checksums=checksums,
            stall_timeout_seconds=place.stall_timeout_seconds,
            checksum_timeout_seconds=place.checksum_timeout_seconds,
            third_party_copy=place.third_party_copy,
        )
    kinds = {"root": RootEndpoint, "roots": RootsEndpoint, "gsiftp": GsiFtpEndpoint}
    return kinds[place.scheme](
        name=place.name,
        base_url=place.url,
        credentials=credentials,
        tape=tape,
        checksums=checksums,
        stall_timeout_seconds=place.stall_timeout_seconds,
        checksum_timeout_seconds=place.checksum_timeout_seconds,
        third_party_copy=place.third_party_copy,
    )
