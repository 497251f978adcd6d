"""The robustness page: sections are exchanged between their markers, and every guard is in its table."""

import re

import mutants
import pytest
import robustness

PAGE = "# Page\n<!-- begin: a -->\nold\n<!-- end: a -->\nbetween\n<!-- begin: b -->\n<!-- end: b -->\n"


def test_a_section_is_exchanged_and_the_rest_stays():
    changed = robustness.replace_section(PAGE, "a", "new \\1 text\n")
    assert changed == PAGE.replace("old\n", "\nnew \\1 text\n\n")
    assert robustness.replace_section(changed, "b", "more").startswith(changed[: changed.index("<!-- begin: b")])


@pytest.mark.parametrize("page", [PAGE.replace("<!-- end: a -->", ""), PAGE + PAGE])
def test_missing_or_repeated_markers_are_named(page):
    with pytest.raises(robustness.PageError, match="'<!-- begin: a -->' and '<!-- end: a -->' once"):
        robustness.replace_section(page, "a", "new")


def test_every_guard_is_in_the_table_and_none_survived():
    page = robustness.PAGE.read_text(encoding="utf-8")
    section = page.partition("<!-- begin: guards -->")[2].partition("<!-- end: guards -->")[0]
    shown = re.findall(r"^\| (guard-[\w-]+) \|", section, flags=re.MULTILINE)
    guards = [mutation.name for mutation in mutants.read_tables() if mutation.area == robustness.GUARDS]
    assert shown == guards and len(guards) >= 20, "run 'python tests/robustness.py guards'"
    assert mutants.SURVIVED not in section


REPORT = """<testsuites><testsuite>
<testcase name="test_a" time="90.0"><properties>
<property name="fault" value="power loss"/><property name="snakemake" value="nothing"/>
<property name="slurm" value="1 COMPLETED"/><property name="resumed" value="5 of 12"/>
</properties></testcase>
<testcase name="test_b" time="30.0"><failure message="differs">text</failure></testcase>
<testcase name="test_c" time="0.0"><skipped message="no SLURM"/></testcase>
</testsuite></testsuites>"""


def test_the_slurm_table_has_a_line_a_test_and_shows_what_did_not_pass():
    lines = robustness.slurm_section(REPORT, "0123456789abcdef").splitlines()
    assert lines[0] == "`python tests/robustness.py slurm`, commit 0123456789ab: 3 runs, 2 minutes in all."
    assert lines[2].count("|") == lines[3].count("|") == 6
    assert lines[4:] == [
        "| power loss | nothing | 1 COMPLETED | 5 of 12 | yes |",
        "| test_b | test_b | test_b | test_b | NO |",
        "| test_c | test_c | test_c | test_c | NO |",
    ]
