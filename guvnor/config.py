"""Settings, and where each came from.

Precedence: command-line flag, environment, the nearest ``.env`` from the current directory up to the
project's, the file of ``--config`` (the application's own YAML file), defaults. ``guvnor`` and plain
``alembic`` resolve the same settings.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from guvnor import folder
from guvnor.errors import ConfigurationError

MASK = "***"
OLDEST_SERVER = 14  # the oldest major version of PostgreSQL that is supported
PRODUCTION = "production"
_MISSPELT = 0.88  # similarity (difflib) from which a name counts as a misspelling
_MAX_STALL_IN_PRODUCTION = "500ms"
_SHORTEST_STALL = 0.05  # seconds; a watch that looks every 10 ms cannot keep a shorter limit
_UNITS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def presentable(value: str) -> str:
    """Return a value fit for a message: it is masked when it looks like a connection string."""
    return MASK if re.search(r"://|:/.*@|password", value, re.IGNORECASE) else repr(value)


def seconds(text: str) -> float:
    """Read a duration.

    :param text: a number with a unit of ms, s, min, h or d; seconds without one.
    :returns: the duration in seconds.
    :raises ValueError: when it is not a duration.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)?\s*", text)
    if match is None or (match[2] or "s") not in _UNITS:
        raise ValueError(f"{presentable(text)} is not a duration such as 500ms, 30s, 5min or 1h")
    return float(match[1]) * _UNITS[match[2] or "s"]


def stall(text: str) -> float:
    """Read how long a revision may make the application wait.

    :returns: the duration in seconds.
    :raises ValueError: when it is not a duration, or a shorter one than the tool can keep.
    """
    found = seconds(text)
    if found < _SHORTEST_STALL:
        raise ValueError(f"{presentable(text)} is too short: 50ms is the shortest that can be kept")
    return found


def _max_stall(text: str) -> float | None:
    return None if text.strip().lower() == "off" else stall(text)


def _choice(unknown: str, allowed: tuple[str, ...], text: str) -> str:
    value = text.strip().lower()
    if value not in allowed:
        raise ValueError(f"{unknown}: {presentable(text)}; use one of {', '.join(filter(None, allowed))}")
    return value


_storage_type = partial(_choice, "unsupported database type", ("postgres", "embedded"))
_log_format = partial(_choice, "unknown log format", ("text", "json", ""))


def _log_level(text: str) -> str:
    level = _choice("unknown log level", ("debug", "info", "warning", "warn", "error"), text)
    return "warning" if level == "warn" else level


def _yes(text: str) -> bool:
    return _choice("neither yes nor no", ("yes", "no"), text) == "yes"


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _is_production(environment: str) -> bool:
    return environment in (PRODUCTION, "prod")


def _environment(text: str) -> str:
    name = text.strip().lower()
    if name != PRODUCTION and abs(len(name) - len(PRODUCTION)) <= 2:
        import difflib

        if difflib.SequenceMatcher(None, name, PRODUCTION).ratio() >= _MISSPELT:
            raise ValueError(f"{presentable(text)} looks like a misspelling of {PRODUCTION}")
    return name


@dataclass(frozen=True)
class Option:
    """One setting.

    :ivar name: the name that users know; the field of :class:`Settings` has underscores instead of dots.
    :ivar read: parses the text of a value.
    :ivar meaning: a short explanation for users.
    :ivar in_file: whether the file of ``--config`` may set it.
    :ivar default_in_production: another default for production, where it has one.
    """

    name: str
    default: str
    read: Callable[[str], Any]
    meaning: str
    in_file: bool = False
    default_in_production: str | None = None

    @property
    def field(self) -> str:
        """The field of :class:`Settings` that holds the value."""
        return self.name.replace(".", "_")

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return _SHORT_VARIABLES.get(self.name, f"GUVNOR_{self.field.upper()}")


_SHORT_VARIABLES = {"environment": "GUVNOR_ENV", "backup.directory": "GUVNOR_BACKUP_DIR"}

