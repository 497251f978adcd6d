"""Documentation stays true: generated pages are in sync; links, files, settings and commands that it names exist."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from snakemake.cli import get_argument_parser

from d2rnet.cli import build_parser
from d2rnet.commands import COMMANDS
from d2rnet.settings import default_settings, merge, section_schema, validate

RELEASED_CODE = {"run_csv2coco.py", "run_unlabel2coco.py", "main.py", "train_net.py"}  # named beside our counterparts
OWN_FOLDERS = ("src", "workflow", "envs", "profiles", "docs", "benchmarks", "tests")


@pytest.fixture(scope="module")
def generate(repository):
    spec = importlib.util.spec_from_file_location("docs_generate", repository / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(repository) -> dict[Path, str]:
    """Every page that a person wrote or reads -> its text."""
    names = ["README.md", "CONTRIBUTING.md", "profiles/README.md", *(repository / "docs").rglob("*.md")]
    return {repository / name: (repository / name).read_text(encoding="utf-8") for name in names}


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


def test_relative_links_exist(pages):
    for page, text in pages.items():
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in link and not link.startswith("mailto:"):
                assert (page.parent / link).exists(), f"{page.name}: dead link {link}"


def test_readme_leads_to_every_page(repository, pages):
    """From README, link by link."""
    seen, new = set(), {repository / "README.md"}
    while new:
        page = new.pop()
        seen.add(page)
        linked = {(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#\s:]+\.md)", pages[page])}
        new |= (linked & pages.keys()) - seen
    assert sorted(path.name for path in pages.keys() - seen) == []


def test_readme_shows_the_two_commands_and_the_notice(repository):
    text = (repository / "README.md").read_text()
    assert "make demo" in text and "make test" in text and "not a medical device" in text


def test_settings_named_in_docs_exist(pages):
    pattern = re.compile(r"`((?:data|detector|annotation|report|evaluation|runtime)(?:\.(?!(?:py|json)`)[a-z0-9_]+)+)`")
    unknown = []
    for page, text in pages.items():
        for dotted in pattern.findall(text):
            try:
                section_schema(dotted)
            except KeyError:
                unknown.append(f"{page.name}: {dotted}")
    assert unknown == [], "not a key of the configuration"


def test_files_named_in_docs_exist(repository, pages):
    modules = {path.name for path in (repository / "src").rglob("*.py")} | RELEASED_CODE
    for page, text in pages.items():
        for name in re.findall(rf"`((?:{'|'.join(OWN_FOLDERS)})/[\w./-]+)`", text):
            assert (repository / name).exists(), f"{page.name}: no {name}"
        for name in re.findall(r"`(\w+\.py)`", text):
            assert name in modules, f"{page.name}: no module {name}"


def test_sub_commands_named_anywhere_exist(repository, pages):
    texts = dict(pages)
    texts |= {path: path.read_text(encoding="utf-8") for path in (repository / "src").rglob("*.py")}
    for path, text in texts.items():
        for name in re.findall(r"['`]d2rnet ([a-z][a-z0-9-]*)", text):
            assert name in COMMANDS, f"{path.name}: there is no 'd2rnet {name}'"


def fenced_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(pages: dict[Path, str]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each command of a bash block, and each in-line one that begins with .venv/bin/ or make, as its words."""
    for page, text in pages.items():
        lines = [line for block in fenced_blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
        for line in [*lines, *re.findall(r"`((?:\.venv/bin/|make )[^`\n]+)`", text)]:
            words = shlex.split(line, comments=True)
            while words and re.match(r"[A-Z_0-9]+=", words[0]):
                words = words[1:]
            if words:
                yield page, [words[0].removeprefix(".venv/bin/"), *words[1:]]


@pytest.fixture(scope="module")
def targets(repository) -> set[str]:
    """Rules and output files of the workflow."""
    rules = "\n".join(path.read_text() for path in (repository / "workflow" / "rules").glob("*.smk"))
    return {*re.findall(r"^rule (\w+):", rules, flags=re.MULTILINE), *re.findall(r'"(re(?:sults|sources)/[^"{]+)"', rules)}


def test_commands_in_docs_parse(repository, pages, targets):
    examples = set(re.findall(r"^# ([\w.]+\.yaml)$", "\n".join(pages.values()), flags=re.MULTILINE))  # files that a page shows
    make_targets = set(re.findall(r"^(\w+):", (repository / "Makefile").read_text(), flags=re.MULTILINE))
    snakemake, own = get_argument_parser(), build_parser()
    seen = set()
    for page, (program, *arguments) in commands(pages):
        shown = f"{page.name}: {program} {' '.join(arguments)}"
        if program == "make":
            wanted = [word for word in arguments if "=" not in word]
            assert set(wanted) <= make_targets, shown
        elif program == "d2rnet":
            parsed(own, arguments, shown)
        elif program == "snakemake":
            options = parsed(snakemake, arguments, shown)
            assert {*options.targets, *(options.forcerun or ())} <= targets, f"{shown}: no such target"
            for file in map(str, options.configfile or ()):
                assert file in examples | {"..."} or (repository / file).is_file(), f"{shown}: no configuration {file}"
            profiles = [repository / name / "config.yaml" for name in options.profile or ()]
            assert all(profile.is_file() for profile in profiles), f"{shown}: no such profile"
        elif program == "python":
            assert arguments[0] == "-m" or (repository / arguments[0]).is_file(), shown
        seen.add(program)
    assert {"make", "d2rnet", "snakemake"} <= seen


def parsed(parser, arguments, shown):
    try:
        return parser.parse_args(arguments)
    except SystemExit:
        return pytest.fail(f"{shown}: does not parse")


def test_examples_of_configuration_are_valid(pages):
    examples = [(page, block) for page, text in pages.items() for block in fenced_blocks(text, "yaml")]
    assert examples
    for page, block in examples:
        validate(merge(default_settings(), yaml.safe_load(block)), source=page.name)
