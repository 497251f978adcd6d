"""CSV tables: encodings, header quirks and every way a table can be broken."""

import gzip
import time

import pytest

from d2rnet.errors import DatasetError
from d2rnet.files.csv_tables import csv_columns, read_table_csv


def write(tmp_path, content, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


PLAIN = b"image_id,class_name,x_min\n007,Edema,1.50\n1e5,,\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + PLAIN.replace(b"\n", b"\r\n"),
        gzip.compress(PLAIN),
        PLAIN.replace(b"\n", b"\n\n"),
        PLAIN.replace(b"image_id,", b" image_id ,"),
        PLAIN.rstrip(b"\n"),
    ],
    ids=["plain", "bom", "crlf", "bom_crlf", "gzip", "blank_lines", "spaces_in_header", "no_final_newline"],
)
def test_cells_stay_strings_whatever_the_encoding(tmp_path, content):
    table = read_table_csv(write(tmp_path, content), ["x_min", "image_id"], optional=["class_name", "rad_id"])
    assert table.columns.tolist() == ["x_min", "image_id", "class_name"]
    assert table.to_numpy().tolist() == [["1.50", "007", "Edema"], ["", "1e5", ""]]
    assert table.index.tolist() == [0, 1]


def test_words_that_pandas_takes_for_missing_values_are_kept(tmp_path):
    table = read_table_csv(write(tmp_path, b"image_id,x\nNA,nan\nnull,None\n"), ["image_id", "x"])
    assert table.to_numpy().tolist() == [["NA", "nan"], ["null", "None"]]


def test_nih_box_header_with_unquoted_commas(tmp_path):
    path = write(
        tmp_path, b"Image Index,Finding Label,Bbox [x,y,w,h],,,\n00013118_008.png,Atelectasis,225.08,547.0,86.7,79.1\n"
    )
    assert csv_columns(path) == ["Image Index", "Finding Label", "Bbox [x,y,w,h]", "column 4", "column 5", "column 6"]
    table = read_table_csv(path, ["Image Index", "Bbox [x,y,w,h]", "column 6"])
    assert table.iloc[0].tolist() == ["00013118_008.png", "225.08", "79.1"]


def test_nih_entry_header_with_unquoted_commas_and_as_many_fields_as_the_rows(tmp_path):
    path = write(tmp_path, b"Image Index,OriginalImage[Width,Height],\na.png,2682,2749,\n")
    table = read_table_csv(path, ["Image Index", "OriginalImage[Width", "Height]"])
    assert table.iloc[0].tolist() == ["a.png", "2682", "2749"]


def test_quoted_commas_and_newlines(tmp_path):
    table = read_table_csv(write(tmp_path, b'a,b\n"x, y","1\n2"\nz,3\n'), ["a", "b"])
    assert table.to_numpy().tolist() == [["x, y", "1\n2"], ["z", "3"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["the file is empty"]),
        (b"\xef\xbb\xbf\r\n", ["the file is empty"]),
        (gzip.compress(b""), ["the file is empty"]),
        (gzip.compress(PLAIN)[:-9], ["truncated gzip"]),
        (b"image_id,x_min\n", ["a header and no rows"]),
        (b"image_id,xmin\na,1\n", ["missing column 'x_min' (closest: 'xmin')", "columns found: image_id, xmin"]),
        (b"image_id;x_min\na;1\n", ["missing column", "columns found: image_id;x_min"]),
        (b"image_id,x_min\na,1\nb\n", ["row 2 has 1 field(s): 'b'", "expected 2"]),
        (b"image_id,x_min\na,1\nb,2,3\n", ["row 2 has 3 field(s): 'b,2,3'", "expected 2"]),
        (b"image_id,x_min\na,1,9\nb,2,3\n", ["row 1 has 3 field(s)"]),
        (b"image_id,x_min,x_min\na,1,2\n", ["x_min occur twice"]),
        (b"image_id,x_min\n\xe9,1\n", ["byte 15 is not UTF-8"]),
        (b'image_id,x_min\na,"1\n', ["CSV"]),
    ],
    ids=["empty", "bom_only", "empty_gzip", "cut_gzip", "no_rows", "missing_column", "semicolons", "short_row", "long_row",
         "long_first_row", "repeated_column", "latin_1", "open_quote"],
)  # fmt: skip
def test_broken_table_is_refused_with_its_name(tmp_path, content, words):
    path = write(tmp_path, content)
    with pytest.raises(DatasetError) as error:
        read_table_csv(path, ["image_id", "x_min"])
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_table_csv(tmp_path / "absent.csv", ["a"])


def test_a_header_of_very_many_columns_is_refused_at_once(tmp_path):
    """Each name compared with all others, or with the one that is missing, took minutes."""
    names = ",".join(f"c{number}" for number in range(100_000))
    path = write(tmp_path, f"{names}\n{'1,' * 99_999}1\n".encode())
    started = time.monotonic()
    with pytest.raises(DatasetError, match="a header of 100000 columns; expected at most 10000"):
        read_table_csv(path, ["image_id"])
    assert time.monotonic() - started < 10


def test_a_long_header_is_shown_in_part(tmp_path):
    names = ["long" * 100, *(f"c{number}" for number in range(2_000))]
    path = write(tmp_path, f"{','.join(names)}\n{'1,' * 2_000}1\n".encode())
    with pytest.raises(DatasetError, match=r"columns found: (long){20}, c0, .*c58 and 1941 more") as error:
        read_table_csv(path, ["image_id"])
    assert len(str(error.value)) < 1_000
