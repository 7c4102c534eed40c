"""Find the bundles at an endpoint by walking its directories, as far as the LFN template has them."""

from collections.abc import Iterator

from mover.errors import ConfigError
from mover.model import StoredFile
from mover.naming import LfnNaming
from mover.ports import StorageEndpoint


def walk_bundles(endpoint: StorageEndpoint, naming: LfnNaming) -> Iterator[dict[int, StoredFile]]:
    """The bundles in the endpoint's listings, by run: one item for each request, so that a walk can take its time.

    Folders whose names are known are not looked for: the base, for one, need not be ours to list. Some tape systems
    list no file that is on tape only.

    Raises:
        ConfigError: the LFNs have no folder.
        StorageError: the endpoint does not answer.
    """
    patterns = naming.folder_patterns()
    if not patterns:
        raise ConfigError(
            f"`lfn` is {naming.template.text!r}, without a folder, and a base is not listed",
            hint="name the runs with `mover adopt`, or with --runs, instead",
        )
    ahead = [("", patterns)]
    while ahead:
        folder, below = ahead.pop()
        if not below:
            found = ((naming.run_of(file.path), file) for file in endpoint.list(folder))
            yield {run: file for run, file in found if run is not None}
            continue
        known = all(one.is_constant for one in below[0])
        names = [one.fill() for one in below[0]] if known else endpoint.directories(folder)
        fitting = [name for name in names if any(one.match(name) is not None for one in below[0])]
        ahead += [(f"{folder}/{name}" if folder else name, below[1:]) for name in reversed(fitting)]
        if not known:
            yield {}


def stored_runs(endpoint: StorageEndpoint, naming: LfnNaming) -> set[int]:
    """The runs that have a bundle in the endpoint's listings.

    Raises:
        ConfigError: the LFNs have no folder.
        StorageError: the endpoint does not answer.
    """
    return {run for found in walk_bundles(endpoint, naming) for run in found}