OPTIONS = (
    Option("config", "", str, "the application's YAML file, which sets some of these"),
    Option("storage.type", "postgres", _storage_type, "postgres, or embedded: the local server", True),
    Option("storage.dsn", "", str.strip, "libpq's connection string: URL or keywords", True),
    Option("storage.role", "", str.strip, "role to act as (SET ROLE): the objects' owner", True),
    Option("environment", "development", _environment, "production asks before data can be lost"),
    Option("log.level", "info", _log_level, "debug, info, warning or error"),
    Option("log.format", "", _log_format, "text or json; by default text on a terminal"),
    Option("lock_wait", "5min", seconds, "how long to wait for another migration to end"),
    Option("max_wait", "10min", seconds, "how long to keep trying for a revision's locks"),
    Option(
        "max_stall",
        "2s",
        _max_stall,
        "how long a revision may make the application wait, or off",
        default_in_production=_MAX_STALL_IN_PRODUCTION,
    ),
    Option("confirm", "", str, "hash of the plan that the production guard may let through"),
    Option("accept_edited", "", _list, "applied revisions whose files may have been changed since"),
    Option(
        "allow_plaintext",
        "no",
        _yes,
        "in production, allow a connection to another machine without TLS: yes or no",
    ),
    Option("verify", "yes", _yes, "after an up, compare the schema with the expected one: yes or no"),
    Option("backup", "yes", _yes, "back up what a rollback drops: yes or no"),
    Option("backup.directory", "", _path, "directory for the backup of a rollback", True),
    Option(
        "backup.recipients",
        "",
        _list,
        "age or SSH public keys to encrypt backups for, comma-separated",
        True,
    ),
    Option("backup.identity", "", _path, "file of the private key that decrypts a backup", True),
    Option("shadow.dsn", "", str, "scratch database for building the expected schema", True),
    Option("schema.ignore", "", _list, "objects that belong to others: glob patterns", True),
    Option("session.keep", "", _list, "settings that revisions find as the server has them: names", True),
    Option("replicas.ignore", "", _list, "replicas that no backfill waits for: glob patterns", True),
    Option("schema.grantees", "", _list, "roles that may hold privileges: glob patterns", True),
)


@dataclass(frozen=True)
class Settings:
    """The resolved settings of a run: a field for each option; durations are in seconds.

    :ivar max_stall: None for no limit.
    :ivar values: the text of each value, by option name.
    :ivar origins: where each value came from, by option name.
    """

    config: str
    storage_type: str
    storage_dsn: str = field(repr=False)
    storage_role: str
    environment: str
    log_level: str
    log_format: str
    lock_wait: float
    max_wait: float
    max_stall: float | None
    confirm: str
    accept_edited: tuple[str, ...]
    allow_plaintext: bool
    verify: bool
    backup: bool
    backup_directory: Path | None
    backup_recipients: tuple[str, ...]
    backup_identity: Path | None
    shadow_dsn: str = field(repr=False)
    schema_ignore: tuple[str, ...]
    session_keep: tuple[str, ...]
    replicas_ignore: tuple[str, ...]
    schema_grantees: tuple[str, ...]
    values: Mapping[str, str] = field(repr=False)
    origins: Mapping[str, str] = field(repr=False)

    @property
    def production(self) -> bool:
        """Whether the configuration calls this production."""
        return _is_production(self.environment)

    def max_stall_in_force(self, *, production: bool) -> float | None:
        """Return how many seconds a revision may make the application wait; None for no limit.

        :param production: whether the database is production, by the configuration or by its mark.
        """
        if production and self.origins["max_stall"] == "default":
            return stall(_MAX_STALL_IN_PRODUCTION)
        return self.max_stall

    @property
    def production_environment(self) -> str | None:
        """The name of the environment if the configuration calls it production, else None."""
        return self.environment if self.production else None


