"""A backup's file: its owner's alone, there as a whole or not at all, encrypted if there are recipients."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from guvnor.errors import GuvnorError, PreflightError

_UNFINISHED = ".unfinished"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CHECKSUM = ".sha256"


class BackupCheckError(PreflightError):
    """A backup cannot be taken like this."""

    state = "No backup was started; the database is unchanged."
    next_step = "guvnor migrate deploy --help"


class BackupError(GuvnorError):
    """The backup failed."""

    state = "The database is unchanged; what there was of the backup is removed."
    next_step = "Correct the cause, then run the same command again."


def parse_recipients(texts: Sequence[str]) -> list[Any]:
    """Read public keys of age (``age1...``) and of SSH (``ssh-ed25519 ...``, ``ssh-rsa ...``).

    :raises BackupCheckError: when one is none, or when the wheel pyrage is not installed.
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
            # A private key given by mistake must not be shown.
            raise BackupCheckError(
                f"Recipient {len(found) + 1} of the backup is no public key of age (age1...) or SSH "
                "(ssh-ed25519 ..., ssh-rsa ...).",
                next_step="age-keygen -y KEY_FILE   # prints the public key that belongs to a private one",
            ) from None
    return found


class _Disk:
    """The file itself: counts and hashes what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self.bytes = 0
        self.digest = hashlib.sha256()
        self.failure: OSError | None = None
        self._file = file

    def write(self, data: bytes) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.failure = error  # the encryption would make a text of it
            raise
        self.digest.update(data)
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()


class _Encryption:
    """Encrypts what is written and passes it on, chunk by chunk, so that memory stays bounded.

    The library pulls from a file, so it works in a thread at the end of a pipe. Signals and their exceptions
    stay in the main thread, where nothing turns them into errors of encryption.
    """

    def __init__(self, disk: _Disk, recipients: Sequence[Any]) -> None:
        reader, writer = os.pipe()
        self._pipe = os.fdopen(writer, "wb")
        self._failure: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(os.fdopen(reader, "rb"), disk, recipients), name="encryption", daemon=True
        )
        self._thread.start()

    def _run(self, source: BinaryIO, disk: _Disk, recipients: Sequence[Any]) -> None:
        import pyrage

        with source:
            try:
                pyrage.encrypt_io(source, disk, recipients)
            except BaseException as error:  # noqa: BLE001 - raised by whoever writes next
                self._failure = disk.failure or error

    def write(self, data: bytes) -> int:
        try:
            return self._pipe.write(data)
        except BrokenPipeError:
            self._raise_failure()
            raise

    def close(self) -> None:
        """Write the rest; what was written is complete only after this."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe.close()
        self._thread.join()
        self._raise_failure()

    def _raise_failure(self) -> None:
        self._thread.join()
        if isinstance(self._failure, OSError):
            raise self._failure
        if self._failure is not None:
            raise BackupError(f"The backup could not be encrypted: {self._failure}")


class Output:
    """Takes a backup's bytes.

    :ivar path: where the file is when it is finished.
    """

    def __init__(self, path: Path, disk: _Disk, encryption: _Encryption | None) -> None:
        """Take the bytes to a file, by way of an encryption where there is one."""
        self.path = path
        self._disk = disk
        self._encryption = encryption

    def write(self, data: bytes) -> int:
        """Write some bytes; returns how many."""
        return (self._encryption or self._disk).write(data)

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return self._disk.bytes

    @property
    def sha256(self) -> str:
        """The checksum of the file."""
        return self._disk.digest.hexdigest()


@contextlib.contextmanager
def written(directory: Path, name: str, recipients: Sequence[str]) -> Iterator[Output]:
    """Write a file: under a temporary name, with mode 0600, renamed when the body ends without an error.

    A file with its checksum, in the format of ``sha256sum``, lies beside it before it gets its name.

    :param recipients: public keys to encrypt it for; when there are some, nothing plain reaches the disk.
    :raises BackupError: when it cannot be written; then, as after any other error, nothing is left of it.
    """
    keys = parse_recipients(recipients)
    path = directory / (name + (".age" if keys else ""))
    unfinished = directory / f".{path.name}{_UNFINISHED}"
    checksum = path.with_name(path.name + CHECKSUM)
    try:
        remove_abandoned(directory)
        with _private(unfinished) as file:
            disk = _Disk(file)
            encryption = _Encryption(disk, keys) if keys else None
            output = Output(path, disk, encryption)
            try:
                yield output
            except BaseException:
                if encryption:
                    with contextlib.suppress(OSError, BackupError):
                        encryption.close()
                raise
            if encryption:
                encryption.close()
            _to_disk(file)
            with _private(checksum) as beside:
                beside.write(f"{output.sha256}  {path.name}\n".encode())
                _to_disk(beside)
            unfinished.rename(path)
            _sync_directory(directory)
    except OSError as error:
        _remove(unfinished, checksum)
        raise _explained(directory, error) from error
    except BaseException:
        _remove(unfinished, checksum)
        raise


@contextlib.contextmanager
def _private(path: Path) -> Iterator[BinaryIO]:
    """Make a file that only its owner may read, from its first moment, and lock it while it is written."""
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    try:
        os.fchmod(file.fileno(), 0o600)
        with contextlib.suppress(OSError):  # not every network file system has locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file
    finally:
        with contextlib.suppress(OSError):  # a full disk was already said by what was written before
            file.close()


def _to_disk(file: BinaryIO) -> None:
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


def remove_abandoned(directory: Path) -> None:
    """Remove what killed runs have left unfinished; who still writes holds a lock on its file."""
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
            f"The directory for the backup, {directory}, does not exist or is no directory.",
            next_step=f"mkdir -m 700 {directory}   # or mount it",
        )
    probe = directory / f".guvnor-probe-{os.getpid()}"
    try:
        with _private(probe) as file:
            file.write(b"probe")
            _to_disk(file)
    except OSError as error:
        raise BackupCheckError(
            f"The directory for the backup, {directory}, cannot be written to: {reason(error)}.",
            next_step=f"ls -ld {directory} && df -h {directory}",
        ) from None
    finally:
        _remove(probe)


def _explained(directory: Path, error: OSError) -> BackupError:
    full = error.errno in _FULL
    return BackupError(
        f"The backup could not be written to {directory}: {reason(error)}.",
        next_step=f"df -h {directory}   # make room, then run the same command again" if full else None,
    )


def reason(error: OSError) -> str:
    """Say in plain words why the operating system refused."""
    if error.errno in _FULL:
        return "there is no room left (disk full, or a limit of size)"
    return (error.strerror or type(error).__name__).lower()
