"""Collected → proven: the output is read back from the storage and held against the output contract.

Neither the job's exit code nor its word counts: in 2012 jobs ran green for weeks and saved nothing.
"""

import json
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict

from mover.catalogue.outputs import is_nowhere, record_proven
from mover.catalogue.runs import BundleRecord, get_bundle
from mover.errors import OutputContractError
from mover.ports import StorageEndpoint
from mover.reco.events import count_physics_events, physics_events_planned
from mover.reco.proof import Expectation, Proof, check_output
from mover.reco.source import choose_source
from mover.reco.work import JobWork


def prove(work: JobWork) -> None:
    """Prove a job's output as it is stored.

    1. Read it from where it can be read, disks first. 2. Hold it against what was uploaded and against the contract.
    3. Commit; only then it is wanted wherever else the policy wants it, tapes above all.

    Raises:
        OutputContractError: it is not what the contract asks for.
        StorageError: it cannot be read now.
    """
    bundle = get_bundle(work.database, work.job.bundle_id or 0)
    # 1
    if is_nowhere(work.database, bundle.id):
        raise OutputContractError(
            f"the output of the {work.job.key}, {bundle.lfn}, is stored nowhere: what was stored was wrong or is gone",
            hint=f"`mover run show {bundle.run}` says what was found; `mover reco retry {bundle.run}` does it again",
        )
    endpoint = choose_source(work, bundle)
    # 2
    proof = _check(work, bundle, endpoint)
    if not proof.holds:
        raise OutputContractError(
            f"the output of the {work.job.key}, {endpoint.url(bundle.lfn)}, " + "; ".join(proof.findings),
            hint=f"an expert is needed; `mover reco retry {work.job.key.run}` does it again, as the next iteration",
        )
    # 3
    policy = work.config.policy_of(work.job.key.kind)
    trees = [asdict(one) for one in proof.trees]
    facts = {"lfn": bundle.lfn, "read_from": endpoint.name, "sha256": proof.sha256, "trees": trees}
    text = json.dumps({**facts, "members": [asdict(one) for one in proof.digest.members]})
    record_proven(
        work.database,
        work.claim,
        bundle.id,
        endpoints=policy.endpoints if policy else (),
        backlog=work.job.campaign_id is not None,
        proof=text,
        now=work.clock.now(),
        **facts,
    )


def _check(work: JobWork, bundle: BundleRecord, endpoint: StorageEndpoint) -> Proof:
    key = work.job.key
    expected = Expectation(
        run=key.run,
        iteration=key.iteration,
        physics_events=_physics_events(work),
        size_bytes=bundle.size_bytes,
        adler32=bundle.digest.adler32 if bundle.digest else None,
    )
    with closing(endpoint.read(bundle.lfn, size_bytes=bundle.size_bytes + 1)) as chunks:
        return check_output(
            _watched(work, chunks), work.settings.output, expected, work.reco.scratch / "proofs", alive=work.alive
        )


def _physics_events(work: JobWork) -> int | None:
    """How many the raw data has: by its plan, or, where others made the bundle, by one reading of it."""
    if all(tree.entries_from is None for tree in work.settings.output.tree):
        return None
    raw = work.raw()
    planned = physics_events_planned(raw.plan.summary) if raw.plan else None
    if planned is not None:
        return planned
    naming, run = work.config.runs.naming(), raw.run
    with closing(choose_source(work, raw).read(raw.lfn)) as chunks:
        found = count_physics_events(
            _watched(work, chunks), run, lambda name: naming.part_number(run, name) is not None
        )
    return None if found.findings else found.physics


def _watched(work: JobWork, chunks: Generator[bytes, None, None]) -> Iterator[bytes]:
    for chunk in chunks:
        work.alive()
        yield chunk
