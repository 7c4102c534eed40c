"""Which runs want jobs: those whose raw bundle is proven at the endpoint that the configuration names."""

from datetime import datetime

from mover.catalogue.approvals import approved_releases
from mover.catalogue.database import Database
from mover.catalogue.jobs import JobKey, want_jobs_within
from mover.reco.releases import Releases
from mover.recoconfig import RecoConfig

_UNWANTED = (
    "SELECT DISTINCT bundle.run AS run FROM bundle JOIN replica ON replica.bundle_id = bundle.id "
    "WHERE bundle.kind = 'raw' AND bundle.run >= ? AND bundle.adler32 NOTNULL AND replica.endpoint = ? "
    "AND replica.state IN ('verified', 'archived') "
    "AND NOT EXISTS (SELECT 1 FROM job WHERE job.run = bundle.run AND job.kind = ?) ORDER BY bundle.run"
)


def want_new_jobs(database: Database, reco: RecoConfig, releases: Releases, *, now: datetime) -> list[JobKey]:
    """Want a job of each kind, with the latest approved release, for runs that have none of that kind.

    A later release alone wants nothing: that is what campaigns are for.

    Raises:
        ReleaseNotFoundError: no release is approved, or CVMFS cannot be read; nothing is wanted.
    """
    if not any(database.query(_UNWANTED, reco.first_run, reco.endpoint, kind) for kind in reco.kinds):
        return []
    release = releases.latest(also_approved=approved_releases(database)).name
    # Asked once more: another agent may have wanted them meanwhile, with another release.
    with database.transaction() as connection:
        new = [
            JobKey(row["run"], kind, release)
            for kind in reco.kinds
            for row in connection.execute(_UNWANTED, (reco.first_run, reco.endpoint, kind)).fetchall()
        ]
        return want_jobs_within(connection, sorted(new, key=lambda key: key.run), now=now)
