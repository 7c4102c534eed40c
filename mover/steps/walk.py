"""Find the bundles at an endpoint by walking its directories, as far as the LFN template has them."""

from collections.abc import Iterator

from mover.errors import ConfigError
from mover.model import StoredFile
from mover.naming import LfnNaming, Template
from mover.ports import StorageEndpoint
from mover.recoconfig import JobConfig, OutputName


def walk_bundles(endpoint: StorageEndpoint, naming: LfnNaming) -> Iterator[dict[int, StoredFile]]:
    """The bundles in the endpoint's listings, by run: one item for each request, so that a walk can take its time.

    Folders whose names are known are not looked for: the base, for one, need not be ours to list. Some tape systems
    list no file that is on tape only.

    Raises:
        ConfigError: the LFNs have no folder.
        StorageError: the endpoint does not answer.
    """
    for files in walk_files(endpoint, naming.folder_patterns(), naming.template.text):
        found = ((naming.run_of(file.path), file) for file in files)
        yield {run: file for run, file in found if run is not None}


def walk_files(endpoint: StorageEndpoint, patterns: list[list[Template]], lfn: str) -> Iterator[list[StoredFile]]:
    """The files in folders that are called like that, from the base down, as `walk_bundles` has them.

    Raises:
        ConfigError: there are no folders in `lfn`, the template.
        StorageError: the endpoint does not answer.
    """
    if not patterns:
        raise ConfigError(
            f"`lfn` is {lfn!r}, without a folder, and a base is not listed",
            hint="name the runs with `mover adopt`, or with --runs, instead",
        )
    ahead = [("", patterns)]
    while ahead:
        folder, below = ahead.pop()
        if not below:
            yield endpoint.list(folder)
            continue
        known = all(one.is_constant for one in below[0])
        names = [one.fill() for one in below[0]] if known else endpoint.directories(folder)
        fitting = [name for name in names if any(one.values(name) is not None for one in below[0])]
        ahead += [(f"{folder}/{name}" if folder else name, below[1:]) for name in reversed(fitting)]
        if not known:
            yield []


def stored_runs(endpoint: StorageEndpoint, naming: LfnNaming) -> set[int]:
    """The runs that have a bundle in the endpoint's listings.

    Raises:
        ConfigError: the LFNs have no folder.
        StorageError: the endpoint does not answer.
    """
    return {run for found in walk_bundles(endpoint, naming) for run in found}


def stored_outputs(endpoint: StorageEndpoint, job: JobConfig, naming: LfnNaming) -> set[OutputName]:
    """The outputs of jobs of a kind in the endpoint's listings; `naming` is that of raw bundles.

    Raises:
        ConfigError: the LFNs have no folder.
        StorageError: the endpoint does not answer.
    """
    return {
        name
        for patterns in job.output_folders(naming.steps)
        for files in walk_files(endpoint, patterns, job.lfn)
        for file in files
        if (name := job.output_of(file.path, naming.steps)) is not None
    }
