"""The simulation is worth what it finds: the mover is broken on purpose, one way at a time, and must be found out."""

import re
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest

from mover.bundle.plan import BundlePlan
from mover.bundle.scan import list_run
from mover.catalogue import replicas
from mover.catalogue.database import Database
from mover.catalogue.replicas import Claim
from mover.catalogue.runs import bundle_of
from mover.config import Config
from mover.errors import MoverError, VerificationError
from mover.model import BundleDigest, EndpointKind, Part, StoredFile
from mover.naming import RunNaming
from mover.policy import Assessment, Policy, ProvenReplica, assess
from mover.ports import StorageEndpoint
from mover.states import ReplicaEvent, ReplicaState
from mover.steps import recheck, release, standing, transfer, verify, work
from mover.steps.work import Work
from mover.storage.memory import MemoryEndpoint
from tests.simulation.test_week import live_a_week

pytestmark = pytest.mark.long

#: As many weeks as it takes: a change of the mover changes what happens in all of them, and luck with it.
_SEEDS = range(12)
_CHECKS = (recheck, work)

Patch = pytest.MonkeyPatch


def never_looks_for_what_is_there(patch: Patch) -> None:
    patch.setattr(transfer, "_adopt", lambda _work: False)


def takes_every_wrong_file_for_its_own(patch: Patch) -> None:
    def adopt(one: Work) -> bool:
        for path in dict.fromkeys(filter(None, (one.replica.intent_path, one.lfn))):
            stored = one.endpoint.stat(path)
            if stored is not None and transfer._is_right(one, stored):
                transfer._record_copied(one, path, route="found there and right")
                return True
            if stored is not None:
                one.remove(path)
        return False

    patch.setattr(transfer, "_adopt", adopt)


def removes_what_it_adopted(patch: Patch) -> None:
    def compare(one: Work, stored: StoredFile) -> None:
        try:
            one.check(stored)
        except VerificationError as error:
            one.remove(stored.path)
            replicas.record_event(one.database, one.claim, ReplicaEvent.REJECTED, now=one.clock.now())
            raise error

    patch.setattr(verify, "_compare", compare)


def cleans_up_without_its_claim(patch: Patch) -> None:
    patch.setattr(Work, "may_remove", lambda _self: True)


def removes_without_its_claim(patch: Patch) -> None:
    patch.setattr(Work, "renew", lambda _self: None)


def commits_without_its_claim(patch: Patch) -> None:
    def guard(connection: sqlite3.Connection, claim: Claim) -> sqlite3.Row:
        found = connection.execute("SELECT * FROM replica WHERE id = ?", (claim.replica_id,)).fetchone()
        return cast("sqlite3.Row", found)

    patch.setattr(replicas, "_guard", guard)


def does_not_compare(patch: Patch) -> None:
    patch.setattr(verify, "_compare", lambda _work, _stored: None)


def compares_sizes_only(patch: Patch) -> None:
    def check(_endpoint: StorageEndpoint, stored: StoredFile, digest: BundleDigest, _alive: object) -> None:
        if stored.size_bytes != digest.size_bytes:
            raise VerificationError("another size", hint="")

    for module in _CHECKS:
        patch.setattr(module, "check_stored", check)


def does_not_ask_the_tape(patch: Patch) -> None:
    patch.setattr(MemoryEndpoint, "on_tape", lambda _self, _path: True)


def counts_verified_tapes(patch: Patch) -> None:
    def hopeful(policy: Policy, proven: list[ProvenReplica]) -> Assessment:
        archived = ReplicaState.ARCHIVED
        return assess(
            policy,
            [
                ProvenReplica(one.endpoint, one.kind, one.site, archived)
                if one.kind is EndpointKind.TAPE and one.state is ReplicaState.VERIFIED
                else one
                for one in proven
            ],
        )

    patch.setattr(standing, "assess", hopeful)


