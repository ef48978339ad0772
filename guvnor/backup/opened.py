"""A backup's file, opened: its checksum, its decryption, and which kind of backup it is."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

from guvnor import typed
from guvnor.backup.script import BackupPart, DamagedScriptError, parts
from guvnor.errors import GuvnorError, PreflightError

_CHUNK = 1 << 20
_AGE, _ARMORED = b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----"
_ARCHIVE, _GZIP = b"PGDMP", b"\x1f\x8b"

AskPassphrase = Callable[[str], str | None]
"""Asks for the passphrase of a key; None where there is no terminal."""


class BackupFileError(PreflightError):
    """The backup cannot be read."""

    state = "Nothing was restored: the backup is checked first. The database is unchanged."
    next_step = "guvnor restore --help"


class Kind(Enum):
    """What a backup holds, in words."""

    WHOLE = "the whole database"
    DROPPED = "what a rollback dropped"


@dataclass(frozen=True)
class Backup:
    """A backup that is whole and can be read.

    :ivar sha256: the checksum of the file.
    :ivar counted: what the backup of a rollback holds, part by part, with the number of rows.
    """

    path: Path
    sha256: str
    kind: Kind
    counted: tuple[tuple[BackupPart, int], ...] = ()
    _identities: tuple[Any, ...] = field(default=(), repr=False)

    @contextlib.contextmanager
    def plain(self) -> Iterator[BinaryIO]:
        """Open it: what is read is decrypted, and no plain text is written to a disk."""
        with _plain(self.path, self._identities) as stream:
            yield stream

    @contextlib.contextmanager
    def script(self) -> Iterator[BinaryIO]:
        """Open the script of what a rollback dropped."""
        with self.plain() as stream, gzip.GzipFile(fileobj=stream) as script:
            yield script  # type: ignore[misc]


def open_backup(path: Path, key: Path | None, ask: AskPassphrase) -> Backup:
    """Check that a backup is whole and can be decrypted, from its first byte to its last.

    :param key: the file of the private key, of age or SSH; None for none.
    :param ask: asks for the passphrase of a key.
    :raises BackupFileError: with the reason (exit code 3).
    """
    path = path.absolute()
    try:
        sha256 = _checked(path)
        with path.open("rb") as file:
            head = file.read(len(_ARMORED))
        encrypted = head.startswith((_AGE, _ARMORED))
        identities = read_key(key, ask) if encrypted else ()
        return _inspected(Backup(path, sha256, Kind.WHOLE, (), identities))
    except OSError as error:
        raise BackupFileError(
            f"The backup {path} cannot be read: {(error.strerror or str(error)).lower()}.",
            next_step=f"ls -l {path.parent}",
        ) from None


def _checked(path: Path) -> str:
    """Compare a file with its checksum.

    :raises BackupFileError: when they differ, or when there is no checksum.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    beside = path.with_name(f"{path.name}.sha256")
    try:
        said = beside.read_text("utf-8").split()
    except FileNotFoundError:
        raise BackupFileError(
            f"The backup's checksum, {beside}, is not there, so it is unknown whether the backup is whole.",
            next_step=f"Copy it beside the backup. If it is lost and you trust the backup:\n"
            f"cd {path.parent} && sha256sum {path.name} > {beside.name}",
        ) from None
    except UnicodeDecodeError:
        said = []
    if not said or said[0].lower() != digest:
        raise BackupFileError(
            f"The backup {path} is damaged or incomplete: its checksum is not the one in {beside.name}.",
            next_step=f"cd {path.parent} && sha256sum --check {beside.name}\n"
            "Copy the backup again from where it is kept, with its checksum.",
        )
    return digest


