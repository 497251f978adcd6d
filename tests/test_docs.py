"""Documentation stays true: generated pages are in sync, links lead somewhere, README names the two commands."""

import importlib.util
import re

import pytest


@pytest.fixture(scope="module")
def generate(repository):
    spec = importlib.util.spec_from_file_location("docs_generate", repository / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "function"),
    [
        ("docs/reference/config.md", "config_page"),
        ("docs/reference/cli.md", "cli_page"),
        ("docs/figures/rulegraph.dot", "rule_graph"),
    ],
)
def test_generated_page_is_in_sync(repository, generate, page, function):
    assert (repository / page).read_text() == getattr(generate, function)(), f"{page} is stale; run 'make docs'"


def markdown_files(repository):
    return [repository / "README.md", repository / "CONTRIBUTING.md", *sorted((repository / "docs").rglob("*.md"))]


def test_relative_links_exist(repository):
    for page in markdown_files(repository):
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in link and not link.startswith("mailto:"):
                assert (page.parent / link).exists(), f"{page.name}: dead link {link}"


def test_readme_shows_the_two_commands_and_the_notice(repository):
    text = (repository / "README.md").read_text()
    assert "make demo" in text and "make test" in text and "not a medical device" in text


def test_settings_named_in_docs_exist(repository):
    from d2rnet.settings import section_schema

    pattern = re.compile(r"`((?:data|detector|annotation|report|evaluation|runtime)(?:\.[a-z0-9_]+)+)`")
    for page in markdown_files(repository):
        for dotted in pattern.findall(page.read_text()):
            try:
                section_schema(dotted)
            except KeyError:
                pytest.fail(f"{page.name}: {dotted} is not a key of the configuration")