def releases_on_the_catalogues_word(patch: Patch) -> None:
    def believe(
        database: Database, config: Config, run: int, _endpoints: Mapping[str, StorageEndpoint], *, alive: object
    ) -> Assessment:
        bundle = bundle_of(database, run)
        assert bundle is not None
        return standing.standing(database, config, bundle, config.raw_policy())

    patch.setattr(release, "recheck", believe)


def releases_what_was_not_bundled(patch: Patch) -> None:
    def all_parts(directory: int, naming: RunNaming, plan: BundlePlan) -> list[Part]:
        return list_run(directory, naming, plan.run)[0]

    patch.setattr(release, "_bundled_parts", all_parts)


def renames_over_what_is_there(patch: Patch) -> None:
    def rename(self: MemoryEndpoint, source: str, target: str) -> None:
        self._begin("rename")
        self._stored(source)
        self._files[target] = self._files.pop(source)

    patch.setattr(MemoryEndpoint, "rename", rename)


def uploads_over_what_is_there(patch: Patch) -> None:
    upload = MemoryEndpoint.upload

    def replacing(self: MemoryEndpoint, path: str, chunks: object, size_bytes: int, **more: object) -> None:
        self._files.pop(path, None)
        upload(self, path, chunks, size_bytes, **more)  # type: ignore[arg-type]

    patch.setattr(MemoryEndpoint, "upload", replacing)
    patch.setattr(transfer, "_adopt", lambda _work: False)


def forgets_what_it_meant_to_write(patch: Patch) -> None:
    patch.setattr(transfer, "record_intent", lambda *_args, **_more: None)


def does_not_say_what_a_person_must_do(patch: Patch) -> None:
    record = replicas.record_event

    def silent(*args: object, problem: MoverError | None = None, **more: object) -> object:
        return record(*args, **more)  # type: ignore[arg-type]

    patch.setattr("mover.lane.record_event", silent)


def never_takes_over(patch: Patch) -> None:
    patch.setattr(
        replicas,
        "_CLAIMS",
        {key: text.replace("OR claim.lease_until < ?", "OR 0 = length(?)") for key, text in replicas._CLAIMS.items()},
    )


BROKEN: tuple[tuple[Callable[[Patch], None], str], ...] = (
    # Which of the two comes first is luck.
    (never_looks_for_what_is_there, "not everywhere|had somebody else's"),
    (takes_every_wrong_file_for_its_own, "had somebody else's"),
    (removes_what_it_adopted, "had somebody else's"),
    (cleans_up_without_its_claim, "had the right"),
    (removes_without_its_claim, "had the right"),
    (commits_without_its_claim, "which lost its claim"),
    (does_not_compare, "said to be proven"),
    (compares_sizes_only, "said to be proven"),
    (does_not_ask_the_tape, "said to be on tape"),
    (counts_verified_tapes, "said to be safe"),
    (releases_on_the_catalogues_word, "is removed, but only"),
    (releases_what_was_not_bundled, "its bytes are not in the bundle"),
    (renames_over_what_is_there, "had somebody else's"),
    (uploads_over_what_is_there, "had the right"),
    (forgets_what_it_meant_to_write, "not everywhere"),
    (does_not_say_what_a_person_must_do, "nobody says why"),
    (never_takes_over, "nobody says what it waits for"),
)


@pytest.mark.parametrize(("broken", "rule"), [pytest.param(*one, id=one[0].__name__) for one in BROKEN])
def test_a_broken_mover_is_found_out(tmp_path: Path, broken: Callable[[Patch], None], rule: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        broken(patch)
        found = _what_is_found(tmp_path)
    assert re.search(rule, found), found


def _what_is_found(base: Path) -> str:
    """The first rule that is broken in any of some weeks."""
    for seed in _SEEDS:
        (base / str(seed)).mkdir()
        try:
            live_a_week(base / str(seed), seed)
        except AssertionError as error:
            return str(error).splitlines()[0]
    return "nothing"
