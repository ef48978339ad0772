"""Does the history show every attempt and who made it, and is a file that was changed afterwards noticed?"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from guvnor.bookkeeping import history, invoker
from guvnor.errors import UsageError
from tests.expect import ends, succeeds

SOMEWHERE = timezone(timedelta(hours=5))
NOW = datetime(2026, 3, 10, 12, 0, tzinfo=SOMEWHERE)
CHANGED = "was changed after it was applied"


def entries(guvnor, database, *flags, **more):
    return json.loads(succeeds(guvnor("migrate", "history", "--json", *flags, database=database, **more)).out)


# What is shown


def test_every_attempt_and_how_it_ended(database, guvnor, project):
    here = {"database": database, "cwd": project.directory}
    succeeds(guvnor("migrate", "up", "--to", "1", **here))
    project.add_revision("SELECT 1 / (SELECT count(*) FROM incidents)", "SELECT 1")
    ends(guvnor("migrate", "up", **here), 1, "division by zero")
    succeeds(guvnor("migrate", "down", **here))

    found = entries(guvnor, database)
    assert [(e["direction"], e["revision"], e["outcome"]) for e in found] == [
        ("up", "001", "succeeded"),
        ("up", "002", "succeeded"),
        ("up", "003", "failed"),
        ("down", "002", "succeeded"),
    ]
    assert (found[2]["sqlstate"], found[2]["from_version"], found[2]["to_version"]) == ("22012", "002", "003")
    assert "division by zero" in found[2]["error"]
    for entry in found:
        assert entry["duration_ms"] >= entry["lock_wait_ms"] >= 0
        assert entry["tries"] == 1
        assert datetime.fromisoformat(entry["at"]).tzinfo is not None
    assert found[0]["size_change"] > 0
    assert found[2]["size_change"] is None

    assert [e["revision"] for e in entries(guvnor, database, "--failed")] == ["003"]
    table = succeeds(guvnor("migrate", "history", "--failed", database=database)).out
    assert "up 003" in table
    assert "division by zero" in table
    assert "up 001" not in table


def test_since(migrated, guvnor):
    migrated.execute(
        "UPDATE guvnor_migration_history SET at = at - interval '3 days' WHERE revision = '001' "
        "AND event = 'started'"
    )
    today = datetime.now().astimezone() - timedelta(hours=1)
    for since, revisions in (
        ("30min", ["002"]),
        ("2d", ["002"]),
        ("4d", ["001", "002"]),
        (today.isoformat(), ["002"]),
        ((today - timedelta(days=7)).date().isoformat(), ["001", "002"]),
        ((today + timedelta(days=2)).date().isoformat(), []),
    ):
        found = entries(guvnor, migrated, "--since", since)
        assert [entry["revision"] for entry in found] == revisions, since
    assert entries(guvnor, migrated, "--since", "4d", "--failed") == []
    ends(guvnor("migrate", "history", "--since", "yesterday", database=migrated), 2, "is no moment such as")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90", NOW - timedelta(seconds=90)),
        ("90min", NOW - timedelta(minutes=90)),
        ("1.5h", NOW - timedelta(hours=1.5)),
        (" 7d ", NOW - timedelta(days=7)),
        ("03:00", datetime(2026, 3, 10, 3, 0, tzinfo=SOMEWHERE)),
        ("2026-03-09T03:00:30+00:00", datetime(2026, 3, 9, 3, 0, 30, tzinfo=UTC)),
        ("2026-03-09 03:00Z", datetime(2026, 3, 9, 3, 0, tzinfo=UTC)),
        ("2026-03-09", datetime(2026, 3, 9).astimezone()),
        ("2026-03-09T03:00", datetime(2026, 3, 9, 3, 0).astimezone()),
    ],
)
def test_moments(text, moment):
    assert history.moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "25:00", "-1d", "99999999999d", "9" * 400])
def test_no_moments(text):
    with pytest.raises(UsageError, match="is no moment such as"):
        history.moment(text, NOW)


def test_a_run_at_work_is_not_called_killed(at_version_1, guvnor):
    """Its attempt has no end yet, like a killed one's; the run lock tells them apart."""
    blocker = at_version_1.connect()
    blocker.autocommit = False
    blocker.cursor().execute("LOCK TABLE incidents IN ACCESS SHARE MODE")
    process = guvnor.start("migrate", "up", database=at_version_1)
    looks = (entries(guvnor, at_version_1)[-1] for _ in range(100))
    running = next(entry for entry in looks if entry["revision"] == "002")
    assert running["outcome"] == "running"
    assert entries(guvnor, at_version_1, "--failed") == []
    assert "running" in guvnor("migrate", "history", database=at_version_1).out
    process.kill()
    process.communicate()
    blocker.rollback()
    looks = (entries(guvnor, at_version_1, "--failed") for _ in range(100))
    assert next(found for found in looks if found)[0]["outcome"] == "killed"