def load(
    flags: Mapping[str, str | None] | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """Resolve all settings.

    :param flags: values of command-line flags by option name; None means not given.
    :param environment: the environment variables; those of this process when left out.
    :param directory: where ``.env`` is looked for, see :func:`guvnor.folder.of_project`; the current
        directory when left out.
    :raises ConfigurationError: when a value cannot be used (exit code 2).
    """
    flags = flags or {}
    environment = os.environ if environment is None else environment
    try:
        dotenv_path = folder.of_project(".env", directory)
    except OSError:
        raise ConfigurationError(
            "The current directory no longer exists, or cannot be read.", next_step="cd"
        ) from None
    dotenv = _read_dotenv(dotenv_path)
    file: Mapping[str, str | None] = {}
    texts: dict[str, str] = {}
    origins: dict[str, str] = {}
    values: dict[str, Any] = {}
    for option in OPTIONS:
        name = option.name
        candidates = (
            (flags.get(name), f"flag --{name.replace('.', '-').replace('_', '-')}"),
            (environment.get(option.variable), f"environment {option.variable}"),
            (dotenv.get(option.variable), f".env {option.variable}"),
            (file.get(name), f"file {texts.get('config')}"),
        )
        given = (candidate for candidate in candidates if candidate[0])
        default = option.default
        if option.default_in_production and _is_production(values["environment"]):
            default = option.default_in_production
        text, origin = next(given, (default, "default"))
        try:
            values[option.field] = option.read(text or "")
        except ValueError as error:
            raise ConfigurationError(
                f"{name} (from {origin}): {error}.",
                next_step=f"export GUVNOR_ENV={PRODUCTION}" if name == "environment" else None,
            ) from None
        texts[name], origins[name] = text or "", origin
        if name == "config" and text:  # the first option names the file that may set the others
            file = _read_file(Path(text))
    return Settings(**values, values=texts, origins=origins)


def said(name: str, flags: Mapping[str, str | None] | None = None) -> str:
    """Return the text of a setting that no file sets, whatever is wrong with the others.

    It is for what has to be known before all settings are: how an error in them is shown.

    :param name: the name of the setting.
    :param flags: values of command-line flags by option name.
    """
    option = next(option for option in OPTIONS if option.name == name)
    dotenv: dict[str, str | None] = {}
    with contextlib.suppress(OSError, ConfigurationError):
        dotenv = _read_dotenv(folder.of_project(".env"))
    given = ((flags or {}).get(name), os.environ.get(option.variable), dotenv.get(option.variable))
    return next(filter(None, given), option.default).strip().lower()


def says_production(flags: Mapping[str, str | None] | None = None) -> bool:
    """Tell whether the configuration calls this production, or misspells it."""
    try:
        return _is_production(_environment(said("environment", flags)))
    except ValueError:
        return True


def _read_dotenv(path: Path) -> dict[str, str | None]:
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The file {path} cannot be read: {_reason(error)}.") from None
    from dotenv import dotenv_values

    return dotenv_values(stream=io.StringIO(text), interpolate=False)


def _read_file(path: Path) -> dict[str, str | None]:
    """Read our options from the application's YAML file; its other sections are the application's."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The configuration file {presentable(str(path))} cannot be read: {_reason(error)}."
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # The parser's own text quotes the line, which may hold the password: name the place only.
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigurationError(f"The configuration file {path} is not valid YAML{place}.") from None
    return {option.name: _lookup(content, option, path) for option in OPTIONS if option.in_file}


def _lookup(content: Any, option: Option, path: Path) -> str | None:
    name = option.name
    for depth, key in enumerate(name.split(".")):
        if content is None:
            return None
        if not isinstance(content, dict):
            what = ".".join(name.split(".")[:depth]) or "the top level"
            raise ConfigurationError(f"The configuration file {path}: {what} must be a section with keys.")
        content = content.get(key)
    if option.read is _list and isinstance(content, list) and all(isinstance(item, str) for item in content):
        return ",".join(content)
    if content is not None and not isinstance(content, str):
        raise ConfigurationError(
            f"The configuration file {path}: {name} must be text, not {type(content).__name__}."
        )
    return content


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror or "unknown reason").lower() if isinstance(error, OSError) else "it is not UTF-8"
