"""Every error class can be told from the others on the socket, and has an exit code of a known cause."""

import click

from proxyagent import errors


def test_kinds_are_unique_and_exit_codes_leave_click_and_the_shell_alone() -> None:
    classes = errors._classes(errors.ProxyAgentError)
    ours = [cls for cls in classes if cls.__module__ == errors.__name__]
    assert len({cls.kind for cls in ours}) == len(ours)
    assert all(cls.exit_code not in {0, click.UsageError.exit_code} and cls.exit_code < 126 for cls in ours)
    assert all(cls.__doc__ for cls in ours)


def test_a_kind_gives_its_class_again() -> None:
    for cls in errors._BY_KIND.values():
        assert type(errors.from_kind(cls.kind, "m", "h")) is cls
