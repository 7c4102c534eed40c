"""`[job.reco]`: what the names of outputs are made of."""

import pytest
from pydantic import ValidationError

from mover.naming import Step
from mover.recoconfig import JobConfig

LFN = "RECO/{release}/{step}/{century:05d}/{run:05d}_offline.tar"
AGAIN = LFN.replace("offline", "offline_{iteration}")


def job(lfn: str, again: str) -> JobConfig:
    return JobConfig.model_validate({"command": ["do"], "lfn": lfn, "lfn_again": again, "output": {"members": ["a"]}})


def test_the_step_and_century_of_a_run_may_be_in_the_name_of_its_output() -> None:
    steps = (Step("Step1", 0), Step("Step4", 5889))
    assert job(LFN, AGAIN).output_lfn(4742, "0.4.1", 1, steps) == "RECO/0.4.1/Step1/04700/04742_offline.tar"
    assert job(LFN, AGAIN).output_lfn(6008, "0.4.1", 2, steps) == "RECO/0.4.1/Step4/06000/06008_offline_2.tar"


@pytest.mark.parametrize(("lfn", "again"), [(LFN, LFN), ("/" + LFN, AGAIN), (LFN.replace("{run:05d}", "x"), AGAIN)])
def test_a_name_that_cannot_be_an_outputs_is_refused(lfn: str, again: str) -> None:
    with pytest.raises(ValidationError):
        job(lfn, again)
