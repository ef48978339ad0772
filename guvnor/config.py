"""Settings, and where each came from.

Precedence: command-line flag, environment, ``.env`` of the current directory, the file of ``--config`` (the
application's own YAML file), defaults. ``guvnor`` and plain ``alembic`` resolve the same settings.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guvnor.errors import ConfigurationError

MASK = "***"
STORAGE_TYPES = ("postgres", "embedded")
OLDEST_SERVER = 14  # the oldest major version of PostgreSQL that is supported
PRODUCTION = "production"
_MISSPELT = 0.88  # likeness (difflib) from which on a name is a slip of the hand
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


@dataclass(frozen=True)
class Option:
    """One setting: its name, the environment variable that sets it, its default and what it means."""

    name: str
    variable: str
    default: str
    meaning: str
    in_file: bool = False


OPTIONS = (
    Option("config", "GUVNOR_CONFIG", "", "the application's YAML file, of which storage.* is read"),
    Option(
        "storage.type", "GUVNOR_STORAGE_TYPE", "postgres", "postgres, or embedded: the local server", True
    ),
    Option("storage.dsn", "GUVNOR_STORAGE_DSN", "", "libpq's connection string: URL or keywords", True),
    Option("storage.role", "GUVNOR_STORAGE_ROLE", "", "role to act as (SET ROLE): the objects' owner", True),
    Option("environment", "GUVNOR_ENV", "development", "production guards what can lose data"),
    Option("log.level", "GUVNOR_LOG_LEVEL", "info", "debug, info, warning or error"),
    Option("log.format", "GUVNOR_LOG_FORMAT", "", "text or json; by default text on a terminal"),
    Option("lock_wait", "GUVNOR_LOCK_WAIT", "5min", "how long to wait for another migration to end"),
    Option("max_wait", "GUVNOR_MAX_WAIT", "10min", "how long to try for the locks of a revision"),
    Option("confirm", "GUVNOR_CONFIRM", "", "hash of the plan that the production guard may let through"),
    Option(
        "allow_plaintext",
        "GUVNOR_ALLOW_PLAINTEXT",
        "no",
        "let a connection without TLS to another machine pass in production: yes or no",
    ),
    Option(
        "verify", "GUVNOR_VERIFY", "yes", "compare the schema with the expected one after an up: yes or no"
    ),
    Option(
        "backup", "GUVNOR_BACKUP", "yes", "back up what a rollback drops, in production always: yes or no"
    ),
    Option("backup.directory", "GUVNOR_BACKUP_DIR", "", "where the backup of a rollback goes", True),
    Option(
        "backup.recipients",
        "GUVNOR_BACKUP_RECIPIENTS",
        "",
        "age or SSH public keys to encrypt backups for, comma-separated",
        True,
    ),
    Option("shadow.dsn", "GUVNOR_SHADOW_DSN", "", "scratch database for building the expected schema", True),
    Option(
        "schema.ignore", "GUVNOR_SCHEMA_IGNORE", "", "objects of others: glob patterns, comma-separated", True
    ),
    Option(
        "schema.grantees", "GUVNOR_SCHEMA_GRANTEES", "", "roles that may hold privileges: glob patterns", True
    ),
)


def quoted(value: str) -> str:
    """Return a value as a message may quote it: what looks like a connection string is not shown."""
    return MASK if re.search(r"://|:/.*@|password", value, re.IGNORECASE) else repr(value)


_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """Read a duration.

    :param text: a number with a unit of ms, s, min or h; seconds without one.
    :returns: the duration in seconds.
    :raises ValueError: when it is not a duration.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h)?\s*", text)
    if match is None:
        raise ValueError(f"{quoted(text)} is not a duration such as 500ms, 30s, 5min or 1h")
    return float(match[1]) * _UNITS[match[2] or "s"]


@dataclass(frozen=True)
class Settings:
    """The resolved settings of a run.

    :ivar dsn: libpq's connection string, as the user wrote it; empty with the local server.
    :ivar role: the role that sessions act as; empty for the role that logs in.
    :ivar lock_wait: seconds to wait for the run lock.
    :ivar max_wait: seconds to try for the locks of a revision.
    :ivar allow_plaintext: whether a connection without TLS may leave this machine in production.
    :ivar verify: whether the schema is compared with the expected one after an up.
    :ivar backup: whether what a rollback drops is backed up first.
    :ivar backup_directory: where that backup goes; None when nothing says so.
    :ivar backup_recipients: public keys to encrypt backups for.
    :ivar shadow_dsn: of a scratch database, where the expected schema is built; empty: in the database.
    :ivar ignore: glob patterns of objects that belong to others.
    :ivar grantees: glob patterns of roles that may hold privileges beyond the owner's.
    :ivar origins: for each option's name, where its value came from.
    :ivar values: for each option's name, its text.
    """

    storage_type: str
    dsn: str = field(repr=False)
    role: str
    environment: str
    log_level: str
    log_format: str
    lock_wait: float
    max_wait: float
    confirm: str
    allow_plaintext: bool
    verify: bool
    backup: bool
    backup_directory: Path | None
    backup_recipients: tuple[str, ...]
    shadow_dsn: str = field(repr=False)
    ignore: tuple[str, ...]
    grantees: tuple[str, ...]
    values: Mapping[str, str] = field(repr=False)
    origins: Mapping[str, str] = field(repr=False)

    @property
    def production(self) -> bool:
        """Whether the configuration calls this production."""
        return self.environment in (PRODUCTION, "prod")

    @property
    def production_environment(self) -> str | None:
        """The environment where the configuration calls it production, else None."""
        return self.environment if self.production else None


