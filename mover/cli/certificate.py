"""A checked custody certificate, as people read it: what it says, and how far that goes."""

from mover.certificate.check import Checked
from mover.certificate.statement import Bundle, Proof, Replica, Statement
from mover.cli.tables import console, moment, printable, size, table

_PROVES = """\
This proves: the holder of the certificate named above made this statement, nobody changed it since, and it agrees with
the custody records that are in it.
This does not prove: when it was signed (there is no trusted timestamp: whoever had the proxy's key could write any time
of that proxy's life); that the storage has the files today; that the records are those of the mover's catalogue
(`mover custody verify --certificate FILE` compares them)."""


def standing(statement: Statement) -> str:
    """Where the run stood, in one line; that it is not safe, if it was not."""
    run = statement.run
    said = f"run {run.number} of {statement.experiment} is {run.state}"
    return f"{said} ({run.safe.how})" if run.safe else f"{said}, NOT safe"


def show_certificate(checked: Checked) -> None:
    """Print it."""
    statement, signer, out = checked.statement, checked.signer, console()
    life = f"{moment(signer.not_before)} to {moment(signer.not_after)}"
    software = f"{statement.software.name} {statement.software.version}"
    head = f"{statement.custody.head_seq}:{statement.custody.head_hash}"
    lines = [
        standing(statement),
        f"signed by {signer.identity}",
        f"signed at {moment(checked.signed_at)}, as the signer says, with a proxy that was good from {life}",
        f"made by {software} from {len(statement.custody.records)} custody records; custody head {head}",
    ]
    if statement.run.released:
        lines.append(f"local files removed at {statement.run.released.at} (record {statement.run.released.seq})")
    for line in lines:
        out.print(printable(line), soft_wrap=True)
    for bundle in statement.bundles:
        _show_bundle(bundle)
    out.print(_PROVES, soft_wrap=True)


def _show_bundle(bundle: Bundle) -> None:
    out = console()
    adler32 = bundle.adler32 or "not read yet"
    out.print(
        printable(f"\n{bundle.kind} bundle {bundle.lfn}, {size(bundle.size_bytes)}, adler32 {adler32}"), soft_wrap=True
    )
    members = [(one.name, size(one.size_bytes), one.digests.get("sha256", "")) for one in bundle.members]
    if members:
        out.print(table(("member", "size", "sha256"), members))
    rows = [
        (one.endpoint, one.site or "?", one.kind or "?", one.state, f"{one.surl or ''}{_proofs(one)}")
        for one in bundle.replicas
    ]
    out.print(table(("endpoint", "site", "kind", "state", "where and how it was proven"), rows))


def _proofs(replica: Replica) -> str:
    proofs: list[Proof | None] = [replica.copied, replica.verified, replica.archived]
    return "".join(f"\n{proof.at}: {proof.how} (record {proof.seq})" for proof in proofs if proof)
