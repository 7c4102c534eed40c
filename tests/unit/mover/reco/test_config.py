"""What is refused of `[reco]` and `[job]`, and how it is said."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mover.config import Config
from mover.model import BundleKind
from mover.naming import Step
from tests.unit.mover.reco.recobench import RecoBench

Raw = dict[str, Any]


def _no_policy(raw: Raw) -> None:
    raw["policy"]["mc"] = None


def _opaque(raw: Raw) -> None:
    raw["runs"]["format"] = "opaque"
    raw["job"]["mc"]["output"]["tree"] = [{"member": "a", "tree": "b", "entries_from": "physics-events"}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw["reco"].update(endpoint="nowhere"), "there is no endpoint 'nowhere'"),
        (lambda raw: raw["reco"].update(sources=["nowhere"]), "there is no endpoint 'nowhere'"),
        (lambda raw: raw["reco"].update(scratch=raw["runs"]["directory"] + "/x"), "scratch: put it elsewhere"),
        (lambda raw: raw["reco"].update(kinds=[]), "kinds must list"),
        (lambda raw: raw["reco"].update(kinds=["reco", "reco"]), "kinds must list"),
        (lambda raw: raw["reco"].update(kinds=["raw"]), "kinds"),
        (lambda raw: raw["reco"].update(longest_retry_seconds=1), "longest_retry_seconds is shorter"),
        (lambda raw: raw["reco"].update(batch={"kind": "pbs"}), "batch"),
        (lambda raw: raw["reco"].update(batch={"kind": "arc", "url": "http://ce/arex"}), "write https://"),
        (lambda raw: raw["job"].update(mc=None), "add the table [job.mc]"),
        (_no_policy, "add [policy.mc]"),
        (_opaque, "nobody can count events"),
        (lambda raw: raw["job"]["reco"].update(lfn="RECO/{run}.tar"), "lacks the field {release}"),
        (lambda raw: raw["job"]["reco"].update(lfn_again="RECO/{release}/{run}.tar"), "lacks the field {iteration}"),
        (lambda raw: raw["job"]["reco"].update(lfn="/{release}/{run}.tar"), "unsafe file name"),
        (lambda raw: raw["job"]["reco"].update(file="{run}/a.tar"), "unsafe file name"),
        (lambda raw: raw["job"]["reco"].update(command=[]), "command"),
    ],
)
def test_what_can_never_work_is_refused(tmp_path: Path, change: Callable[[Raw], None], words: str) -> None:
    raw = RecoBench(tmp_path).config.model_dump(mode="json")
    change(raw)
    with pytest.raises(ValidationError, match=re.escape(words)):
        Config.model_validate(raw)


def test_names_have_the_iteration_whenever_it_is_not_the_first(tmp_path: Path) -> None:
    job = RecoBench(tmp_path).config.job.of(BundleKind.RECO)
    assert job is not None
    assert job.output_lfn(4742, "0.4.1", 1, ()) == "RECO/0.4.1/04742_offline.tar"
    assert job.output_lfn(4742, "0.4.1", 3, ()) == "RECO/0.4.1/04742_offline_3.tar"


def test_names_may_have_the_step(tmp_path: Path) -> None:
    job = RecoBench(tmp_path).config.job.of(BundleKind.RECO)
    assert job is not None
    job = job.model_copy(update={"lfn": "RECO/{release}/{step}/{century:05d}/{run:05d}.tar"})
    steps = (Step("Step1", 0), Step("Step4", 5889))
    assert job.output_lfn(6008, "0.4.1", 1, steps) == "RECO/0.4.1/Step4/06000/06008.tar"
