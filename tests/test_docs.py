"""Documentation stays true: generated pages are in sync; links, files, settings and commands that it names exist."""

import ast
import importlib.util
import json
import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.cli import get_argument_parser

from d2rnet.cli.commands import COMMANDS
from d2rnet.cli.entry import build_parser
from d2rnet.config import Config
from d2rnet.settings import subsection

# Files of the examples that the pages "add a ..." tell to write; tests write them in a copy of the project.
MADE_BY_THE_READER = {
    "src/d2rnet/cxr/annotation/count_boxes.py",
    "tests/cxr/annotation/test_count_boxes.py",
    "src/d2rnet/cxr/sources/ward.py",
    "tests/cxr/sources/test_ward.py",
    "src/d2rnet/evaluation/word_f1.py",
    "tests/evaluation/test_word_f1.py",
}
RELEASED_CODE = {"run_csv2coco.py", "run_unlabel2coco.py", "main.py", "train_net.py"}  # named beside our counterparts
OTHER_PROGRAMS = {"cp", "dcmsend", "echo", "git", "mkdir", "python3", "tensorboard", "wget", "sha256sum"}
ENGINES = ("docker", "podman", "apptainer")
IMAGES = ("d2rnet", "d2rnet.sif")  # that docs/how-to/containers.md builds
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
    ("page", "function", "arguments"),
    [
        ("docs/reference/config.md", "config_page", ()),
        ("workflow/schemas/config.schema.json", "config_schema", ()),
        ("docs/reference/cli.md", "cli_page", ()),
        ("docs/figures/concept.svg", "concept_figure", ()),
        ("docs/figures/rulegraph_cxr.dot", "rule_graph", ("cxr",)),
        ("docs/figures/rulegraph_ct.dot", "rule_graph", ("ct",)),
    ],
)
def test_generated_page_is_in_sync(repository, generate, page, function, arguments):
    assert (repository / page).read_text() == getattr(generate, function)(*arguments), f"{page} is stale; run 'make docs'"


@pytest.mark.parametrize("wing", ["cxr", "ct"])
def test_every_rule_of_the_graph_is_in_a_stage(repository, wing):
    text = (repository / f"docs/figures/rulegraph_{wing}.dot").read_text()
    drawn = {name for edge in re.findall(r"^  (\w+) -> (\w+);$", text, flags=re.MULTILINE) for name in edge}
    staged = re.findall(r"\w+", " ".join(re.findall(r"\]; (.*); \}$", text, flags=re.MULTILINE)))
    assert len(drawn) > 12 and sorted(staged) == sorted(drawn)


def test_the_page_of_the_ablation_counts_its_cells(repository, pages):
    page = pages[repository / "docs/how-to/run-the-ablation.md"]
    arms = yaml.safe_load((repository / "workflow/ablation.yaml").read_text())["arms"]
    settings = Config().cxr.ablation
    main = [arm for arm in arms.values() if arm.get("main")]
    cells = len(arms) * len(settings.seeds) + len(main) * len(settings.main_seeds)
    assert (len(main), len(settings.seeds) + len(settings.main_seeds)) == (2, 5)
    assert f"{len(arms)} arms and {len(settings.seeds)} seeds, five of two arms, make {cells} of them." in page
    assert set(arms) <= set(re.findall(r"`(\w+)`", page))


def test_relative_links_exist(pages):
    for page, text in pages.items():
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in link and not link.startswith("mailto:"):
                assert (page.parent / link).exists(), f"{page.name}: dead link {link}"


def anchors(text: str) -> set[str]:
    """Names by which GitHub links to the headings of a page; the second of a name ends with -1."""
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


def test_links_to_headings_exist(pages):
    seen = 0
    for page, text in pages.items():
        for link, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", text):
            target = (page.parent / link).resolve() if link else page
            if target in pages:
                seen += 1
                assert anchor in anchors(pages[target]), f"{page.name}: {link}#{anchor}: no such heading"
    assert seen > 10


def test_anchors_are_those_of_github():
    text = "# A `b_c` d-e, f\n```text\n# no heading\n```\n## results/cxr/x/{a,b}.json\n## [t](u)\n## [t](v)\n"
    assert anchors(text) == {"a-b_c-d-e-f", "resultscxrxabjson", "t", "t-1"}


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
    pattern = re.compile(r"`((?:ct|cxr|evaluation|runtime)(?:\.(?!(?:py|json)`)[a-z0-9_]+)+)`")
    unknown = []
    for page, text in pages.items():
        for dotted in pattern.findall(text):
            place: Any = Config
            for name in dotted.split("."):
                field = place.model_fields.get(name) if place else None
                if field is None:
                    unknown.append(f"{page.name}: {dotted}")
                    break
                place = subsection(field.annotation)
    assert unknown == [], "not a key of the configuration"


