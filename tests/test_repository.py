"""What people look for in a repository: it is there, it is valid, and what it names exists."""

from __future__ import annotations

import ast
import itertools
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from actmax.tasks import registry

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md")
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
PART = re.compile(r"\.ci/run (\w+)$")
LONGEST = 120


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# citation: https://github.com/citation-file-format/citation-file-format/blob/1.2.0/schema-guide.md

CITED = {
    *("abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords"),
    *("license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact"),
    *("repository-code", "title", "type", "url", "version"),
}
"""The keys that version 1.2.0 of the format knows; the next four are required."""
REQUIRED = {"authors", "cff-version", "message", "title"}


def wrong_citation(text: str) -> list[str]:
    """What the format does not allow in a citation, of what this one uses."""
    found: Any = yaml.safe_load(text)
    wrong = [f"{key} is not a key" for key in found.keys() - CITED]
    wrong += [f"{key} is missing" for key in REQUIRED - found.keys()]
    if str(found.get("cff-version")) != "1.2.0" or not isinstance(found.get("cff-version"), str):
        wrong.append("cff-version")
    if found.get("type", "software") not in ("software", "dataset"):
        wrong.append("type")
    for author in found.get("authors", []):
        person, entity = {"family-names", "given-names"} & author.keys(), "name" in author
        wrong += [] if bool(person) != entity else [f"author {author}"]
    keywords = found.get("keywords", [])
    if len(set(keywords)) != len(keywords) or not all(isinstance(one, str) for one in keywords):
        wrong.append("keywords")
    return wrong


class TestCitation:
    def test_is_valid_and_names_this_version(self) -> None:
        text = read("CITATION.cff")
        assert wrong_citation(text) == []
        found = yaml.safe_load(text)
        assert str(found["version"]) == PROJECT["version"]
        assert found["license"] == PROJECT["license"]
        assert found["authors"] == [{"name": "The actmax authors"}]
        assert f"{found['authors'][0]['name']}\n" in read("LICENSE")

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("title: actmax\n", ""),
            ("cff-version: 1.2.0", "cff-version: 1.3.0"),
            ("license: MIT", "licence: MIT"),
            ("type: software", "type: program"),
            ("  - name: The actmax authors", "  - author: The actmax authors"),
            ("  - reproducibility", "  - interpretability"),
        ],
    )
    def test_one_that_is_not_is_noticed(self, old: str, new: str) -> None:
        assert wrong_citation(read("CITATION.cff").replace(old, new)) != []


# pages


def targets() -> set[str]:
    """What make can be asked for."""
    return set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.MULTILINE))


