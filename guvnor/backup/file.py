"""A backup's file: private to its owner, written completely or not at all, encrypted for its recipients."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from guvnor import typed
from guvnor.errors import GuvnorError, PreflightError

_UNFINISHED = ".unfinished"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BackupCheckError(PreflightError):
    """The backup cannot be taken."""

    state = "No backup was started; the database is unchanged."
    next_step = "guvnor migrate deploy --help"


class BackupError(GuvnorError):
    """The backup failed."""

    state = "The database is unchanged; the unfinished backup was removed."
    repeat_when = "after fixing the cause"


def parse_recipients(texts: Sequence[str]) -> list[Any]:
    """Read public keys of age (``age1...``) and of SSH (``ssh-ed25519 ...``, ``ssh-rsa ...``).

    :raises BackupCheckError: when one is not a public key, or when the wheel pyrage is not installed.
    """
    if not texts:
        return []
    try:
        import pyrage
    except ImportError:
        raise BackupCheckError(
            "The backup is to be encrypted, but the wheel pyrage is not installed.",
            next_step="pip install 'guvnor-migrations[backup]'",
        ) from None
    found = []
    for text in texts:
        kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
        try:
            found.append(kind.Recipient.from_str(text.strip()))
        except pyrage.RecipientError:
            # The text is not shown: it may be a private key, given by mistake.
            raise BackupCheckError(
                f"Recipient {len(found) + 1} of the backup is not a public key of age (age1...) or SSH "
                "(ssh-ed25519 ..., ssh-rsa ...).",
                next_step="age-keygen -y KEY_FILE   # prints the public key of a private one",
            ) from None
    return found


@dataclass
class Output:
    """A backup's file while it is written: counts and hashes the bytes that reach the disk.

    :ivar path: where the file is once it is complete.
    :ivar size: how many bytes were written.
    :ivar failure: the error of the disk, of which the encryption reports only the text.
    """

    path: Path
    file: BinaryIO
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    failure: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write bytes to the disk."""
        try:
            self.file.write(data)
        except OSError as error:
            self.failure = error
            raise
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Hand everything to the operating system; the encryption calls this."""
        self.file.flush()


@contextlib.contextmanager
def _encrypted(output: Output, recipients: Sequence[Any]) -> Iterator[BinaryIO]:
    """Encrypt what the body writes, in bounded memory.

    The library reads from a file, so it runs in a thread at the end of a pipe. Signals, and the exceptions
    that they raise, stay in the main thread, where the library cannot turn them into errors of encryption.
    """
    import pyrage

    reader, writer = os.pipe()

    def encrypt() -> None:
        with os.fdopen(reader, "rb") as source:
            pyrage.encrypt_io(source, output, recipients)

    with ThreadPoolExecutor(1) as thread:
        encryption = thread.submit(encrypt)
        try:
            with os.fdopen(writer, "wb") as plain:
                yield plain
        except BrokenPipeError:
            if encryption.exception() is None:
                raise
    if error := encryption.exception():
        raise output.failure or BackupError(f"The backup could not be encrypted: {error}")


@contextlib.contextmanager
def new_file(
    directory: Path, name: str, recipients: Sequence[str]
) -> Iterator[tuple[Output, Output | BinaryIO]]:
    """Write a file under a temporary name, with mode 0600, and rename it when the body ends without an error.

    Before that, its checksum is written to a second file in the format of ``sha256sum``.

    :param recipients: public keys to encrypt it for; when there are some, nothing plain reaches the disk.
    :returns: the file, and where the backup's bytes are written: the file itself or its encryption.
    :raises BackupError: when it cannot be written; after any error, nothing is left of it.
    """
    keys = parse_recipients(recipients)
    path = directory / (name + (".age" if keys else ""))
    unfinished = directory / f".{path.name}{_UNFINISHED}"
    checksum = path.with_name(f"{path.name}.sha256")
    try:
        _remove_abandoned(directory)
        with _private(unfinished) as file:
            output = Output(path, file)
            with _encrypted(output, keys) if keys else contextlib.nullcontext(output) as plain:
                yield output, plain
            _sync(file)
            with _private(checksum) as summed:
                summed.write(f"{output.digest.hexdigest()}  {path.name}\n".encode())
                _sync(summed)
            unfinished.rename(path)
            _sync_directory(directory)
    except BaseException as error:
        _remove(unfinished, checksum, path)
        if not isinstance(error, OSError):
            raise
        make_room = f"df -h {directory}   # make room\n{typed.again(when='then')}"
        raise BackupError(
            f"The backup could not be written to {directory}: {_reason(error)}.",
            next_step=make_room if error.errno in _FULL else None,
        ) from error


@contextlib.contextmanager
def _private(path: Path) -> Iterator[BinaryIO]:
    """Create a file that only its owner can read, and lock it while it is written."""
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    try:
        os.fchmod(file.fileno(), 0o600)
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file
    finally:
        with contextlib.suppress(OSError):  # _sync has raised it before
            file.close()


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(*paths: Path) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def _remove_abandoned(directory: Path) -> None:
    """Remove the unfinished files of killed runs; a run that still writes holds a lock on its file."""
    for path in directory.glob(f".*{_UNFINISHED}"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def check_directory(directory: Path) -> None:
    """Write a file into a directory and remove it.

    :raises BackupCheckError: when that does not work.
    """
    if not directory.is_dir():
        raise BackupCheckError(
            f"The directory for the backup, {directory}, does not exist or is not a directory.",
            next_step=f"mkdir -m 700 {directory}   # or mount it",
        )
    probe = directory / f".guvnor-probe-{os.getpid()}"
    try:
        with _private(probe) as file:
            file.write(b"probe")
            _sync(file)
    except OSError as error:
        raise BackupCheckError(
            f"The directory for the backup, {directory}, cannot be written to: {_reason(error)}.",
            next_step=f"ls -ld {directory} && df -h {directory}",
        ) from None
    finally:
        _remove(probe)


def _reason(error: OSError) -> str:
    """Say in plain words why the operating system refused."""
    if error.errno in _FULL:
        return "there is no room left (disk full, or a size limit)"
    return (error.strerror or type(error).__name__).lower()
