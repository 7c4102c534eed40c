"""Find the bundles at an endpoint by walking its directories, as far as the LFN template has them."""

from mover.errors import ConfigError
from mover.naming import LfnNaming
from mover.ports import StorageEndpoint


def stored_runs(endpoint: StorageEndpoint, naming: LfnNaming) -> set[int]:
    """The runs that have a bundle in the endpoint's listings. Some tape systems list no file that is on tape only.

    Raises:
        ConfigError: the LFNs have no folder.
        StorageError: the endpoint does not answer.
    """
    patterns = naming.folder_patterns()
    if not patterns:
        raise ConfigError(
            f"`lfn` is {naming.template.text!r}, without a folder, and a base is not listed",
            hint="name the runs with --runs instead",
        )
    folders = [""]
    for allowed in patterns:
        folders = [
            f"{folder}/{name}" if folder else name
            for folder in folders
            for name in endpoint.directories(folder)
            if any(one.match(name) is not None for one in allowed)
        ]
    found = (naming.run_of(file.path) for folder in folders for file in endpoint.list(folder))
    return {run for run in found if run is not None}
