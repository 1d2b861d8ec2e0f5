"""What a release consists of agrees with itself: its version, and the commands that are run before it."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_the_same_wherever_it_stands():
    version = re.search(r'^version = "(.+)"$', text_of("pyproject.toml"), re.MULTILINE)[1]
    assert yaml.safe_load(text_of("CITATION.cff"))["version"] == version
    assert re.search(r"^## (\d\S*)", text_of("CHANGELOG.md"), re.MULTILINE)[1] == version


def test_every_push_runs_the_command_of_the_readme():
    command = text_of("README.md").split("\n## Test\n\n    ", 1)[1].split("\n", 1)[0]
    workflow = yaml.safe_load(text_of(".github/workflows/tests.yml"))
    assert workflow["jobs"]["tests"]["steps"][-1]["run"] == command
    # Everything but the installation stands in the page for developers too.
    assert command.partition(" && ")[2] in text_of("CONTRIBUTING.md")
