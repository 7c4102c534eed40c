"""The agent: its identities, their attribute certificates, and what is issued to whom. Knows nothing of sockets."""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from cryptography import x509

from proxyagent.attributes import AttributeStore, Want
from proxyagent.audit import AuditLog
from proxyagent.clock import Clock, StepWatch
from proxyagent.errors import NoSessionError, ProxyAgentError, RequestError, VomsError
from proxyagent.hsm import OtherDongle
from proxyagent.identity import Identity
from proxyagent.policy import Config, Profile
from proxyagent.proxy import Language, ProxyInfo
from proxyagent.request import check_request
from proxyagent.session import Session
from proxyagent.voms.ac import ac_extension, check_ac

_log = logging.getLogger(__name__)
_TICK_SECONDS = 15.0
_WAIT_FOR_ATTRIBUTES_SECONDS = 8.0
_VOMS_PROXY = ProxyInfo(Language.LIMITED, path_length=0)
_VOMS_PROXY_LIFETIME = timedelta(minutes=10)


class Agent:
    """Several identities and one store of attribute certificates. Its methods may be called from several threads."""

    def __init__(self, config: Config, clock: Clock, audit: AuditLog) -> None:
        self._config = config
        self._clock = clock
        self._audit = audit
        self._steps = StepWatch(clock)
        self._stopped = threading.Event()
        self._alarm_lock = threading.Lock()
        self._alarmed: frozenset[OtherDongle] = frozenset()
        self.attributes = AttributeStore(_wants(config), clock, self._has_session)
        self.identities = {
            section.name: Identity(section, config, clock, audit, self._watcher(section.name))
            for section in config.identity
        }

    def start(self) -> None:
        """Let every identity go on by itself, each in a thread of its own: a sick dongle holds up no other."""
        for identity in self.identities.values():
            threading.Thread(target=self._tick_until_stopped, args=(identity,), daemon=True).start()

    def identity(self, name: str | None) -> Identity:
        """The identity of that name; the only one, if the name is left out.

        Raises:
            RequestError: there is no such identity, or a name is needed.
        """
        names = ", ".join(self.identities)
        if name is None and len(self.identities) > 1:
            raise RequestError(f"there are {len(self.identities)} identities", hint=f"choose one of {names}")
        if name is None:
            return next(iter(self.identities.values()))
        if name not in self.identities:
            raise RequestError(f"there is no identity {name!r}", hint=f"use one of {names}")
        return self.identities[name]

    def strangers(self) -> tuple[OtherDongle, ...]:
        """The dongles that are plugged in, as of the last looks, and that no identity means. They are asked nothing."""
        found = dict.fromkeys(other for identity in self.identities.values() for other in identity.others)
        uris = [section.uri for section in self._config.identity]
        return tuple(other for other in found if not any(other.is_meant_by(uri) for uri in uris))

    def issue(self, profile: Profile, request_pem: str, lifetime_seconds: int) -> tuple[x509.Certificate, ...]:
        """A client proxy for the key of a certificate request, with its chain down to the end-entity certificate.

        It ends after `lifetime_seconds`, the profile's longest lifetime, with the session or with the attribute
        certificate, whichever is first.

        Raises:
            RequestError: the request is not acceptable.
            VomsError: the profile has FQANs, and there is no attribute certificate for them.
            ProxyAgentError: as `issuer.Issuer.issue`.
        """
        public_key = check_request(request_pem)
        identity = self.identities[self._config.identity_of(profile)]
        info = ProxyInfo(Language.LIMITED if profile.limited else Language.INHERIT_ALL, profile.path_length)
        lifetime = timedelta(seconds=min(lifetime_seconds, profile.max_lifetime_seconds))
        if profile.vo is None:
            return identity.issuer.issue(public_key, info, lifetime)
        identity.issuer.usable_session()  # without one, waiting would be in vain
        want = Want(identity.name, profile.vo, profile.fqans)
        certificate = self.attributes.get(want, wait_seconds=_WAIT_FOR_ATTRIBUTES_SECONDS)
        lifetime = min(lifetime, certificate.not_after - self._clock.now())
        return identity.issuer.issue(public_key, info, lifetime, (ac_extension((certificate.der,)),))

    def issue_for_voms(self, name: str, request_pem: str) -> tuple[x509.Certificate, ...]:
        """A short, limited proxy with which attribute certificates of an identity are fetched.

        Raises: as `issue`.
        """
        return self.identity(name).issuer.issue(check_request(request_pem), _VOMS_PROXY, _VOMS_PROXY_LIFETIME)

    def deliver(self, want: Want, der: bytes) -> None:
        """Take an attribute certificate, if it is what was wanted: it came from a process with a network.

        Raises:
            VomsError: it is not.
            NoSessionError: the session that it is for has ended meanwhile.
        """
        voms = self._config.voms
        if voms is None or want not in self.attributes.wants:
            raise VomsError("nobody wants this attribute certificate", hint="restart `proxyagent voms`")
        session = self.identity(want.identity).issuer.usable_session()
        certificate = check_ac(
            der,
            holder=session.certificate,
            vo=want.vo,
            fqans=want.fqans,
            vomsdir=voms.vomsdir,
            ca_directory=self._config.trust.ca_directory,
            now=self._clock.now(),
            check_crls=self._config.trust.crls == "require",
        )
        self.attributes.deliver(want, certificate)
        if not self.identity(want.identity).issuer.is_of(session.certificate):
            self.attributes.forget(want.identity)  # changed meanwhile: whoever did it may have looked before us
            raise NoSessionError("the session changed meanwhile", hint="fetch the attributes anew")
        until = certificate.not_after.isoformat()
        self._audit.record("attributes", identity=want.identity, fqans=" ".join(want.fqans), not_after=until)
        _log.info("%s: VOMS attributes %s until %s", want.identity, " ".join(want.fqans), until)

    def deliver_failure(self, want: Want, problem: ProxyAgentError) -> None:
        """Take note that an attribute certificate could not be had."""
        if want not in self.attributes.wants:
            raise VomsError("nobody wants this attribute certificate", hint="restart `proxyagent voms`")
        self.attributes.failed(want, problem)
        _log.warning("%s: no VOMS attributes %s: %s", want.identity, " ".join(want.fqans), problem.message)
        self._audit.record("attributes-failed", identity=want.identity, fqans=" ".join(want.fqans), error=problem.kind)

    def tick(self, identity: Identity) -> None:
        """What is done for an identity every 15 seconds."""
        self._watch_clock()
        identity.tick()
        self._watch_strangers()
        self.attributes.look()

    def close(self) -> None:
        """Forget all sessions and stop the helpers."""
        self._stopped.set()
        self.attributes.close()
        for identity in self.identities.values():
            identity.close()

    def _tick_until_stopped(self, identity: Identity) -> None:
        while True:
            try:
                self.tick(identity)
            except Exception as error:
                # The last resort: a bug must not end the renewals for good. The text might hold foreign bytes.
                _log.exception("%s: %s in the agent", identity.name, type(error).__name__)
            if self._stopped.wait(_TICK_SECONDS):
                return

    def _watch_clock(self) -> None:
        step = self._steps.step()
        if step:
            _log.error("the clock was set by %+.0f s; what ends when is worked out anew", step.total_seconds())
            self._audit.record("clock-step", seconds=int(step.total_seconds()))
            self.attributes.refetch()

    def _watch_strangers(self) -> None:
        with self._alarm_lock:
            found = frozenset(self.strangers())
            new, self._alarmed = found - self._alarmed, found
        for each in new:
            _log.warning("unknown dongle %s (%s) is in: nothing is asked of it", each.label, each.serial)
            self._audit.record("unknown-dongle", serial=each.serial, label=each.label, model=each.model)

    def _has_session(self, name: str) -> bool:
        return self.identities[name].issuer.session is not None

    def _watcher(self, name: str) -> Callable[[Session | None, Session | None], None]:
        def watch(before: Session | None, after: Session | None) -> None:
            if after is None or (before is not None and before.certificate != after.certificate):
                self.attributes.forget(name)
            self.attributes.look()

        return watch


def _wants(config: Config) -> tuple[Want, ...]:
    return tuple(
        dict.fromkeys(
            Want(config.identity_of(profile), profile.vo, profile.fqans)
            for profile in config.profile
            if profile.vo is not None
        )
    )
