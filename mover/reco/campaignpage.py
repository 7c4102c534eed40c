"""A campaign's report as one HTML page that needs nothing but itself. All that comes from outside is escaped."""

from collections.abc import Iterable, Iterator
from html import escape

from mover.catalogue.jobs import JobRecord
from mover.htmlpage import moment, remedy, render_document
from mover.reco.campaignreport import CampaignReport
from mover.states import JobState

_CLASSES = {JobState.PROVEN: "good", JobState.QUARANTINED: "wrong", JobState.CANCELLED: "unknown"}


def render_campaign(report: CampaignReport) -> str:
    """The whole page."""
    return render_document(f"Campaign {report.campaign.id}", _body(report))


def _body(report: CampaignReport) -> Iterator[str]:
    campaign, progress = report.campaign, report.progress
    yield f"<h1>Campaign {campaign.id}</h1>"
    yield f'<p class="verdict {_verdict_class(report)}">{escape(str(report))}</p>'
    yield f"<p>Asked for: {escape(campaign.chosen)}; at most {campaign.most_jobs} jobs at a time.</p>"
    yield f"<p>As of {moment(report.at)}. End: {escape(report.end)}.</p>"
    yield f"<p>Proven outputs: {progress.output_bytes:,} bytes.</p>"
    yield from _kinds(report)
    if report.failed:
        yield "<h2>What needs a person</h2>"
        yield from _jobs(report.failed)
    if report.troubled:
        yield "<h2>What is tried again</h2>"
        yield from _jobs(report.troubled)
    yield "<h2>History</h2>\n<table>\n<thead><tr><th>when</th><th>what</th><th>by</th></tr></thead>\n<tbody>"
    for one in report.history:
        yield f"<tr><td>{moment(one.at)}</td><td>{escape(one.event)}</td><td>{escape(one.by)}</td></tr>"
    yield "</tbody>\n</table>"


def _verdict_class(report: CampaignReport) -> str:
    if report.failed:
        return "wrong"
    return "good" if report.is_well else "unknown"


def _kinds(report: CampaignReport) -> Iterator[str]:
    heads = "".join(f'<th class="number">{state}</th>' for state in JobState)
    yield f'<div class="wide">\n<table>\n<thead><tr><th>jobs</th>{heads}</tr></thead>\n<tbody>'
    for kind, counts in report.by_kind.items():
        cells = "".join(
            f'<td class="number {_CLASSES.get(state, "") if counts.get(state) else ""}">{counts.get(state, 0)}</td>'
            for state in JobState
        )
        yield f"<tr><td>{escape(kind)}</td>{cells}</tr>"
    yield "</tbody>\n</table>\n</div>"


def _jobs(jobs: Iterable[JobRecord]) -> Iterator[str]:
    yield '<div class="wide">\n<table>\n<thead><tr><th class="number">run</th><th>job</th><th>state</th>'
    yield '<th class="number">attempts</th><th>what happened</th></tr></thead>\n<tbody>'
    for job in jobs:
        again = f", iteration {job.key.iteration}" if job.key.iteration > 1 else ""
        yield (
            f'<tr><td class="number">{job.key.run}</td><td>{escape(job.key.kind + again)}</td>'
            f'<td class="{_CLASSES.get(job.state, "unknown")}">{job.state}</td><td class="number">{job.attempts}</td>'
            f'<td class="text found">{escape(job.problem or "")}{remedy(job.hint or "")}</td></tr>'
        )
    yield "</tbody>\n</table>\n</div>"
