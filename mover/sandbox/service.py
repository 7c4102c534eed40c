"""The two services of a control room, mover and reco agent, and how the proxy agent tells their processes apart."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

# Of no other program: Debian gives system users lower numbers, and people's groups begin at 1000.
_RECO_GROUP = 64_742


@dataclass(frozen=True, slots=True)
class Service:
    """A service with a robot and a profile of its own.

    The agent decides by the uid and groups of the process that asks (SO_PEERCRED). If we are root, each service is a
    process of its own group, and only that group may have the profile. Anybody else is one user with one set of groups:
    then the agent cannot tell the services apart.
    """

    profile: str
    robot: str
    group: int | None

    @property
    def allow(self) -> str:
        """Who may have the profile, as TOML for the agent's ``[[profile]]`` section."""
        if os.geteuid() != 0:
            return f"uids = [{os.geteuid()}]"
        return f"gids = [{os.getegid() if self.group is None else self.group}]"

    def command(self, argv: Sequence[str]) -> list[str]:
        """What runs `argv` as this service: for root, in its group, and without the means to leave it.

        It stays root by name, since the checkout may be where only root reads; but it has no capability left except
        that to open files, and may not even look into processes of other groups.
        """
        if self.group is None or os.geteuid() != 0:
            return list(argv)
        limits = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all,+dac_override", "--no-new-privs"]
        return ["setpriv", f"--regid={self.group}", *limits, "--", *argv]


MOVER = Service("mover", "Robot - sandbox mover", None)
RECO = Service("reco", "Robot - sandbox reco", _RECO_GROUP)


def are_separate() -> bool:
    """Whether each service is refused the other's profile here."""
    return os.geteuid() == 0
