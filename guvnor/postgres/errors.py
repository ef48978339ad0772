"""Why a connection failed, in plain words and with what to type next.

psycopg2 gives neither SQLSTATE nor diagnostics for a failed connect, so this is the one place that matches
libpq's text. What is not recognized is shown as libpq says it, with the password masked.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from guvnor.config import MASK
from guvnor.errors import PreflightError
from guvnor.postgres import password_file
from guvnor.postgres.quoting import identifier


class ConnectionFailedError(PreflightError):
    """database connection failed"""

    state = "Nothing was changed."
    may_pass = False  # whether trying again later can help


_READY = "pg_isready -h {host} -p {port}"


@dataclass(frozen=True)
class Reason:
    """A reason for a failure; message and next step have placeholders such as {host} and {role}.

    :ivar pattern: matches libpq's text.
    :ivar may_pass: whether trying again later can help.
    """

    pattern: str
    message: str
    next_step: str = _READY
    may_pass: bool = False


# The first match counts. libpq tries several addresses, with and without TLS, and reports each attempt. A
# server's answer says more than the silence of another address, and a wrong password says more than a second
# attempt without TLS.
REASONS = (
    Reason(
        r"starting up|not (yet )?accepting connections|shutting down|is in recovery mode",
        "the server at {host}, port {port}, is starting up or shutting down",
        _READY + "\nguvnor migrate preflight --wait-for-server 60",
        may_pass=True,
    ),
    Reason(
        r"(password|SASL) authentication failed|no password supplied|authentication failed",
        "password authentication failed for role {role}: the password is wrong or missing",
        "guvnor config show   # which connection string is used, and where it comes from",
    ),
    Reason(
        r'database "[^"]*" does not exist',
        "the database {database} does not exist on {host}, port {port}",
        "createdb -h {host} -p {port} {database}",
    ),
    Reason(
        r'role "[^"]*" does not exist',
        "the role {role} does not exist on {host}, port {port}",
        "psql -h {host} -p {port} -c 'CREATE ROLE {quoted_role} LOGIN'",
    ),
    Reason(
        r"is not permitted to log in",
        "the role {role} may not log in: it only owns objects, and others act as it",
        "export GUVNOR_STORAGE_ROLE={role}   # acts as it\n"
        "Then log in as the role that migrates: guvnor_migrator, if `guvnor migrate roles` made them.",
    ),
    Reason(
        r"permission denied for database",
        "the role {role} may not connect to database {database}",
        "GRANT CONNECT ON DATABASE {quoted_database} TO {quoted_role};",
    ),
    Reason(
        r"too many (clients|connections)|remaining connection slots",
        "the server at {host} has no connection left",
        "SELECT count(*), usename, application_name FROM pg_stat_activity GROUP BY 2, 3;",
        may_pass=True,
    ),
    Reason(
        # A server that refuses the role with encryption, too, or on a Unix socket, has no entry for it.
        r"\A(?!.*(, SSL encryption|host .\[local\])).*(no encryption|SSL off)"
        r"|requires? (SSL|TLS|encryption)|SSL \w+ is required",
        "the server at {host} accepts this role only over TLS",
        "Add sslmode=require, or better sslmode=verify-full with sslrootcert, to the connection string.",
    ),
    Reason(
        r"no pg_hba.conf entry|pg_hba.conf rejects",
        "the server at {host} does not let role {role} in from this address (pg_hba.conf)",
        "Ask for an entry in the server's pg_hba.conf for this client, role and database.",
    ),
    Reason(
        r"server does not support SSL",
        "the connection string asks for TLS, which the server at {host} does not offer",
        "Set sslmode=prefer for a local server, or turn TLS on in the server (ssl = on).",
    ),
    Reason(
        r"certificate|SSL error",
        "TLS with the server at {host} failed: its certificate was not accepted",
        "Check sslrootcert and that the host in the connection string is the one in the certificate.",
    ),
    Reason(
        r"definition of service|service file",
        "libpq does not find the service that the connection string names",
        "guvnor config show   # which service it names\n"
        "cat ~/.pg_service.conf   # the services there are; PGSERVICEFILE names another file",
    ),
    Reason(
        r"timeout expired|timed out",
        "no answer from {host}, port {port}, in time: wrong address, or a firewall drops the packets",
        may_pass=True,
    ),
    Reason(
        r"could not translate host name|Name or service not known|nodename nor servname",
        "the host name {host} is not known",
        "guvnor config show   # check the host in the connection string, then the network's DNS",
        may_pass=True,
    ),
    Reason(
        r"Connection refused|No such file or directory|could not connect to server",
        "the server at {host}, port {port}, refused the connection: it is not running, or listens elsewhere",
        may_pass=True,
    ),
    Reason(
        r"server closed the connection|Connection reset|SSL SYSCALL|terminating connection",
        "the server at {host}, port {port}, closed the connection while it was being made",
        may_pass=True,
    ),
)


def place(fields: dict[str, str]) -> dict[str, str]:
    """Return where a connection string leads: host, port, role and database.

    :param fields: the fields of the connection string.
    """
    role = fields.get("user") or os.environ.get("PGUSER") or "USER"
    return {
        "host": fields.get("host") or os.environ.get("PGHOST") or "localhost",
        "port": fields.get("port") or os.environ.get("PGPORT") or "5432",
        "role": role,
        "database": fields.get("dbname") or os.environ.get("PGDATABASE") or role,
    }


def connection_failed(text: str, fields: dict[str, str]) -> ConnectionFailedError:
    """Turn libpq's text into an error with a next step.

    :param text: libpq's message.
    :param fields: the fields of the connection string.
    """
    names = place(fields)
    names |= {f"quoted_{name}": identifier(names[name]) for name in ("role", "database")}
    for reason in REASONS:
        if re.search(reason.pattern, text, re.IGNORECASE | re.DOTALL):
            message, next_step = reason.message.format(**names), reason.next_step.format(**names)
            entry = ":".join(names[name] for name in ("host", "port", "database", "role"))
            if "no password supplied" in text and (found := password_file.why_unused(fields, entry)):
                why, next_step = found
                message = f"no password was found for role {names['role']}: {why}"
            error = ConnectionFailedError(f"database connection failed: {message}.", next_step=next_step)
            error.may_pass = reason.may_pass
            return error
    shown = " ".join(text.split())
    if secret := fields.get("password") or os.environ.get("PGPASSWORD"):
        shown = shown.replace(secret, MASK)
    return ConnectionFailedError(f"database connection failed: {shown}", next_step=_READY.format(**names))
