"""Can what deploy/ and the compose file offer be read by the tools that it is for?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from guvnor.cli.deploy import deploy
from guvnor.errors import ExitCode
from tests.support.command import CHECKOUT

FLAGS = {flag for parameter in deploy.params for flag in parameter.opts}


def documents(path: Path) -> list[dict[str, object]]:
    text = path.read_text(encoding="utf-8")
    for name in (
        "Release.Name",
        "Release.Revision",
        "Values.deadline",
        "Values.image",
        "Values.tag",
        "Values.secret",
    ):
        text = text.replace("{{ ." + name + " }}", "1")
    text = text.replace("{{ .Values.environment | quote }}", '"production"')
    assert "{{ ." not in text
    return list(yaml.safe_load_all(text))


def commands(value: object) -> list[list[str]]:
    """Every list of words that is a guvnor command."""
    if isinstance(value, dict):
        return [found for item in value.values() for found in commands(item)]
    if isinstance(value, list):
        if value and value[0] == "migrate" and all(isinstance(word, str) for word in value):
            return [value]
        return [found for item in value for found in commands(item)]
    return []


@pytest.mark.parametrize(
    "path",
    [
        "docker-compose.yml",
        "deploy/compose.yaml",
        "deploy/kubernetes/job.yaml",
        "deploy/helm/templates/migrate.yaml",
        "deploy/helm/Chart.yaml",
        "deploy/helm/values.yaml",
        "deploy/github/migrate.yml",
    ],
)
def test_file_is_yaml_and_names_only_flags_that_exist(path: str) -> None:
    read = documents(CHECKOUT / path)
    assert all(isinstance(document, dict) for document in read)
    for words in commands(read):
        assert words[1] in ("deploy", "up")
        if words[1] == "deploy":
            assert {word for word in words[2:] if word.startswith("--")} <= FLAGS


@pytest.mark.parametrize("path", ["deploy/kubernetes/job.yaml", "deploy/helm/templates/migrate.yaml"])
def test_a_pod_is_given_time_and_is_not_started_for_ever(path: str) -> None:
    (job,) = documents(CHECKOUT / path)
    specification = job["spec"]
    assert isinstance(specification, dict)
    assert specification["backoffLimit"] <= 3
    assert specification["activeDeadlineSeconds"]
    pod = specification["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 30
    assert pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["resources"]["limits"]["memory"]


@pytest.mark.parametrize("path", ["deploy/kubernetes/job.yaml", "deploy/helm/templates/migrate.yaml"])
def test_what_comes_again_each_time_gets_no_new_pod(path: str) -> None:
    (job,) = documents(CHECKOUT / path)
    specification = job["spec"]
    assert isinstance(specification, dict)
    (rule,) = specification["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    of_exit = rule["onExitCodes"]
    assert of_exit["containerName"] == specification["template"]["spec"]["containers"][0]["name"]
    again = [ExitCode.USAGE, ExitCode.REFUSED, ExitCode.DECISION, ExitCode.STALLED]
    assert (of_exit["operator"], of_exit["values"]) == ("In", again)  # the API wants them in order


@pytest.mark.parametrize("path", ["README.md", "docs/deploy.md", "docs/operations.md"])
def test_every_exit_code_is_explained(path: str) -> None:
    text = (CHECKOUT / path).read_text(encoding="utf-8")
    explained = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", text, re.M) for code in row.split(", ")}
    assert set(ExitCode) <= explained


def test_the_application_waits_for_the_migrations() -> None:
    (compose,) = documents(CHECKOUT / "deploy/compose.yaml")
    services = compose["services"]
    assert isinstance(services, dict)
    assert services["guvnor"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    (development,) = documents(CHECKOUT / "docker-compose.yml")
    services = development["services"]
    assert isinstance(services, dict)
    assert services["postgres"]["image"] == "postgres:15"
    assert "pg_isready" in services["postgres"]["healthcheck"]["test"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