def missing(text: str) -> list[str]:
    """What a page names and is not there: make's targets, files and folders, pages that it links to."""
    wrong = [f"make {name}" for name in re.findall(r"(?:`|^)make (?:\w+=\S+ )?([a-z-]+)", text, re.M)]
    wrong = [name for name in wrong if name.removeprefix("make ") not in targets()]
    named = re.findall(r"`((?:src|tests|scripts|docs|conf|\.ci|\.github)/[\w./-]+)`", text)
    named += [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    return wrong + [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_names_is_there(name: str) -> None:
    text = read(name)
    assert missing(text) == []
    assert max(map(len, text.splitlines())) <= LONGEST


def test_what_is_not_there_is_noticed() -> None:
    text = "`make tests`, `src/actmax/priors.py`, [design](docs/desing.md)\n\n```\nmake PYTHON=python3.12 set-up\n```\n"
    assert missing(text) == ["make tests", "make set-up", "src/actmax/priors.py", "docs/desing.md"]


def test_the_changelog_has_this_version_first() -> None:
    text = read("CHANGELOG.md")
    versions = re.findall(r"^## \[([\d.]+|Unreleased)\](?: - (unreleased|\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)
    assert versions[0] == (PROJECT["version"], "unreleased")
    kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert kinds[:3] == ["Added", "Changed", "Fixed"]


# make

PYTHON = """#!/bin/sh
case "$*" in
    *"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *compileall*) echo "*** Error compiling template.py" && exit 1 ;;
    *pip*) exit ${PIP:-0} ;;
esac
"""
"""A Python that makes an environment in which some file does not compile, as templates of some packages do not."""


def set_up(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`make setup` in a folder of its own, by a Python that does next to nothing."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    python = folder / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    command = ["make", f"PYTHON={python}", "setup"]
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }  # tests may run below another make
    env |= variables
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)


def test_the_set_up_prints_nothing_alarming(tmp_path: Path) -> None:
    ran = set_up(tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / ".venv" / ".installed").exists()
    said = ran.stdout + ran.stderr
    assert "pip install" in said
    assert not re.search(r"error|ignored|warning", said, re.IGNORECASE)


def test_a_set_up_that_fails_says_so(tmp_path: Path) -> None:
    ran = set_up(tmp_path, PIP="3")
    assert ran.returncode != 0
    assert "Error 3" in ran.stderr
    assert not (tmp_path / ".venv" / ".installed").exists()


# metadata


def test_the_metadata_says_what_holds() -> None:
    declared = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if line.count("Python :: 3.")]
    assert declared
    assert all(SpecifierSet(PROJECT["requires-python"]).contains(f"{version}.0") for version in declared)
    assert set(declared) <= set(matrix())
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert (ROOT / "src" / "actmax" / "py.typed").read_bytes() == b""
    assert "urls" not in PROJECT  # there is no public address yet


def test_every_extra_of_the_tests_is_pinned() -> None:
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", read("constraints.txt"), re.MULTILINE))
    for line in PROJECT["optional-dependencies"]["dev"]:
        match = re.match(r"[\w.-]+", line)
        assert match is not None
        if match[0] != "actmax":
            assert match[0] in pinned, line
            specifier = SpecifierSet(line[match.end() :])
            assert specifier.contains(Version(pinned[match[0]])), line


# the workflow and the forms of GitHub


def workflow(text: str | None = None) -> Any:
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8") if text is None else text)


def matrix() -> list[str]:
    return workflow()["jobs"]["fast"]["strategy"]["matrix"]["python"]


def wrong_workflow(found: Any) -> list[str]:
    """What is wrong with a workflow: steps that are none, actions without a major version, parts that there are not."""
    wrong: list[str] = []
    if not {"name", True, "permissions", "jobs"} <= found.keys():  # YAML reads `on` as a truth
        wrong.append("keys")
    parts = re.findall(r"^    (\w+(?: \| \w+)*)\)", read(".ci/run"), re.MULTILINE)
    known = {part for line in parts for part in line.split(" | ")}
    for name, job in found["jobs"].items():
        wrong += [f"{name} waits for {one}" for one in [job.get("needs", name)] if one not in found["jobs"]]
        wrong += [] if "timeout-minutes" in job else [f"{name} may hang"]
        for step in job["steps"]:
            if len({"uses", "run"} & step.keys()) != 1:
                wrong.append(f"{name}: {step}")
            if "uses" in step and not re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]):
                wrong.append(step["uses"])
            if "run" in step and ((part := PART.search(step["run"])) is None or part[1] not in known):
                wrong.append(step["run"])
    return wrong


class TestWorkflow:
    def test_is_whole(self) -> None:
        assert wrong_workflow(workflow()) == []

    def test_runs_each_part_once_on_every_python_that_is_tried(self) -> None:
        jobs = workflow()["jobs"]
        runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
        assert runs == [".ci/run fast", ".ci/run slow", ".ci/run docs"]
        assert all(isinstance(one, str) for one in matrix())  # 3.10 without quotes would be 3.1
        (upload,) = [step for step in jobs["docs"]["steps"] if "pages-artifact" in step.get("uses", "")]
        assert f"--site-dir {upload['with']['path']}" in read("Makefile")

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("actions/checkout@v4", "actions/checkout@main"),
            ("actions/checkout@v4", "someone/checkout@v4"),
            (".ci/run slow", ".ci/run slowly"),
            ("needs: fast", "needs: quick"),
            ("    timeout-minutes: 180\n", ""),
            ("permissions:\n  contents: read\n", ""),
        ],
    )
    def test_one_that_is_not_is_noticed(self, old: str, new: str) -> None:
        assert wrong_workflow(workflow(WORKFLOW.read_text(encoding="utf-8").replace(old, new))) != []

    @pytest.mark.parametrize("part", ["slowly", "-h"])
    def test_a_part_that_there_is_not_is_refused(self, part: str) -> None:
        ran = subprocess.run([ROOT / ".ci" / "run", part], capture_output=True, text=True)
        assert ran.returncode == 2
        assert ran.stderr == "usage: .ci/run [fast | slow | docs]\n"


KINDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}


def wrong_form(found: Mapping[str, Any]) -> list[str]:
    """What GitHub would refuse in a form for issues."""
    wrong = [key for key in ("name", "description", "body") if not found.get(key)]
    names = [one.get("id") for one in found.get("body", []) if one.get("type") != "markdown"]
    if len(set(names)) < len(names) or not all(re.fullmatch(r"[\w-]+", str(name)) for name in names):
        wrong.append("id")
    for one in found.get("body", []):
        needed = "value" if one.get("type") == "markdown" else "label"
        wrong += [] if one.get("type") in KINDS and one.get("attributes", {}).get(needed) else [str(one)]
    if not any(one.get("validations", {}).get("required") for one in found.get("body", [])):
        wrong.append("nothing is required")
    return wrong


class TestForms:
    def test_there_are_some(self) -> None:
        assert {file.stem for file in TEMPLATES} == {"bug", "config", "family", "number"}
        assert yaml.safe_load(read(".github/ISSUE_TEMPLATE/config.yml")) == {"blank_issues_enabled": True}

    @pytest.mark.parametrize("file", [file for file in TEMPLATES if file.stem != "config"], ids=lambda file: file.stem)
    def test_each_is_whole(self, file: Path) -> None:
        text = file.read_text(encoding="utf-8")
        assert wrong_form(yaml.safe_load(text)) == []
        for old, new in (("name:", "title2:"), ("type: textarea", "type: text"), ("label:", "lable:")):
            assert wrong_form(yaml.safe_load(text.replace(old, new))) != []


# the house: rules that would erode unseen


def lines_with(pattern: str, sources: Mapping[str, str]) -> list[str]:
    """The lines of some sources that hold a pattern, each behind its file's name."""
    found = re.compile(pattern)
    return [
        f"{name}: {line.strip()}" for name, text in sources.items() for line in text.splitlines() if found.search(line)
    ]


def sources() -> dict[str, str]:
    folder = ROOT / "src"
    return {str(file.relative_to(folder)): file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.py"))}


def attribute_docstrings(text: str) -> list[str]:
    """The docstrings of a module's attributes and of its classes'."""
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.ClassDef, ast.Module)):
            for one, after in itertools.pairwise(node.body):
                if isinstance(one, (ast.Assign, ast.AnnAssign)) and isinstance(after, ast.Expr):
                    value = ast.literal_eval(after.value) if isinstance(after.value, ast.Constant) else None
                    found += [value] if isinstance(value, str) else []
    return found


def riddles(docstrings: list[str]) -> list[str]:
    """Docstrings of three words or fewer, and such as are no sentence without the name above them."""
    return [text for text in docstrings if len(text.split()) <= 3 or re.match(r"Of\b|Its\b|Likewise", text)]


class TestHouse:
    def test_a_task_is_chosen_in_the_registry_alone(self) -> None:
        """A branch on a task's name is a part of that task outside of its room."""
        assert len(lines_with(r"task\.name", sources())) <= 3
        names = "|".join(registry.BUILT_IN)
        assert lines_with(rf"""(==|!=|\bin) \(?["']({names})["']""", sources()) == []

    def test_attributes_are_described_in_sentences(self) -> None:
        docstrings = [text for source in sources().values() for text in attribute_docstrings(source)]
        assert len(docstrings) > 500
        assert riddles(docstrings) == []

    def test_what_is_against_the_rules_is_noticed(self) -> None:
        branch = 'if task.name == "tuning":'
        described = {"b": "Of them, the sum.", "c": "The file.", "d": "Number of the files."}
        fields = "".join(f'    {name}: int\n    """{text}"""\n' for name, text in described.items())
        assert lines_with(r"task\.name", {"a.py": f"{branch}\n    pass\n"}) == [f"a.py: {branch}"]
        assert riddles(attribute_docstrings(f"class A:\n{fields}")) == ["Of them, the sum.", "The file."]
