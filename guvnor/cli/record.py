"""What a command has done, as the JSON document that ``--json`` asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from guvnor import __version__, typed
from guvnor.errors import ExitCode, GuvnorError

if TYPE_CHECKING:
    from guvnor.migrate.preflight import PreflightCheck
    from guvnor.migrate.repair import Choice
    from guvnor.migrate.request import Outcome
    from guvnor.migrate.runner import Applied


@dataclass
class Record:
    """The parts of a command's result, as they come in.

    :ivar found: what this command alone has to say.
    """

    checks: list[PreflightCheck] = field(default_factory=list)
    outcome: Outcome | None = None
    found: dict[str, Any] = field(default_factory=dict)

    def choose(self, choices: Sequence[Choice], known: Sequence[str]) -> None:
        """Note the ways out of a dirty state, and what is known of it."""
        self.found["interrupted"] = [line.strip() for line in known]
        self.found["choices"] = [
            {
                "name": way.name,
                "command": typed.carried(f"guvnor migrate repair --{way.name}"),
                "meaning": way.meaning,
            }
            for way in choices
        ]

    def document(self, code: int, problem: GuvnorError | None) -> dict[str, Any]:
        """Return the document.

        :param code: the exit code.
        :param problem: the error that ended the command; None where there was none.
        """
        result: dict[str, Any] = {"tool": f"guvnor {__version__}", "exit_code": int(code)}
        if self.checks:
            result["checks"] = [
                {
                    "name": check.name,
                    "outcome": "failed" if check.error else "done",
                    "text": check.text,
                    "warnings": list(check.warnings),
                }
                for check in self.checks
            ]
        if self.outcome is not None:
            result |= _moved(self.outcome)
        return {**result, **self.found, "error": _error(problem)}


def _moved(outcome: Outcome) -> dict[str, Any]:
    return {
        "version": outcome.version,
        "newest": outcome.newest,
        "ahead": outcome.ahead,
        "applied": [as_fields(done) for done in outcome.applied],
        "backup": str(outcome.backup.path or outcome.backup.what) if outcome.backup else None,
        "marked": outcome.marked,
        "differences": None if outcome.drift is None else [each.title for each in outcome.drift.findings],
    }


def as_fields(done: Applied) -> dict[str, Any]:
    """Return what there is to say of a step that was run."""
    return {
        "revision": done.step.revision,
        "direction": done.step.direction,
        "description": done.step.description,
        "seconds": round(done.duration, 3),
        "lock_wait_seconds": round(done.lock_wait, 3),
        "tries": done.tries,
        "stalled_seconds": round(done.stalled, 3),
        "stalled_sessions": done.stalled_sessions,
    }


def _error(problem: GuvnorError | None) -> dict[str, Any] | None:
    if problem is None or problem.exit_code is ExitCode.DONE:
        return None
    return {"message": problem.message, "state": problem.state, "next": problem.next_step}
