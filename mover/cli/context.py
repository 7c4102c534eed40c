"""What commands share: the configuration, opened once, and the catalogue."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import click

from mover.catalogue.database import Database
from mover.config import Config, load_config
from mover.ports import StorageEndpoint
from mover.wiring import build_endpoints


class Context:
    """The object that click hands to commands."""

    def __init__(self, config_path: Path) -> None:
        self.config_path = config_path

    @cached_property
    def config(self) -> Config:
        """The configuration.

        Raises:
            ConfigError: it cannot be used.
        """
        return load_config(self.config_path)

    @contextmanager
    def catalogue(self, *, create: bool = False) -> Iterator[Database]:
        """The catalogue, open in the block; made first, if it is not there and `create` is given.

        Raises:
            CatalogueError: it cannot be opened.
        """
        database = Database(self.config.catalogue, create=create)
        try:
            yield database
        finally:
            database.close()

    @contextmanager
    def catalogue_to_read(self) -> Iterator[Database]:
        """The catalogue, open in the block for reading only, so that it may be on a read-only disk.

        Raises:
            CatalogueError: it cannot be opened, or is of another release.
        """
        database = Database(self.config.catalogue, read_only=True)
        try:
            yield database
        finally:
            database.close()

    @contextmanager
    def endpoints(self) -> Iterator[dict[str, StorageEndpoint]]:
        """The adapters of all configured endpoints, open in the block.

        Raises:
            CredentialError: the kernel does not let this process keep proxies to itself.
        """
        opened = build_endpoints(self.config)
        try:
            yield opened
        finally:
            for endpoint in opened.values():
                endpoint.close()


pass_context = click.make_pass_decorator(Context)
