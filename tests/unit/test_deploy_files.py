"""Can what deploy/ and the compose file offer be read by the tools that it is for?"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from guvnor.cli.deploy import deploy
from guvnor.errors import ExitCode
from tests.support.command import CHECKOUT
from tests.support.deploy_files import manifests, rendered_chart

FLAGS = {flag for parameter in deploy.params for flag in parameter.opts}
DIGEST = re.compile(r"[\w./-]+@sha256:[0-9a-f]{64}")


def documents(path: Path) -> list[dict[str, object]]:
    templates = path.parent.name == "templates"
    return list(yaml.safe_load_all(rendered_chart() if templates else path.read_text(encoding="utf-8")))


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


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
        "deploy/kubernetes/backups.yaml",
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


@pytest.mark.parametrize("kind", ["kubernetes", "helm"])
def test_a_pod_is_given_time_and_is_not_started_for_ever(kind: str) -> None:
    job = manifests()[kind]
    assert job["spec"]["backoffLimit"] <= 3
    assert job["spec"]["activeDeadlineSeconds"]
    assert job["spec"]["ttlSecondsAfterFinished"], "a job that has ended is removed"
    pod = pod_of(job)
    assert pod["terminationGracePeriodSeconds"] >= 30
    assert pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["resources"]["limits"]["memory"]


@pytest.mark.parametrize("kind", ["kubernetes", "helm"])
def test_what_comes_again_each_time_gets_no_new_pod(kind: str) -> None:
    job = manifests()[kind]
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    of_exit = rule["onExitCodes"]
    assert of_exit["containerName"] == pod_of(job)["containers"][0]["name"]
    again = [code for code in ExitCode if ExitCode.USAGE <= code <= ExitCode.DRIFT] + [ExitCode.STALLED]
    assert (of_exit["operator"], of_exit["values"]) == ("In", again)  # the API wants them in order


def test_the_chart_runs_what_the_job_runs() -> None:
    """With its own values: the same pod, with the same security context, volumes and variables."""
    jobs = manifests()
    del jobs["helm"]["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/instance"]
    assert jobs["helm"]["spec"] == jobs["kubernetes"]["spec"]


def test_a_hook_of_a_release_has_a_name_of_its_own() -> None:
    names = {yaml.safe_load(rendered_chart(revision))["metadata"]["name"] for revision in (1, 2)}
    assert len(names) == 2


def test_the_user_of_the_image_is_the_one_that_owns_the_mounted_files() -> None:
    (user,) = re.findall(r"^USER (\d+):\d+$", (CHECKOUT / "Dockerfile").read_text(), re.M)
    context = pod_of(manifests()["kubernetes"])["securityContext"]
    assert [str(context[name]) for name in ("runAsUser", "runAsGroup", "fsGroup")] == [user] * 3
    assert f"chown {user} pgpass" in (CHECKOUT / "deploy/compose.yaml").read_text()
    assert f"chown {user} pgpass" in (CHECKOUT / "docs/deploy.md").read_text()


def test_images_are_named_by_digest_and_actions_by_commit() -> None:
    (compose,) = documents(CHECKOUT / "deploy/compose.yaml")
    services = compose["services"]
    assert isinstance(services, dict)
    images = [service["image"] for service in services.values()]
    images += [pod_of(job)["containers"][0]["image"] for job in manifests().values()]
    assert all(map(DIGEST.fullmatch, images)), images
    workflow = (CHECKOUT / "deploy/github/migrate.yml").read_text()
    used = re.findall(r"uses: (\S+)", workflow)
    assert used
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used), used


@pytest.mark.parametrize("kind", ["kubernetes", "helm"])
def test_what_a_pod_mounts_is_there(kind: str) -> None:
    pod = pod_of(manifests()[kind])
    (container,) = pod["containers"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert sorted(mounted.values()) == sorted(volume["name"] for volume in pod["volumes"])
    words = container["args"]
    assert words[words.index("--backup") + 1] in mounted
    assert words[words.index("--result") + 1] == container["terminationMessagePath"]
    (claim,) = documents(CHECKOUT / "deploy/kubernetes/backups.yaml")
    claimed = [volume["persistentVolumeClaim"] for volume in pod["volumes"] if "secret" not in volume]
    assert claimed == [{"claimName": claim["metadata"]["name"]}]  # type: ignore[index]


@pytest.mark.parametrize("kind", ["kubernetes", "helm"])
def test_another_command_is_the_same_job_with_other_words(kind: str) -> None:
    """As docs/deploy.md says to make one."""
    page = (CHECKOUT / "docs/deploy.md").read_text(encoding="utf-8")
    arguments = [word for found in re.findall(r"-e '(s/.*?)'", page) for word in ("-e", found)]
    assert len(arguments) == 4
    text = rendered_chart() if kind == "helm" else (CHECKOUT / "deploy/kubernetes/job.yaml").read_text()
    changed = subprocess.run(["sed", *arguments], input=text, check=True, capture_output=True, text=True)
    job, expected = yaml.safe_load(changed.stdout), manifests()[kind]
    expected["metadata"]["name"] = "guvnor-status"
    pod_of(expected)["containers"][0]["args"] = ["migrate", "status"]
    assert job == expected


def test_helm_renders_what_these_tests_render() -> None:
    helm = program("helm")
    chart = str(CHECKOUT / "deploy/helm")
    subprocess.run([helm, "lint", "--strict", chart], check=True, capture_output=True)
    rendered = subprocess.run([helm, "template", "guvnor", chart], check=True, capture_output=True, text=True)
    assert yaml.safe_load(rendered.stdout) == manifests()["helm"]


@pytest.mark.parametrize("path", ["deploy/kubernetes/job.yaml", "deploy/kubernetes/backups.yaml", "helm"])
def test_kubernetes_knows_each_field(path: str, tmp_path: Path) -> None:
    kubeconform = program("kubeconform")
    file = tmp_path / "rendered.yaml"
    file.write_text(rendered_chart() if path == "helm" else (CHECKOUT / path).read_text())
    ended = subprocess.run([kubeconform, "-strict", file], check=False, capture_output=True, text=True)
    if "schema" in ended.stdout and "download" in ended.stdout:
        pytest.skip("the schemas cannot be had here")
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("kind", ["kubernetes", "helm"])
def test_kubectl_reads_the_job_as_it_is_written(kind: str, tmp_path: Path) -> None:
    """It drops what is no field of a job, and needs no cluster for it."""
    file = tmp_path / "job.json"
    file.write_text(json.dumps(manifests()[kind]))
    command = [program("kubectl"), "set", "env", "--local", "-f", file, "-o", "json", "GUVNOR_ENV=changed"]
    read = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "KUBECONFIG": os.devnull}
    )
    written = manifests()[kind]
    pod_of(written)["containers"][0]["env"][0]["value"] = "changed"
    assert list(missing(written, json.loads(read.stdout))) == []


def missing(written: Any, read: Any, place: str = "") -> Iterator[str]:
    """The places at which what was written is not what was read."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            yield from missing(value, read.get(key), f"{place}/{key}")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for number, pair in enumerate(zip(written, read, strict=True)):
            yield from missing(*pair, f"{place}/{number}")
    elif written != read:
        yield place


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here")
    return found


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
