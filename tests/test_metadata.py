"""What catalogues and citation tools read agrees with the package: name, version, licence, references, how it is deployed."""

import json
import tomllib

import pytest
import yaml

import d2rnet


@pytest.fixture(scope="module")
def project(repository) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_version_is_one(repository, project):
    codemeta = json.loads((repository / "codemeta.json").read_text(encoding="utf-8"))
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    assert {d2rnet.__version__, codemeta["version"], citation["version"]} == {project["version"]}
    assert f"## {project['version']}" in changelog


def test_codemeta_and_citation_name_the_same_work(repository, project):
    codemeta = json.loads((repository / "codemeta.json").read_text(encoding="utf-8"))
    citation = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    assert codemeta["name"] == citation["title"] and codemeta["identifier"] == project["name"]
    assert (
        codemeta["license"] == f"https://spdx.org/licenses/{project['license']}" and citation["license"] == project["license"]
    )
    assert codemeta["author"][0]["name"] == citation["authors"][0]["name"] == project["authors"][0]["name"]
    assert codemeta["keywords"] == citation["keywords"] == project["keywords"]
    assert " ".join(codemeta["description"].split()) == " ".join(citation["abstract"].split())
    assert codemeta["programmingLanguage"]["version"] == project["requires-python"]
    cited = [(work["title"], work.get("url") or f"https://doi.org/{work['doi']}") for work in citation["references"]]
    assert [(work["name"], work["identifier"]) for work in codemeta["referencePublication"]] == cited
    assert all(
        work["authors"] and all("given-names" in author for author in work["authors"]) for work in citation["references"]
    )


def test_workflow_catalog_says_what_the_workflow_can(repository):
    usage = yaml.safe_load((repository / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))["usage"]
    rules = "\n".join(path.read_text(encoding="utf-8") for path in (repository / "workflow" / "rules").rglob("*.smk"))
    assert usage.keys() <= {"mandatory-flags", "software-stack-deployment", "report"}
    assert usage["software-stack-deployment"].keys() == {"conda", "apptainer", "apptainer+conda"}
    assert usage["report"] is ("report(" in rules)
    assert usage["software-stack-deployment"]["conda"] is ("conda:" in rules)
    assert usage["software-stack-deployment"]["apptainer"] is ("container:" in rules)