def load(
    flags: Mapping[str, str | None] | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """Resolve all settings.

    :param flags: values of command-line flags by option name; None means not given.
    :param environment: the environment variables; those of this process when left out.
    :param directory: the directory whose ``.env`` is read; the current one when left out.
    :raises ConfigurationError: when a value cannot be used (exit code 2).
    """
    environment = os.environ if environment is None else environment
    try:
        dotenv_path = (directory or Path.cwd()) / ".env"
    except OSError:
        raise ConfigurationError(
            "The current directory is not there any more, or cannot be read.", next_step="cd"
        ) from None
    dotenv = _read_dotenv(dotenv_path)
    values: dict[str, str] = {}
    origins: dict[str, str] = {}

    def resolve(option: Option, file: Mapping[str, str], file_name: str) -> None:
        candidates = (
            ((flags or {}).get(option.name), f"flag --{option.name.replace('.', '-').replace('_', '-')}"),
            (environment.get(option.variable), f"environment {option.variable}"),
            (dotenv.get(option.variable), f"{dotenv_path.name} {option.variable}"),
            (file.get(option.name), f"file {file_name}"),
            (option.default, "default"),
        )
        for value, origin in candidates:
            if value or origin == "default":
                values[option.name], origins[option.name] = value or "", origin
                return

    resolve(OPTIONS[0], {}, "")
    file_name = values["config"]
    file = _read_file(Path(file_name)) if file_name else {}
    for option in OPTIONS[1:]:
        resolve(option, file, file_name)
    return _checked(values, origins)


def _checked(values: dict[str, str], origins: dict[str, str]) -> Settings:
    def choice(name: str, allowed: tuple[str, ...], what: str) -> str:
        value = values[name].strip().lower()
        if value not in allowed:
            raise ConfigurationError(
                f"{what}: {quoted(values[name])} (from {origins[name]}); known are "
                f"{', '.join(a for a in allowed if a)}."
            )
        return value

    def duration(name: str) -> float:
        try:
            return seconds(values[name])
        except ValueError as error:
            raise ConfigurationError(f"{name} (from {origins[name]}): {error}.") from None

    environment = values["environment"].strip().lower()
    if environment != PRODUCTION and _likeness(environment, PRODUCTION) >= _MISSPELT:
        raise ConfigurationError(
            f"environment: {quoted(values['environment'])} (from {origins['environment']}) is nearly "
            f"{PRODUCTION}, and would not be guarded like it.",
            next_step=f"export GUVNOR_ENV={PRODUCTION}",
        )
    values["log.level"] = {"warn": "warning"}.get(values["log.level"].strip().lower(), values["log.level"])
    return Settings(
        storage_type=choice("storage.type", STORAGE_TYPES, "unsupported database type"),
        dsn=values["storage.dsn"].strip(),  # a mounted secret ends in a line break
        role=values["storage.role"].strip(),
        environment=environment,
        log_level=choice("log.level", LOG_LEVELS, "unknown log level"),
        log_format=choice("log.format", (*LOG_FORMATS, ""), "unknown log format"),
        lock_wait=duration("lock_wait"),
        max_wait=duration("max_wait"),
        confirm=values["confirm"],
        allow_plaintext=choice("allow_plaintext", ("yes", "no"), "allow_plaintext is yes or no") == "yes",
        verify=choice("verify", ("yes", "no"), "verify is yes or no") == "yes",
        backup=choice("backup", ("yes", "no"), "backup is yes or no") == "yes",
        backup_directory=Path(values["backup.directory"]) if values["backup.directory"] else None,
        backup_recipients=_list(values["backup.recipients"]),
        shadow_dsn=values["shadow.dsn"],
        ignore=_list(values["schema.ignore"]),
        grantees=_list(values["schema.grantees"]),
        values=values,
        origins=origins,
    )


def _likeness(name: str, other: str) -> float:
    if abs(len(name) - len(other)) > 2:
        return 0
    import difflib

    return difflib.SequenceMatcher(None, name, other).ratio()


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _read_dotenv(path: Path) -> dict[str, str]:
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The file {path} cannot be read: {_reason(error)}.") from None
    from dotenv import dotenv_values

    values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value for name, value in values.items() if value}


def _read_file(path: Path) -> dict[str, str]:
    """Read our options from the application's YAML file; its other sections are the application's."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The configuration file {quoted(str(path))} cannot be read: {_reason(error)}."
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # The parser's own text quotes the line, which may hold the password: name the place only.
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigurationError(f"The configuration file {path} is not YAML{place}.") from None
    values = {}
    for option in OPTIONS:
        if option.in_file:
            value = _lookup(content, option.name, path)
            if value is not None:
                values[option.name] = value
    return values


def _lookup(content: Any, name: str, path: Path) -> str | None:
    for depth, key in enumerate(name.split(".")):
        if content is None:
            return None
        if not isinstance(content, dict):
            what = ".".join(name.split(".")[:depth]) or "the top level"
            raise ConfigurationError(f"The configuration file {path}: {what} must be a section with keys.")
        content = content.get(key)
    if (
        name.startswith(("schema.", "backup.recipients"))
        and isinstance(content, list)
        and all(isinstance(item, str) for item in content)
    ):
        return ",".join(content)
    if content is not None and not isinstance(content, str):
        raise ConfigurationError(
            f"The configuration file {path}: {name} must be a text, not {type(content).__name__}."
        )
    return content


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or "unknown reason").lower() if isinstance(error, OSError) else "it is not UTF-8"
