"""The report as one HTML page that needs nothing but itself. All that comes from outside is escaped."""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from html import escape

from mover.audit.report import Report, outcome_of, remedy_of, replica_outcome
from mover.catalogue.audits import BundleResult, Outcome, ReplicaResult

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --wrong: #cf222e; --unknown: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --good: #56d364; --wrong: #ff7b72; --unknown: #e3b341; } }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: .2rem; } h2 { margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number:not(:first-child), th.number:not(:first-child) { padding-left: 2rem; }
td.text { overflow-wrap: anywhere; }
td.bundle { min-width: 11rem; } td.found { min-width: 20rem; }
td p { margin: 0 0 .3rem; }
code { font-size: .95em; overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 1.1rem; }
.remedy { opacity: .8; }
.good { color: var(--good); } .wrong { color: var(--wrong); } .unknown { color: var(--unknown); }
.verdict { font-size: 1.25rem; font-weight: 600; }
summary { cursor: pointer; }
""".strip()

_COMMAND = re.compile(r"`([^`]+)`")
_CLASSES = {Outcome.GOOD: "good", Outcome.NOT_KNOWN: "unknown", Outcome.WRONG: "wrong"}


def render_page(report: Report) -> str:
    """The whole page."""
    return "\n".join(_page(report)) + "\n"


def _page(report: Report) -> Iterator[str]:
    audit = report.audit
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    # Nothing is fetched, and nothing is run, whatever a name may have in it.
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<title>Audit {audit.id}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>"
    yield f"<h1>Audit {audit.id}</h1>"
    yield f'<p class="verdict {_verdict_class(report)}">{escape(_verdict(report))}</p>'
    times = f"Begun {_moment(audit.begun_at)}, {_ended(audit.ended_at)}"
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
    yield "</body>\n</html>"


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
    return f"ended {_moment(at)}" if at else "<strong>cut short</strong>"


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
        policy = f"<p>{escape(one.policy)}{_remedy(remedy_of(one))}</p>" if one.policy else ""
        found = "".join(_replica(replica) for replica in one.replicas)
        yield (
            f'<tr><td class="number">{one.run}</td><td class="text bundle"><code>{_breakable(one.lfn)}</code><br>'
            f"{escape(one.kind.value)}, {one.size_bytes:,} bytes</td>"
            f'<td class="{_CLASSES[outcome]}">{outcome}</td><td class="text found">{policy}<ul>{found}</ul></td></tr>'
        )
    yield "</tbody>\n</table>\n</div>"


def _replica(replica: ReplicaResult) -> str:
    outcome = replica_outcome(replica)
    by_remedy: dict[str, list[str]] = {}
    for one in replica.findings:
        by_remedy.setdefault(one.remedy, []).append(escape(one.text))
    texts = "".join(f"<br>{'<br>'.join(found)}{_remedy(remedy)}" for remedy, found in by_remedy.items())
    when = _moment(replica.at) if replica.at else "not asked yet"
    return f'<li>{escape(replica.endpoint)}: <span class="{_CLASSES[outcome]}">{outcome}</span>, {when}{texts}</li>'


def _remedy(text: str) -> str:
    """What to do, with the commands in it as such."""
    shown = _COMMAND.sub(r"<code>\1</code>", escape(text))
    return f' <span class="remedy">({shown})</span>' if text else ""


def _breakable(path: str) -> str:
    """A path that may be broken after its slashes."""
    return escape(path).replace("/", "/<wbr>")


def _moment(at: datetime) -> str:
    return f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M:%SZ}</time>'
