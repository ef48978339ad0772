"""Is the workflow of pull requests one that GitHub takes, and does it give away no more than it must?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from guvnor.reports.review import MARKER

CHECKOUT = Path(__file__).parent.parent
PATH = CHECKOUT / ".github" / "workflows" / "migrations.yml"


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return yaml.load(PATH.read_text(), yaml.BaseLoader)  # "on" stays a word


def steps(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") + step.get("uses", "") for step in job["steps"])


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not installed")
@pytest.mark.parametrize("path", [PATH, CHECKOUT / "deploy" / "github" / "migrate.yml"], ids=lambda p: p.name)
def test_actionlint_finds_nothing(path: Path) -> None:
    done = subprocess.run(["actionlint", "-no-color", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_runs_for_pull_requests_that_touch_the_schema(workflow: dict[str, Any]) -> None:
    on = workflow["on"]
    assert "pull_request_target" not in on  # it would run a fork's code with the right to write
    assert {"alembic/**", "alembic.ini", "guvnor/**"} <= set(on["pull_request"]["paths"])
    report = workflow["jobs"]["report"]
    assert report["steps"][0]["with"]["fetch-depth"] == "0"
    assert "scripts/check_drift --output report.md" in steps(report)
    # Without pipefail, the exit code would be that of tee.
    assert [step["shell"] for step in report["steps"] if "| tee" in step.get("run", "")] == ["bash"]
    assert "GITHUB_STEP_SUMMARY" in steps(report)


def test_the_script_is_the_command() -> None:
    script = CHECKOUT / "scripts" / "check_drift"
    assert os.access(script, os.X_OK)
    assert script.read_text().endswith('exec guvnor schema review "$@"\n')


def test_only_the_job_that_runs_nothing_of_the_pull_request_may_write(workflow: dict[str, Any]) -> None:
    assert workflow["permissions"] == {"contents": "read"}
    writing = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    assert writing == {"comment": {"pull-requests": "write"}}
    comment = workflow["jobs"]["comment"]
    assert "checkout" not in steps(comment)
    assert not any("run" in step for step in comment["steps"])
    assert comment["needs"] == "report"
    assert "head.repo.full_name == github.repository" in comment["if"]


def test_one_comment_is_kept_up_to_date(workflow: dict[str, Any]) -> None:
    (script,) = [
        step["with"]["script"] for step in workflow["jobs"]["comment"]["steps"] if "script" in step["with"]
    ]
    assert MARKER in script
    assert "updateComment" in script
    assert "createComment" in script
    assert "${{" not in script


def test_without_a_report_the_comment_says_so(workflow: dict[str, Any]) -> None:
    script = workflow["jobs"]["comment"]["steps"][1]["with"]["script"]
    assert "there is no report" in script
    assert "return;" not in script, "an old comment would stay"


def test_nothing_from_outside_is_written_into_a_command(workflow: dict[str, Any]) -> None:
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", "")


def test_every_action_is_pinned_to_a_major_version(workflow: dict[str, Any]) -> None:
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)


def test_the_tests_run_on_every_supported_server(workflow: dict[str, Any]) -> None:
    job = workflow["jobs"]["tests"]
    assert job["strategy"] == {"fail-fast": "false", "matrix": {"postgres": ["14", "15", "16", "17", "18"]}}
    server = job["services"]["postgres"]
    assert server["image"] == "postgres:${{ matrix.postgres }}"
    assert "pg_isready" in server["options"]
    password = server["env"]["POSTGRES_PASSWORD"]
    assert job["env"]["GUVNOR_TEST_DSN"] == f"postgresql://postgres:{password}@localhost:5432/postgres"
    assert "scripts/test" in steps(job)
