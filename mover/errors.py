"""Every error that a user can meet: what happened, to what, what to do next, and the exit code.

Messages are lower case without a final stop. A `hint` is the next thing to do. The command line prints both
and exits with `exit_code`; `docs/exit-codes.md` is generated from these classes.
"""

from typing import ClassVar


class MoverError(Exception):
    """Something failed inside the mover itself."""

    exit_code: ClassVar[int] = 1

    #: Whether trying again without a person's help is pointless.
    permanent: ClassVar[bool] = True

    def __init__(self, message: str, *, hint: str) -> None:
        # Foreign bytes may be in them that are no text: neither the catalogue nor a terminal takes those.
        self.message = message.encode("utf-8", "backslashreplace").decode("utf-8")
        self.hint = hint.encode("utf-8", "backslashreplace").decode("utf-8")
        super().__init__(self.message)


class UnexpectedError(MoverError):
    """An error that no code expected: a bug, or a library that behaves unlike its documentation."""

    permanent = False

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            f"unexpected {type(error).__name__}: {error}",
            hint="please report it, with the traceback that --verbose or the log has",
        )
        # Its traceback is what a report needs.
        self.__cause__ = error


class ConfigError(MoverError):
    """The configuration is missing, unreadable or contradicts itself."""

    exit_code = 3


class RunError(MoverError):
    """A run's files are not what a complete run looks like; the run is quarantined."""

    exit_code = 4


class RunDirectoryError(MoverError):
    """The directory that the DAQ writes to cannot be read; nothing is known of its runs."""

    exit_code = 4
    permanent = False


class RunIncompleteError(RunError):
    """A part is missing, cut short, or the run has no start or end; `mover run close --force` may override it."""


class UnsafeNameError(RunError):
    """A name or a kind of file that must not be packaged: a symlink, a device, '..', a control byte."""


class RunChangedError(RunError):
    """The run's files are no longer those that were planned or already stored."""


class LfnTakenError(RunError):
    """Another run has a bundle of that LFN already."""


class CatalogueError(MoverError):
    """The catalogue cannot be opened, is of another version, or refuses a change of state."""

    exit_code = 5


class CampaignError(CatalogueError):
    """There is no such campaign, or nothing that it could do."""


class StateError(CatalogueError):
    """A change of state that the table forbids: somebody else was quicker, or it is a bug."""

    permanent = False


class LeaseLostError(CatalogueError):
    """The claim on a piece of work ran out, or another engine holds it now."""

    permanent = False


class StorageError(MoverError):
    """An endpoint could not do what it was asked."""

    exit_code = 6


class EndpointUnavailableError(StorageError):
    """The endpoint is down, refuses connections, stalls, or answers with a server error."""

    permanent = False


class EndpointFullError(StorageError):
    """The endpoint has no space left."""

    permanent = False


class AccessDeniedError(StorageError):
    """The endpoint refuses our credential for this path."""

    permanent = False


class FileMissingError(StorageError):
    """The endpoint has no file of that name."""

    permanent = False


class FileExistsAtEndpointError(StorageError):
    """The name is already taken at the endpoint, and nothing is ever overwritten."""

    permanent = False


class ThirdPartyCopyError(StorageError):
    """Two endpoints cannot copy from one to the other directly; the bundle goes another way."""

    permanent = False


class CopyFailedError(StorageError):
    """A replica could not be made from another one; what failed may be either of them, or the way between them."""

    permanent = False


class NotOnlineError(StorageError):
    """A file is on tape only: it must be brought online first, or did not come in time."""

    permanent = False


class ForeignFileError(StorageError):
    """A file that we did not write stands under a name that we need."""


class VerificationError(MoverError):
    """What is stored differs from what was sent."""

    exit_code = 7
    permanent = False


class CertificateError(MoverError):
    """A custody certificate is not what it claims to be, or cannot be made."""

    exit_code = 7


class AuditError(MoverError):
    """An audit found something wrong with what is stored."""

    exit_code = 7


class AdoptionError(MoverError):
    """A bundle that others stored is not what its own md5 listing says, or no endpoint has it."""

    exit_code = 7


class CredentialError(MoverError):
    """No usable Grid proxy: the agent is not there, has no session, or refuses us."""

    exit_code = 8
    permanent = False


class NotSafeError(MoverError):
    """The replica policy does not hold, so the local files must stay."""

    exit_code = 9
    permanent = False


class NoSourceError(MoverError):
    """There is nothing that a replica could be made from: no local files, and no proven replica within reach."""

    exit_code = 9
    permanent = False


class StoppedError(MoverError):
    """The work was interrupted because the program was asked to stop."""

    exit_code = 10
    permanent = False


class SandboxError(MoverError):
    """A server of the sandbox did not start or is not installed."""

    exit_code = 11


class AuditIncompleteError(MoverError):
    """An audit found nothing wrong, but not everything could be asked, so that it does not say that all is well."""

    exit_code = 13
    permanent = False


class OutputError(MoverError):
    """A file that was asked for cannot be written, or its name is taken."""

    exit_code = 12


class BatchError(MoverError):
    """A batch system could not do what it was asked."""

    exit_code = 14


class BatchUnavailableError(BatchError):
    """The batch system does not answer, or has no room now."""

    permanent = False


class JobRefusedError(BatchError):
    """The batch system will not run such a job: no such partition, limits exceeded, or it may not be ours."""


class JobTransientError(BatchError):
    """A job ended without a result for a reason that may pass: it is submitted again, a limited number of times."""

    permanent = False


class JobFailedError(BatchError):
    """A job failed in a way that an expert must look at; its logs are kept."""


class ReleaseNotFoundError(MoverError):
    """A software release is not on CVMFS, is not approved, or cannot be set up; nothing is submitted."""

    exit_code = 15
    permanent = False


class OutputContractError(MoverError):
    """A job's output as stored is not what the output contract asks for; it never counts as done."""

    exit_code = 16


class OutputUncheckedError(MoverError):
    """Nothing can be said of a job's output now: this machine has no space for it, or no process to look into it."""

    exit_code = 17
    permanent = False