def _inspected(backup: Backup) -> Backup:
    """Read a backup to its end, and tell which kind it is."""
    with backup.plain() as stream:
        head = stream.read(len(_ARCHIVE))
        while stream.read(_CHUNK):
            pass
    if head == _ARCHIVE:
        return backup
    if not head.startswith(_GZIP):
        raise _foreign(backup.path)
    counted = []
    try:
        with backup.script() as script:
            for part, rows in parts(script):
                counted.append((part, sum(1 for _ in rows)))
    except DamagedScriptError as error:
        if not counted and "begin" in str(error):
            raise _foreign(backup.path) from None
        raise BackupFileError(
            f"The backup {backup.path} cannot be used: {error}.",
            next_step="Use the release of guvnor that took it: `guvnor migrate history --json` names it.",
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise BackupFileError(
            f"The backup {backup.path} is damaged or incomplete.",
            next_step="Copy it again from where it is kept, with its checksum.",
        ) from None
    return Backup(backup.path, backup.sha256, Kind.DROPPED, tuple(counted), backup._identities)


def _foreign(path: Path) -> BackupFileError:
    return BackupFileError(
        f"{path} is no backup of guvnor: neither an archive of pg_dump in custom format, nor what a rollback "
        "has backed up.",
        next_step="guvnor migrate history   # names the backup of each run",
    )


def read_key(path: Path | None, ask: AskPassphrase) -> tuple[Any, ...]:
    """Read private keys: of age, also in a file that age has encrypted with a passphrase, or of SSH.

    :raises BackupFileError: when there is no usable key in the file.
    """
    try:
        import pyrage
    except ImportError:
        raise BackupFileError(
            "The backup is encrypted, but the wheel pyrage is not installed.",
            next_step="pip install 'guvnor-migrations[backup]'",
        ) from None
    if path is None:
        raise BackupFileError(
            "The backup is encrypted, and no private key is named.",
            next_step=typed.again_with("backup-identity", "KEY_FILE", when="the private key, of age or SSH"),
        )
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BackupFileError(
            f"The private key {path} cannot be read: {(error.strerror or str(error)).lower()}.",
            next_step=f"ls -l {path}",
        ) from None
    try:
        if text.startswith((_AGE, _ARMORED)):
            text = _unlocked(path, text, ask)
        if text.lstrip().startswith(b"-----BEGIN"):
            return (pyrage.ssh.Identity.from_buffer(text),)
        lines = (line.strip() for line in text.decode().splitlines())
        found = tuple(
            pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")
        )
    except (pyrage.IdentityError, UnicodeDecodeError) as error:
        locked = "must be decrypted" in str(error)
        raise BackupFileError(
            f"The private key {path} is protected by a passphrase, which keys of SSH must not be here."
            if locked
            else f"{path} holds no private key of age (AGE-SECRET-KEY-...) or SSH.",
            next_step=f"cp {path} KEY_FILE && ssh-keygen -p -N '' -f KEY_FILE   # a copy without it"
            if locked
            else "age-keygen -y KEY_FILE   # prints the public key of the right one",
        ) from None
    if not found:
        raise BackupFileError(f"{path} holds no private key of age (AGE-SECRET-KEY-...) or SSH.")
    return found


def _unlocked(path: Path, text: bytes, ask: AskPassphrase) -> bytes:
    """Decrypt a key that is protected by a passphrase."""
    import pyrage

    passphrase = ask(f"Passphrase of {path}: ")
    if passphrase is None:
        raise BackupFileError(
            f"The private key {path} is protected by a passphrase, and there is no terminal to ask on.",
            next_step=typed.again(when="on a terminal"),
        )
    try:
        return bytes(pyrage.passphrase.decrypt(text, passphrase))
    except pyrage.DecryptError:
        raise BackupFileError(
            f"The passphrase of the private key {path} is wrong.", next_step=typed.again()
        ) from None


@contextlib.contextmanager
def _plain(path: Path, identities: tuple[Any, ...]) -> Iterator[BinaryIO]:
    """Open a file, decrypted by a thread at the other end of a pipe."""
    if not identities:
        with path.open("rb") as file:
            yield file
        return
    import pyrage

    reader, writer = os.pipe()

    def decrypt() -> None:
        with os.fdopen(writer, "wb") as target, path.open("rb") as source:
            pyrage.decrypt_io(source, target, list(identities))

    with ThreadPoolExecutor(1) as thread:
        decryption = thread.submit(decrypt)
        with os.fdopen(reader, "rb") as plain:
            try:
                yield plain
                at_end = not plain.read(1)
            except (EOFError, DamagedScriptError, BackupFileError):
                plain.read()
                _raise(decryption.exception(), path)
                raise
        if at_end:  # else the reader has left early, and the library cannot write any more
            _raise(decryption.exception(), path)


def _raise(error: BaseException | None, path: Path) -> None:
    """Raise why a file could not be decrypted."""
    if error is None:
        return
    if isinstance(error, GuvnorError):
        raise error
    if "No matching keys" in str(error):
        raise BackupFileError(
            f"The private key does not decrypt {path}: it was encrypted for other keys.",
            next_step=typed.again_with("backup-identity", "KEY_FILE", when="with another private key"),
        )
    raise BackupFileError(
        f"The backup {path} cannot be decrypted: it is damaged or incomplete ({error}).",
        next_step="Copy it again from where it is kept, with its checksum.",
    )
