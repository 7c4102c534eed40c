"""The report as one HTML page that needs nothing but itself. All that comes from outside is escaped."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from html import escape

from mover.audit.report import Report, outcome_of, remedy_of, replica_outcome
from mover.catalogue.audits import BundleResult, Outcome, ReplicaResult
from mover.htmlpage import breakable, moment, remedy, render_document

_CLASSES = {Outcome.GOOD: "good", Outcome.NOT_KNOWN: "unknown", Outcome.WRONG: "wrong"}


def render_page(report: Report) -> str:
    """The whole page."""
    return render_document(f"Audit {report.audit.id}", _page(report))


def _page(report: Report) -> Iterator[str]:
    audit = report.audit
    yield f"<h1>Audit {audit.id}</h1>"
    yield f'<p class="verdict {_verdict_class(report)}">{escape(_verdict(report))}</p>'
    times = f"Begun {moment(audit.begun_at)}, {_ended(audit.ended_at)}"
    yield f"<p>Audited: {escape(audit.chosen)}. {times}. {_depth(report)}</p>"
    if report.bundles:
        yield from _endpoints(report)
    if report.troubled:
        yield "<h2>What needs attention</h2>"
        yield from _bundles(report.troubled)
    good = [one for one in report.bundles if outcome_of(one) is Outcome.GOOD]
    if good:
        yield f"<h2>Good</h2>\n<details><summary>{len(good)} bundles</summary>"
        yield from _bundles(good)
        yield "</details>"


def _verdict(report: Report) -> str:
    if report.is_well and report.bundles:
        return f"All is well: {len(report.bundles)} bundles are good."
    if not report.bundles:
        return "There was nothing to audit."
    counts = [f"{report.outcomes[one]} {one}" for one in reversed(Outcome) if report.outcomes[one]]
    return f"Of {len(report.bundles)} bundles: {', '.join(counts)}."


def _verdict_class(report: Report) -> str:
    if report.outcomes[Outcome.WRONG]:
        return "wrong"
    return "good" if report.is_well else "unknown"


def _depth(report: Report) -> str:
    if report.audit.deep:
        return f"Read back and held against the catalogue byte for byte: {report.read_bytes:,} bytes."
    return "The sites were asked for size, checksum and tape state; no bundle was read back."


def _ended(at: datetime | None) -> str:
    return f"ended {moment(at)}" if at else "<strong>cut short</strong>"


def _endpoints(report: Report) -> Iterator[str]:
    yield "<h2>Endpoints</h2>"
    heads = "".join(f'<th class="number">{one}</th>' for one in Outcome)
    yield f"<table>\n<thead><tr><th>endpoint</th>{heads}</tr></thead>\n<tbody>"
    for name, counts in report.by_endpoint.items():
        cells = "".join(
            f'<td class="number {_CLASSES[one] if counts[one] else ""}">{counts[one]}</td>' for one in Outcome
        )
        yield f"<tr><td>{escape(name)}</td>{cells}</tr>"
    yield "</tbody>\n</table>"


def _bundles(bundles: Iterable[BundleResult]) -> Iterator[str]:
    yield '<div class="wide">\n<table>'
    yield '<thead><tr><th class="number">run</th><th>bundle</th><th>outcome</th><th>found</th></tr></thead>'
    yield "<tbody>"
    for one in bundles:
        outcome = outcome_of(one)
        policy = f"<p>{escape(one.policy)}{remedy(remedy_of(one))}</p>" if one.policy else ""
        found = "".join(_replica(replica) for replica in one.replicas)
        yield (
            f'<tr><td class="number">{one.run}</td><td class="text bundle"><code>{breakable(one.lfn)}</code><br>'
            f"{escape(one.kind.value)}, {one.size_bytes:,} bytes</td>"
            f'<td class="{_CLASSES[outcome]}">{outcome}</td><td class="text found">{policy}<ul>{found}</ul></td></tr>'
        )
    yield "</tbody>\n</table>\n</div>"


def _replica(replica: ReplicaResult) -> str:
    outcome = replica_outcome(replica)
    by_remedy: dict[str, list[str]] = {}
    for one in replica.findings:
        by_remedy.setdefault(one.remedy, []).append(escape(one.text))
    texts = "".join(f"<br>{'<br>'.join(found)}{remedy(todo)}" for todo, found in by_remedy.items())
    when = moment(replica.at) if replica.at else "not asked yet"
    return f'<li>{escape(replica.endpoint)}: <span class="{_CLASSES[outcome]}">{outcome}</span>, {when}{texts}</li>'
