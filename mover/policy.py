"""When a bundle is safe: the declared replica policy, and whether what has been proven satisfies it."""

from collections.abc import Iterable
from dataclasses import dataclass

from mover.model import EndpointKind
from mover.states import ReplicaState


@dataclass(frozen=True, slots=True)
class Policy:
    """Where the bundles of one kind go, and what must be proven before local files may go.

    `endpoints` are in the order of preference as sources for third-party copies; what is `optional` among them is
    wanted like the others, but nothing waits for it.
    """

    tapes: int
    tape_sites: int
    disks: int
    endpoints: tuple[str, ...]
    optional: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ProvenReplica:
    """A replica's place and how far it has been proven."""

    endpoint: str
    kind: EndpointKind
    site: str
    state: ReplicaState


@dataclass(frozen=True, slots=True)
class Assessment:
    """What counts for the policy, and what is lacking (empty when it holds)."""

    tapes: int
    tape_sites: int
    disks: int
    lacking: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the policy is satisfied."""
        return not self.lacking

    def __str__(self) -> str:
        """For people: 'safe: 2 tapes at 2 sites, 1 disk' or 'not safe: lacks …'."""
        if self.lacking:
            return "not safe: lacks " + ", ".join(self.lacking)
        tapes = f"{_count(self.tapes, 'tape')} at {_count(self.tape_sites, 'site')}"
        return f"safe: {tapes}, {_count(self.disks, 'disk')}"


def assess(policy: Policy, replicas: Iterable[ProvenReplica]) -> Assessment:
    """Count tape replicas that are archived and disk replicas that are verified, and compare with the policy.

    Only what is at the policy's endpoints counts: one that was taken out of it is not relied upon.
    """
    proven = tuple(one for one in replicas if one.endpoint in policy.endpoints)
    tape = [one for one in proven if one.kind is EndpointKind.TAPE and one.state is ReplicaState.ARCHIVED]
    disks = sum(one.kind is EndpointKind.DISK and one.state is ReplicaState.VERIFIED for one in proven)
    sites = len({one.site for one in tape})
    lacking = []
    if len(tape) < policy.tapes:
        lacking.append(_count(policy.tapes - len(tape), "tape"))
    if sites < policy.tape_sites:
        lacking.append(_count(policy.tape_sites - sites, "tape site"))
    if disks < policy.disks:
        lacking.append(_count(policy.disks - disks, "disk"))
    return Assessment(len(tape), sites, disks, tuple(lacking))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
