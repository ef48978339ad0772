"""What the files below ``deploy/`` run, and with which environment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.command import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
SECRET = re.compile(r"\$\{\{ (?:secrets\.)?([\w.]+) \}\}")


@dataclass(frozen=True)
class Job:
    """The job of one file.

    :ivar words: the arguments of ``guvnor``; empty for a script.
    :ivar script: what a shell runs; empty for arguments.
    :ivar environment: the variables, with secrets and fields filled in.
    """

    words: tuple[str, ...]
    script: str
    environment: Mapping[str, str]


def rendered_chart(revision: int = 1) -> str:
    """Render the chart with its own values, as far as it uses templates: values and simple pipes."""
    values = yaml.safe_load((DEPLOY / "helm/values.yaml").read_text("utf-8"))
    known: dict[str, Any] = {f".Values.{name}": value for name, value in values.items()}
    known |= {".Release.Name": "guvnor", ".Release.Revision": revision}

    def filled(found: re.Match[str]) -> str:
        name, *pipes = (part.strip() for part in found[1].split("|"))
        return f'"{known[name]}"' if "quote" in pipes else str(known[name])

    text = (DEPLOY / "helm/templates/migrate.yaml").read_text("utf-8")
    return re.sub(r"\{\{-?(.*?)-?\}\}", filled, text)


def manifests() -> dict[str, dict[str, Any]]:
    """The jobs of Kubernetes and of Helm."""
    job = (DEPLOY / "kubernetes/job.yaml").read_text("utf-8")
    return {"kubernetes": yaml.safe_load(job), "helm": yaml.safe_load(rendered_chart())}


def job_of(kind: str, secrets: Mapping[str, str]) -> Job:
    """Read the job of ``compose``, ``kubernetes``, ``helm`` or ``github``.

    :param secrets: by the key or the name that the file has for it.
    """
    if kind == "compose":
        service = _read("compose.yaml")["services"]["migrate"]
        return Job(tuple(service["command"]), "", service["environment"])
    if kind == "github":
        steps = _read("github/migrate.yml")["jobs"]["migrate"]["steps"]
        (step,) = (step for step in steps if step.get("name") == "Migrate")
        known = {**secrets, "runner.temp": "/runner"}
        environment = {
            name: SECRET.sub(lambda found: known[found[1]], value) for name, value in step["env"].items()
        }
        return Job((), step["run"], environment)
    (container,) = manifests()[kind]["spec"]["template"]["spec"]["containers"]
    return Job(tuple(container["args"]), "", dict(_variables(container["env"], secrets)))


def _read(path: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / path).read_text("utf-8"))
    return document


def _variables(listed: list[dict[str, Any]], secrets: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for variable in listed:
        source = variable.get("valueFrom", {})
        if "secretKeyRef" in source:
            yield variable["name"], secrets[source["secretKeyRef"]["key"]]
        elif "fieldRef" in source:
            yield variable["name"], f"the-{source['fieldRef']['fieldPath'].rpartition('.')[2]}"
        else:
            yield variable["name"], variable["value"]


def elsewhere(text: str, folder: Path) -> str:
    """Return a text with the paths of a container below a folder of this machine."""
    return re.sub(r"(?<![\w/.])/(run/secrets|etc/guvnor|dev|backups|runner)\b", rf"{folder}/\1", text)
