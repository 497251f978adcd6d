"""Properties of every parser: whatever the text, the answer is a value that holds what it should, or an error of the package.

A few examples each in ``make test``, many with ``-m slow`` (test_many_examples.py).
"""

import json
import string
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from property_settings import QUICK

from d2rnet.cxr.sources.mimic_exceptions import MIMIC_EXCEPTIONS
from d2rnet.cxr.sources.openi_reports import _parse
from d2rnet.cxr.sources.report_lines import restored
from d2rnet.cxr.sources.report_sections import extract_section, normalise_header, split_sections
from d2rnet.errors import DatasetError
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.documents import read_jsonl
from d2rnet.files.names import MAX_NAME_BYTES, is_path_below, is_safe_id
from d2rnet.files.parsing import ParseError, parse_json, parse_yaml
from d2rnet.report.annotation_file import entry_complaint

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
headers = st.sampled_from(["FINDINGS:", "IMPRESSION:", "LUNGS:", "FINAL REPORT", "CHEST, PA:", "Findings :", ":", "\n", ". "])
reports = st.lists(st.one_of(words, headers), max_size=12).map("\n".join)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False), words),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)),
    max_leaves=8,
)


@QUICK
@given(values)
def test_json_gives_back_what_was_written(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False)) == value


@QUICK
@given(st.text(max_size=60))
@example('{"a": 1, "a": 2}')
@example('"\\ud800"')
def test_json_is_text_or_refused(text):
    try:
        json.dumps(parse_json(text), ensure_ascii=False).encode()
    except (ParseError, json.JSONDecodeError):
        return


@QUICK
@given(st.text(st.sampled_from("ab:-[]{}&*!\"' \n?|>#.0123"), max_size=60))
def test_yaml_is_a_value_or_refused(text):
    try:
        repr(parse_yaml(text))
    except ParseError as error:
        assert str(error)


@QUICK
@given(reports)
@example("FINDINGS:" * 3)
@example("0\x0c\n0")
@example("0\xad:")
def test_sections_are_parts_of_the_text_in_order(text):
    sections = split_sections(text)
    assert [section.start for section in sections] == sorted(section.start for section in sections)
    for section in sections:
        assert 0 <= section.start <= section.end <= len(text)
        words = "".join(section.text.split())
        assert words in "".join(restored(text).split()) or "FINAL REPORT" in text or "READ VERSION" in text
    for wanted in ("findings", "impression"):
        found = extract_section(text, wanted)
        assert found is None or (found and " ".join(found.split()) == found)


@QUICK
@given(st.text(max_size=60), st.sampled_from(sorted(MIMIC_EXCEPTIONS)))
def test_exceptions_hold_for_any_text(text, study_id):
    found = extract_section(text, "findings", study_id)
    assert found is None or found in " ".join(restored(text).split()) or len(text.split()) > 1


@QUICK
@given(words)
def test_header_names_are_lower_case(text):
    name = normalise_header(text)
    assert name is None or name == name.lower()


@QUICK
@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=5))
def test_csv_keeps_every_cell(tmp_path, rows):
    import csv

    path = tmp_path / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("a", "b", "c"), *rows])
    try:
        table = read_table_csv(path, ["a", "b", "c"])
    except DatasetError as error:
        assert path.name in str(error)
        return
    read = [tuple(cell.strip() for cell in row) for row in table.itertuples(index=False, name=None)]
    assert [tuple(normal(cell) for cell in row) for row in read] == [tuple(normal(cell) for cell in row) for row in rows]


def normal(cell: str) -> str:
    """A cell as the reader promises it: without white space at its ends, line ends as they may be."""
    return cell.replace("\r\n", "\n").replace("\r", "\n").strip()


@QUICK
@given(st.binary(max_size=200))
def test_csv_is_a_table_or_refused_by_name(tmp_path, data):
    path = tmp_path / "table.csv"
    path.write_bytes(b"a,b\n" + data)
    try:
        table = read_table_csv(path, ["a"])
    except DatasetError as error:
        assert path.name in str(error)
        return
    assert len(table) >= 1 and list(table.columns) == ["a"]


@QUICK
@given(st.binary(max_size=200))
def test_xml_is_a_report_or_refused(data):
    for document in (
        data,
        b'<eCitation><uId id="CXR1"/><AbstractText Label="FINDINGS">' + data + b"</AbstractText></eCitation>",
    ):
        try:
            study_id, report = _parse(document, "1.xml")
        except DatasetError:
            continue
        assert study_id and all(text and text == " ".join(text.split()) for text in report.sections.values())


@QUICK
@given(st.lists(values, max_size=5), st.sampled_from(["", " ", "\n\n"]))
def test_lines_are_read_as_json_reads_them(tmp_path, records, blank):
    path = tmp_path / "shard.jsonl"
    path.write_text("".join(blank + json.dumps(record) + "\n" for record in records), encoding="utf-8")
    try:
        assert list(read_jsonl(path)) == records
    except DatasetError:
        assert not all(isinstance(record, dict) for record in records)


@QUICK
@given(values)
def test_any_value_is_an_entry_or_has_a_complaint(value):
    complaint = entry_complaint(value, "train")
    assert complaint is None or complaint


@QUICK
@given(
    st.dictionaries(st.sampled_from(["id", "boxes", "scores", "labels", "height", "width", "image_path", "report"]), values)
)
def test_any_change_of_an_entry_is_judged(changes):
    entry = {
        "id": "a",
        "study_id": "s",
        "subject_id": "p",
        "split": "train",
        "report": "x",
        "image_path": ["a.png"],
        "height": 9,
        "width": 9,
        "boxes": [[1, 1, 2, 2]],
        "scores": [0.5],
        "labels": ["Edema"],
    }
    assert entry_complaint(entry, "train") is None
    complaint = entry_complaint(entry | changes, "train")
    assert complaint is None or complaint


@QUICK
@given(st.one_of(st.text(max_size=40), st.text(string.ascii_letters + "./\\ -", max_size=20)))
def test_safe_ids_stay_in_their_folder(name):
    if is_safe_id(name):
        folder = Path("/root")
        assert (folder / f"{name}.png").parent == folder and Path(f"{name}.png").name == f"{name}.png"
        assert len(name.encode()) <= MAX_NAME_BYTES
    if is_path_below(name):
        resolved = Path("/root", name).resolve()
        assert resolved != Path("/root") and resolved.is_relative_to("/root")
