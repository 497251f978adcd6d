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
