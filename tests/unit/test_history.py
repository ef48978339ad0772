"""Are moments read as they are written, and is the job of each system recognized?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from guvnor.bookkeeping import history, invoker
from guvnor.errors import UsageError

SOMEWHERE = timezone(timedelta(hours=5))


NOW = datetime(2026, 3, 10, 12, 0, tzinfo=SOMEWHERE)


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
    assert history.parse_moment(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "25:00", "-1d", "99999999999d", "9" * 400])
def test_no_moments(text):
    with pytest.raises(UsageError, match="is not a point in time such as"):
        history.parse_moment(text, NOW)


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