def test_files_named_in_docs_exist(repository, pages):
    modules = {path.name for path in (repository / "src").rglob("*.py")} | RELEASED_CODE
    for page, text in pages.items():
        for name in re.findall(rf"`((?:{'|'.join(OWN_FOLDERS)})/[\w./-]+)`", text):
            assert name in MADE_BY_THE_READER or (repository / name).exists(), f"{page.name}: no {name}"
        for name in re.findall(r"`(\w+\.py)`", text):
            assert name in modules, f"{page.name}: no module {name}"


def test_sub_commands_named_anywhere_exist(repository, pages):
    texts = dict(pages)
    texts |= {path: path.read_text(encoding="utf-8") for path in (repository / "src").rglob("*.py")}
    known = {*COMMANDS, *(name.split()[0] for name in COMMANDS)}
    for path, text in texts.items():
        for name in re.findall(r"['`]d2rnet ([a-z][a-z0-9-]*)", text) + re.findall(r"['`]d2rnet (export [a-z][a-z-]*)", text):
            assert name in known, f"{path.name}: there is no 'd2rnet {name}'"


def fenced_blocks(text: str, language: str) -> list[str]:
    """Contents of the fenced blocks of a language."""
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)


def commands(pages: dict[Path, str]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each command of a bash block, and each in-line one that begins with .venv/bin/ or make, as its words."""
    for page, text in pages.items():
        lines = [line for block in fenced_blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
        for line in [*lines, *re.findall(r"`((?:\.venv/bin/|make )[^`\n]+)`", text)]:
            words = list(takewhile(lambda word: word not in (">", "|"), shlex.split(line, comments=True)))
            while words and re.match(r"[A-Z_0-9]+=", words[0]):
                words = words[1:]
            if words:
                yield page, [words[0].removeprefix(".venv/bin/"), *words[1:]]
            if words and words[0] in ENGINES and words[1] == "run":
                yield page, in_the_image(words)


def in_the_image(words: list[str]) -> list[str]:
    """The command that a container engine runs, with the names of the image's files as they are in the checkout."""
    image = next(place for place, word in enumerate(words) if word in IMAGES)
    return [word.removeprefix("/opt/d2rnet/") for word in words[image + 1 :]]


@pytest.fixture(scope="module")
def targets(repository) -> set[str]:
    """Rules and output files of the workflow."""
    files = [repository / "Snakefile", *(repository / "workflow" / "rules").rglob("*.smk")]
    rules = "\n".join(path.read_text() for path in files)
    return {
        *re.findall(r"^rule (\w+):", rules, flags=re.MULTILINE),
        *re.findall(r'"(re(?:sults|sources)/[^"{]+)"', rules),
    }


def test_commands_in_docs_parse(repository, pages, targets):
    # files that a page shows or writes
    examples = set(re.findall(r"^# ([\w.]+\.yaml)$|> ([\w.]+\.yaml)$", "\n".join(pages.values()), flags=re.MULTILINE))
    examples = {name for pair in examples for name in pair if name}
    make_targets = set(re.findall(r"^([\w-]+):", (repository / "Makefile").read_text(), flags=re.MULTILINE))
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
        elif program in ENGINES:
            assert all((repository / word).is_file() for word in arguments if word.startswith("envs/")), shown
        elif program == "python":
            assert arguments[0] == "-m" or (repository / arguments[0]).is_file(), shown
        else:
            assert program in OTHER_PROGRAMS, f"{shown}: not checked by any parser"
        seen.add(program)
    assert {"make", "d2rnet", "snakemake", *ENGINES} <= seen


def parsed(parser, arguments, shown):
    try:
        return parser.parse_args(arguments)
    except SystemExit:
        return pytest.fail(f"{shown}: does not parse")


def test_examples_of_configuration_are_valid(pages):
    examples = [(page, block) for page, text in pages.items() for block in fenced_blocks(text, "yaml")]
    assert examples
    for page, block in examples:
        example = yaml.safe_load(block)
        if "executor" not in example:  # a profile of Snakemake's, which tests/cluster runs
            Config.read(example, source=page.name)


def test_examples_of_code_and_json_parse(pages):
    seen = Counter()
    for text in pages.values():
        for language, parse in (("python", ast.parse), ("json", json.loads)):
            for block in fenced_blocks(text, language):
                parse(textwrap.dedent(block))
                seen[language] += 1
    assert seen["python"] > 2 and seen["json"] > 1
