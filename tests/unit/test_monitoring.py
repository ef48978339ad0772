"""Do the alerts and the dashboard name metrics that exist, and does each alert tell what to do?"""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import yaml

from guvnor.reports import metrics
from tests.support.command import CHECKOUT

FOLDER = CHECKOUT / "deploy" / "monitoring"
PAGE = (CHECKOUT / "docs" / "monitoring.md").read_text("utf-8")
RULES = [
    rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
NAME = re.compile(r"guvnor_migration_\w+")


def test_every_metric_that_is_named_exists_and_is_explained():
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    named = set(NAME.findall(" ".join((*(rule["expr"] for rule in RULES), *asked))))
    assert named <= metrics.NAMES
    for name in metrics.NAMES:
        assert f"`{name.removeprefix('guvnor_migration_')}`" in PAGE


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_has_its_place_in_the_page(rule):
    assert rule["annotations"]["runbook_url"] == f"docs/monitoring.md#{rule['alert'].lower()}"
    assert f"\n### {rule['alert']}\n" in PAGE
    runbook = (CHECKOUT / "docs" / "deploy.md").read_text("utf-8").partition("## Runbook")[2]
    assert f"(monitoring.md#{rule['alert'].lower()})" in runbook


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_alerts_fire_when_they_should():
    subprocess.run(["promtool", "check", "rules", "rules.yml"], cwd=FOLDER, check=True)
    subprocess.run(["promtool", "test", "rules", "rules_test.yml"], cwd=FOLDER, check=True)
