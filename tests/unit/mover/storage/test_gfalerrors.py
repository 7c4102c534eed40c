"""Every error that gfal2 was seen to give means what it should."""

import pytest

from mover.errors import (
    AccessDeniedError,
    EndpointFullError,
    EndpointUnavailableError,
    FileExistsAtEndpointError,
    FileMissingError,
    ForeignFileError,
    StorageError,
)
from mover.storage.gfalerrors import printable, storage_error

URL = "davs://localhost:1094/store/a"


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (2, "Failed to stat file (No such file or directory)", FileMissingError),
        (2, "Result HTTP 404 : File not found  after 1 attempts", FileMissingError),
        (17, "HTTP 409 : Conflict, File Exist ", FileExistsAtEndpointError),
        (13, "Failed to delete file (Permission denied)", AccessDeniedError),
        (1, "DavPosix::unlink  HTTP 403 : Permission refused ", AccessDeniedError),
        (52, "Failed to stat file (Invalid exchange)", AccessDeniedError),
        (52, "[FATAL] Auth failed", AccessDeniedError),
        (112, "(Neon): Could not read status line: SSL error: sslv3 alert certificate expired", AccessDeniedError),
        (112, "(Neon): Could not read status line: SSL error: tlsv1 alert unknown ca", AccessDeniedError),
        (112, "Result Could not connect to server after 1 attempts", EndpointUnavailableError),
        (112, "Result (Neon): Could not send request: Connection reset by peer", EndpointUnavailableError),
        (
            13,
            "Result (Neon): SSL handshake failed: Connection timed out during SSL handshake after 1 attempts",
            EndpointUnavailableError,
        ),
        (111, "Failed to stat file (Connection refused)", EndpointUnavailableError),
        (110, "Failed to stat file (Connection timed out)", EndpointUnavailableError),
        (70, "[FATAL] Socket timeout", EndpointUnavailableError),
        (70, "HTTP 503 : Service Unavailable", EndpointUnavailableError),
        (28, "No space left on device", EndpointFullError),
        (122, "Disk quota exceeded", EndpointFullError),
        (20, "is not a collection, listing impossible", ForeignFileError),
        (21, "is a directory, impossible to unlink", ForeignFileError),
        (14, "Could not get the checksum (Bad address)", StorageError),
        (5, "XML Parsing Error: XML parse error at line 54: Input is not proper UTF-8", StorageError),
        (2, "Could not open the user certificate", AccessDeniedError),
        (70, "500-Command failed. : callback failed.  500-globus_xio: No space left on device", EndpointFullError),
        (70, "globus_xio: Unable to connect to localhost:2811 Connection refused", EndpointUnavailableError),
        (11, "Failed to stat file (Resource temporarily unavailable)", EndpointUnavailableError),
        (9999, "something that nobody has seen", EndpointUnavailableError),
    ],
)
def test_meaning(code: int, text: str, kind: type[StorageError]) -> None:
    error = storage_error(code, text, URL)
    assert type(error) is kind
    assert error.message.startswith(URL)
    assert error.hint


def test_our_own_names_do_not_decide() -> None:
    url = "root://localhost//store/timeout-HTTP 403"
    assert (
        type(storage_error(2, f"Failed to create directory {url} (No such file or directory)", url)) is FileMissingError
    )


def test_the_cause_is_shown_not_what_globus_always_begins_with() -> None:
    chain = "globus_ftp_control: GSS Minor Status Error Chain: globus_gsi_gssapi: SSL handshake problems " + "x " * 80
    error = storage_error(13, f"{chain} GSS Minor Status Error Chain: The certificate has expired", URL)
    assert "The certificate has expired" in error.message
    assert "globus_ftp_control" not in error.message


def test_what_the_server_says_is_cut_and_escaped() -> None:
    shown = printable("\x1b[2J\x00é\n" + "x" * 10_000)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 300
