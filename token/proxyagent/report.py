"""The state of an identity as clients see it."""

from proxyagent.agent import Agent
from proxyagent.attributes import AttributeState
from proxyagent.clock import Clock
from proxyagent.errors import ChainError, ProxyAgentError
from proxyagent.forecast import Attributes, Facts, forecast
from proxyagent.identity import Identity
from proxyagent.messages import AttributesStatus, DongleStatus, IdentityStatus, session_status
from proxyagent.policy import Config


def identity_status(identity: Identity, agent: Agent, config: Config, clock: Clock) -> IdentityStatus:
    """What is known of an identity now, with the forecast."""
    dongle = _dongle(identity)
    session = identity.issuer.session
    trust_problem, crl_next_update = None, None
    try:
        crl_next_update = identity.issuer.trusted_until()
    except ChainError as error:
        trust_problem = error
    states = agent.attributes.states(identity.name)
    certificate = identity.certificate
    facts = Facts(
        session_not_after=session.not_after if session is not None else None,
        renews_itself=identity.renews_itself,
        unattended=identity.unattended == "ready",
        renewal_problem=identity.problem,
        certificate_not_after=certificate.not_valid_after_utc if certificate is not None else None,
        crl_next_update=crl_next_update,
        trust_problem=trust_problem,
        attributes=[Attributes(" ".join(each.want.fqans), each.not_after, each.problem) for each in states],
    )
    outlook = forecast(facts, clock.now(), config.warning)
    return IdentityStatus(
        name=identity.name,
        level=outlook.level,
        not_after=outlook.not_after,
        plug_before=outlook.plug_before,
        advice=outlook.advice,
        session=session_status(session.identity, session.not_after) if session is not None else None,
        dongle=dongle,
        certificate_not_after=facts.certificate_not_after,
        crl_next_update=facts.crl_next_update,
        attributes=tuple(_attributes(each) for each in states),
        unattended=identity.unattended,
        seal=identity.login.seal,
        confined=identity.confined,
    )


def _dongle(identity: Identity) -> DongleStatus:
    try:
        state = identity.look()
    except ProxyAgentError as error:
        return DongleStatus(
            present=False,
            logged_in=identity.logged_in,  # one that is only busy still is
            kind=error.kind,
            problem=error.message,
            hint=error.hint,
        )
    return DongleStatus(
        present=True,
        serial=state.serial,
        label=state.label,
        pin_state=state.pin_state,
        pin_pad=identity.login.has_pin_pad(state),
        logged_in=identity.logged_in,
    )


def _attributes(state: AttributeState) -> AttributesStatus:
    problem = state.problem
    return AttributesStatus(
        vo=state.want.vo,
        fqans=state.want.fqans,
        not_after=state.not_after,
        problem=problem.message if problem is not None else None,
        hint=problem.hint if problem is not None else None,
    )
