"""Templates of names: filled and matched, they are each other's inverse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mover.errors import UnsafeNameError
from mover.model import check_name, check_path
from mover.naming import LARGEST_RUN, LfnNaming, RunNaming, Step, Template, TemplateError, temporary_path

MICE = RunNaming(
    Template.parse("{run:05d}.{part:03d}", required={"run", "part"}), Template.parse("{run:05d}.end", required={"run"})
)


@given(run=st.integers(0, LARGEST_RUN - 1), part=st.integers(0, 10**6))
def test_a_part_name_is_recognised_as_that_part_of_that_run_only(run: int, part: int) -> None:
    name = MICE.part_name(run, part)
    assert MICE.part_number(run, name) == part
    assert MICE.part_number(run + 1, name) is None
    assert name.startswith(MICE.prefix(run))


@given(st.text(max_size=20))
def test_what_is_not_exactly_a_marker_marks_no_run(name: str) -> None:
    run = MICE.marked_run(name)
    assert run is None or MICE.marker_name(run) == name


def test_numbers_that_no_command_takes_are_no_runs() -> None:
    assert MICE.marked_run(f"{LARGEST_RUN}.end") == LARGEST_RUN
    assert MICE.marked_run(f"{LARGEST_RUN + 1}.end") is None
    assert MICE.part_number(LARGEST_RUN + 1, f"{LARGEST_RUN + 1}.000") is None


@pytest.mark.parametrize("name", ["4742.end", "004742.end", "04742.end\n", "04742.END", "٠٤٧٤٢.end"])
def test_near_misses_are_no_markers(name: str) -> None:
    assert MICE.marked_run(name) is None


@pytest.mark.parametrize(
    "text", ["{run:05d", "{run.real}.{part}", "{run!r}.{part}", "{run:>5}.{part}", "{part}", "{x}"]
)
def test_templates_that_could_surprise_are_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        Template.parse(text, required={"run", "part"})


def test_lfn_has_century_and_the_step_that_the_run_belongs_to() -> None:
    template = Template.parse(
        "MICE/{step}/{century:05d}/{run:05d}.tar", required={"run"}, optional=frozenset({"century", "step"})
    )
    naming = LfnNaming(template, (Step("Step4", 5889), Step("Step1", 0)))
    assert naming.lfn(4742) == "MICE/Step1/04700/04742.tar"
    assert naming.lfn(5888) == "MICE/Step1/05800/05888.tar"
    assert naming.lfn(5889) == "MICE/Step4/05800/05889.tar"


def test_temporary_path_lies_beside_and_differs_with_each_attempt() -> None:
    assert temporary_path("a/b/04742.tar", 1) == "a/b/04742.tar.mover-1.part"
    assert temporary_path("04742.tar", 2) == "04742.tar.mover-2.part"


@pytest.mark.parametrize("name", ["", ".", "..", "-rf", "a b", "a\n", "a\x00", "é", "a/b", "a%2e", "x" * 201])
def test_unsafe_names_are_refused(name: str) -> None:
    with pytest.raises(UnsafeNameError):
        check_name(name)


@pytest.mark.parametrize("path", ["/a", "a//b", "a/../b", "a/", "./a"])
def test_unsafe_paths_are_refused(path: str) -> None:
    with pytest.raises(UnsafeNameError):
        check_path(path)
