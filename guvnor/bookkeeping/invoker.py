"""Who runs a migration: the user, the machine, and the job of a CI system, a pod or a service of systemd."""

from __future__ import annotations

import getpass
import os
import socket
from functools import cache

# For each system the variable that identifies it, and those that name the job and the commit. A runner of a
# CI system may itself be a pod or a service of systemd, so these come last.
JOBS = (
    ("github", "GITHUB_ACTIONS", ("GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_JOB", "GITHUB_SHA")),
    ("gitlab", "GITLAB_CI", ("CI_PROJECT_PATH", "CI_JOB_ID", "CI_JOB_NAME", "CI_COMMIT_SHA")),
    ("jenkins", "JENKINS_URL", ("BUILD_TAG", "GIT_COMMIT")),
    ("circleci", "CIRCLECI", ("CIRCLE_PROJECT_REPONAME", "CIRCLE_BUILD_NUM", "CIRCLE_JOB", "CIRCLE_SHA1")),
    (
        "buildkite",
        "BUILDKITE",
        ("BUILDKITE_PIPELINE_SLUG", "BUILDKITE_BUILD_NUMBER", "BUILDKITE_JOB_ID", "BUILDKITE_COMMIT"),
    ),
    (
        "azure",
        "TF_BUILD",
        ("SYSTEM_TEAMPROJECT", "BUILD_DEFINITIONNAME", "BUILD_BUILDID", "BUILD_SOURCEVERSION"),
    ),
    (
        "bitbucket",
        "BITBUCKET_BUILD_NUMBER",
        ("BITBUCKET_REPO_FULL_NAME", "BITBUCKET_BUILD_NUMBER", "BITBUCKET_COMMIT"),
    ),
    ("argo", "ARGO_NODE_ID", ("POD_NAMESPACE", "ARGO_NODE_ID", "HOSTNAME")),
    ("kubernetes", "POD_NAME", ("POD_NAMESPACE", "POD_NAME")),  # as a manifest's author calls them
    ("kubernetes", "KUBERNETES_SERVICE_HOST", ("POD_NAMESPACE", "HOSTNAME")),
    ("systemd", "INVOCATION_ID", ("INVOCATION_ID",)),
)


@cache
def history_columns() -> dict[str, str | None]:
    """Return the columns of the history that say who runs this process."""
    try:
        user: str | None = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid()) if hasattr(os, "getuid") else None
    return {"os_user": user, "host": socket.gethostname(), "job": job()}


def job() -> str | None:
    """Name the job that runs this, from the environments of the common systems."""
    for system, marker, names in JOBS:
        if os.environ.get(marker):
            values = [os.environ[name] for name in names if os.environ.get(name)]
            return f"{system}: {' '.join(values)}"
    return None
