"""Is the workflow of pull requests one that GitHub takes, does it comment as it should, and give away no more
than it must?
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg2.extensions import parse_dsn

from guvnor.migrate.preflight import OLDEST_SERVER
from guvnor.reports.review import MARKER
from tests.support.command import CHECKOUT

PATH = CHECKOUT / ".github" / "workflows" / "migrations.yml"

# Runs a script of actions/github-script on a pull request with these comments, and prints what it calls.
NODE = """
const [script, comments] = process.argv.slice(1).map((text, at) => at ? JSON.parse(text) : text);
const called = [];
const call = (name) => async (values) => { called.push([name, values]); };
const issues = {
  listComments: 'comments', createComment: call('createComment'), updateComment: call('updateComment')
};
const github = { rest: { issues }, paginate: async () => comments };
const context = {
  repo: { owner: 'o', repo: 'r' }, issue: { number: 7 }, serverUrl: 'https://github.example', runId: 5
};
const core = { warning: call('warning') };
const run = Object.getPrototypeOf(async () => {}).constructor('github', 'context', 'core', 'require', script);
run(github, context, core, require).then(() => console.log(JSON.stringify(called)));
"""


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return yaml.load(PATH.read_text(), yaml.BaseLoader)  # "on" stays a word


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not installed")
@pytest.mark.parametrize("path", [PATH, CHECKOUT / "deploy" / "github" / "migrate.yml"], ids=lambda p: p.name)
def test_actionlint_finds_nothing(path: Path) -> None:
    done = subprocess.run(["actionlint", "-no-color", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# What it does


@pytest.mark.parametrize("code", [0, 3])
def test_the_report_s_exit_code_is_that_of_the_step(
    workflow: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Both where the report is shown as well: in the summary of the job, and in the file for the comment."""
    (step,) = [step for step in workflow["jobs"]["report"]["steps"] if "run" in step]
    (tmp_path / "scripts").mkdir()
    shutil.copy(CHECKOUT / "scripts" / "check_drift", tmp_path / "scripts")
    guvnor = tmp_path / "guvnor"
    guvnor.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@"\ntouch "$4"\nexit {code}\n')
    guvnor.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    (tmp_path / "step").write_text(step["run"])
    # As GitHub runs a step that names this shell, and one that names none.
    words = ["bash", "-eo", "pipefail"] if step.get("shell") == "bash" else ["bash", "-e"]
    done = subprocess.run([*words, "step"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "summary").read_text() == "schema\nreview\n--output\nreport.md\n"
    assert (tmp_path / "report.md").exists()


def commented(workflow: dict[str, Any], folder: Path, comments: list[dict[str, Any]]) -> list[Any]:
    """Run the script that comments, where the report is expected; return its calls."""
    (script,) = [s["with"]["script"] for s in workflow["jobs"]["comment"]["steps"] if "script" in s["with"]]
    done = subprocess.run(
        ["node", "-e", NODE, script, json.dumps(comments)],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    calls: list[Any] = json.loads(done.stdout)
    return calls


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
OTHERS = [
    {"id": 1, "user": {"type": "User"}, "body": f"{MARKER} quoted by a person"},
    {"id": 2, "user": {"type": "Bot"}, "body": "another bot's"},
]


@needs_node
def test_one_comment_is_kept_up_to_date(workflow: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text(f"{MARKER}\nnew")
    where = {"owner": "o", "repo": "r"}
    assert commented(workflow, tmp_path, OTHERS) == [
        ["createComment", {**where, "issue_number": 7, "body": f"{MARKER}\nnew"}]
    ]
    ours = {"id": 3, "user": {"type": "Bot"}, "body": f"{MARKER}\nold"}
    assert commented(workflow, tmp_path, [*OTHERS, ours]) == [
        ["updateComment", {**where, "comment_id": 3, "body": f"{MARKER}\nnew"}]
    ]


@needs_node
def test_without_a_report_the_comment_says_so(workflow: dict[str, Any], tmp_path: Path) -> None:
    """An old comment must not stay: it is about an earlier commit."""
    ours = {"id": 3, "user": {"type": "Bot"}, "body": f"{MARKER}\nold"}
    ((called, values),) = commented(workflow, tmp_path, [ours])
    assert (called, values["comment_id"]) == ("updateComment", 3)
    assert values["body"].startswith(MARKER)
    assert "there is no report" in values["body"]
    assert "https://github.example/o/r/actions/runs/5" in values["body"]


# What it fits


@pytest.mark.parametrize("name", ["alembic.ini", "alembic/versions/003_next.py", "guvnor/models.py"])
def test_it_runs_for_pull_requests_that_touch_the_schema(workflow: dict[str, Any], name: str) -> None:
    patterns = workflow["on"]["pull_request"]["paths"]
    assert any(fnmatch(name, pattern) for pattern in patterns)


def test_the_tests_run_on_every_supported_server(workflow: dict[str, Any]) -> None:
    job = workflow["jobs"]["tests"]
    versions = [int(version) for version in job["strategy"]["matrix"]["postgres"]]
    assert versions == list(range(OLDEST_SERVER, versions[-1] + 1))
    server = job["services"]["postgres"]
    named = parse_dsn(job["env"]["GUVNOR_TEST_DSN"])
    assert named["password"] == server["env"]["POSTGRES_PASSWORD"]
    assert f"{named['port']}:5432" in server["ports"]


# What it must never do, however it is changed


def test_code_of_a_pull_request_never_runs_with_the_right_to_write(workflow: dict[str, Any]) -> None:
    assert "pull_request_target" not in workflow["on"]
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        if "write" in job.get("permissions", {}).values():
            assert job["permissions"] == {"pull-requests": "write"}
            assert not any("run" in s or "checkout" in s["uses"] for s in job["steps"])
            assert "head.repo.full_name == github.repository" in job["if"]


def test_nothing_from_outside_is_written_into_a_command(workflow: dict[str, Any]) -> None:
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", "") + step.get("with", {}).get("script", "")


@pytest.mark.parametrize("path", [PATH, CHECKOUT / "deploy" / "github" / "migrate.yml"], ids=lambda p: p.name)
def test_every_action_is_pinned_to_a_commit_and_names_its_version(path: Path) -> None:
    """A tag can be moved to other code."""
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    assert [
        action
        for action in used
        if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
    ] == []


def test_what_a_required_check_needs_is_said_and_named_as_it_runs(workflow: dict[str, Any]) -> None:
    """A job that GitHub skips, or that does not exist, would be waited for for ever."""
    said = PATH.read_text().split("name: migrations\n")[0]
    assert {"report", "tests (N)", "paths"} <= set(re.findall(r'"([^"]*)"', said))
    assert {"report", "tests", "comment"} <= set(workflow["jobs"])