# A changed file


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("tool", ["guvnor", "alembic"])
def test_a_file_that_was_changed_after_it_was_applied(tool, database, project, request):
    command = request.getfixturevalue(tool)
    here = {"database": database, "cwd": project.directory}
    up = ["migrate", "up"] if tool == "guvnor" else ["upgrade", "head"]
    path = project.add_revision("CREATE TABLE notes (id int)", "DROP TABLE IF EXISTS notes", name="notes")
    succeeds(command(*up, **here))
    assert CHANGED not in succeeds(command(*up, **here)).out

    rewrite(path, "(id int)", "(id bigint)")
    result = succeeds(command(*up, **here))
    assert f"WARNING: the file of revision 003 {CHANGED} (" in result.out
    ((role, when),) = database.execute(
        "SELECT database_role, to_char(at, 'YYYY-MM-DD HH24:MI:SS') FROM guvnor_migration_history "
        "WHERE revision = '003' AND event = 'succeeded'"
    )
    assert role in result.out
    assert when in result.out
    assert result.out.count(CHANGED) == 1

    down = ["migrate", "down"] if tool == "guvnor" else ["downgrade", "-1"]
    succeeds(command(*down, **here))
    assert CHANGED not in succeeds(command(*up, **here)).out  # it was rolled back: what is applied is the new


def test_comments_and_white_space_do_not_count(database, guvnor, project):
    here = {"database": database, "cwd": project.directory}
    path = project.add_revision("CREATE TABLE notes (id int, t text DEFAULT 'a  b')", "DROP TABLE notes")
    succeeds(guvnor("migrate", "up", **here))

    def preflight():
        return succeeds(guvnor("migrate", "preflight", **here)).out

    rewrite(path, "CREATE TABLE notes (", "\\n  -- what people write\\r\\n CREATE /* a */ TABLE   notes\\n(")
    rewrite(path, "def upgrade", "# a comment\n\n\ndef upgrade")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert CHANGED not in preflight()
    # White space in quotes counts, as it does for the server.
    path.write_bytes(path.read_bytes().replace(b"a  b", b"a b"))
    assert f"the file of revision 003 {CHANGED}" in preflight()
    status = succeeds(guvnor("migrate", "status", **here))
    assert CHANGED not in status.out + status.err  # it does not load the files


def test_a_changed_online_operation_is_noticed(database, guvnor, project):
    here = {"database": database, "cwd": project.directory}
    succeeds(guvnor("migrate", "up", **here))
    path = project.versions / "002_add_schedules.py"
    rewrite(path, "WHERE escalation_policy_id IS NOT NULL", "WHERE escalation_policy_id IS NULL")
    result = succeeds(guvnor("migrate", "preflight", **here), f"the file of revision 002 {CHANGED}")
    assert "revision 001" not in result.out


# Who runs it

SHA = "0123abc"


@pytest.mark.parametrize(
    ("environment", "job"),
    [
        (
            {
                "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "o/r", "GITHUB_RUN_ID": "5",
                "GITHUB_JOB": "deploy", "GITHUB_SHA": SHA,
                "INVOCATION_ID": "of the runner", "KUBERNETES_SERVICE_HOST": "10.0.0.1",
            },
            f"github: o/r 5 deploy {SHA}",
        ),
        (
            {"GITLAB_CI": "true", "CI_PROJECT_PATH": "g/p", "CI_JOB_ID": "7", "CI_COMMIT_SHA": SHA},
            f"gitlab: g/p 7 {SHA}",
        ),
        (
            {"JENKINS_URL": "http://j", "BUILD_TAG": "jenkins-x-1", "GIT_COMMIT": SHA},
            f"jenkins: jenkins-x-1 {SHA}",
        ),
        (
            {"CIRCLECI": "true", "CIRCLE_PROJECT_REPONAME": "r", "CIRCLE_BUILD_NUM": "9", "CIRCLE_SHA1": SHA},
            f"circleci: r 9 {SHA}",
        ),
        (
            {
                "BUILDKITE": "true", "BUILDKITE_PIPELINE_SLUG": "p", "BUILDKITE_BUILD_NUMBER": "3",
                "BUILDKITE_JOB_ID": "j", "BUILDKITE_COMMIT": SHA,
            },
            f"buildkite: p 3 j {SHA}",
        ),
        (
            {
                "TF_BUILD": "True", "SYSTEM_TEAMPROJECT": "t", "BUILD_DEFINITIONNAME": "d",
                "BUILD_BUILDID": "4", "BUILD_SOURCEVERSION": SHA,
            },
            f"azure: t d 4 {SHA}",
        ),
        (
            {"BITBUCKET_BUILD_NUMBER": "6", "BITBUCKET_REPO_FULL_NAME": "w/r", "BITBUCKET_COMMIT": SHA},
            f"bitbucket: w/r 6 {SHA}",
        ),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "ARGO_NODE_ID": "deploy-1", "HOSTNAME": "deploy-1-pod"},
            "argo: deploy-1 deploy-1-pod",
        ),
        (
            {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAMESPACE": "n", "POD_NAME": "p", "HOSTNAME": "h"},
            "kubernetes: n p",
        ),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "guvnor-x2"}, "kubernetes: guvnor-x2"),
        ({"INVOCATION_ID": "f00"}, "systemd: f00"),
        ({"HOSTNAME": "laptop", "GIT_COMMIT": SHA}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_job_of_each_system(environment, job, monkeypatch):
    for _, marker, names in invoker.JOBS:
        for name in (marker, *names):
            monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert invoker.job() == job


def test_the_job_is_in_the_history(database, guvnor):
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "guvnor-migrate-x2", "GITHUB_ACTIONS": None}
    succeeds(guvnor("migrate", "up", database=database, env=pod))
    found = entries(guvnor, database)
    assert {entry["job"] for entry in found} == {"kubernetes: guvnor-migrate-x2"}
    assert {entry["note"] for entry in found} == {None}
    assert "kubernetes: guvnor-migrate-x2" in guvnor("migrate", "history", database=database).out
