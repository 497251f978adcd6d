"""CSV tables of the data sets, read as text: byte-order mark, CRLF, gzip and unquoted commas in headers are understood.

Every cell stays a string, so that an identifier such as ``00013118_008`` or ``50414267`` is never read as a number.
Used by every labelled and report source; nothing is written.
"""

import csv
import difflib
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from d2rnet.errors import DatasetError
from d2rnet.files.documents import check_regular_file

MAX_TABLE_BYTES = 1 << 30  # unpacked; MIMIC-CXR's largest has 0.06 GB
MAX_COLUMNS = 10_000
MAX_EXPANSION = 200  # a gzip file that unpacks to more times its size is no table; real ones reach 20
SHOWN_COLUMNS = 60  # of a header in a message
SHOWN_CHARACTERS = 80
_UNPACK_AT_ONCE = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_COMMA_IN_BRACKETS = re.compile(r",(?=[^\[\]]*\])")


def read_table_csv(path: str | Path, columns: Sequence[str], *, optional: Sequence[str] = ()) -> pd.DataFrame:
    """Read columns of a CSV file (plain or gzip) as strings.

    Args:
        path: CSV file with one header line.
        columns: columns that must be there.
        optional: columns taken along where they are there.

    Returns:
        One row per record in file order, index 0, 1, ... (record ``i`` is "row i + 1" in messages). Columns: ``columns``, then
        those of ``optional`` that exist. Cells are strings without surrounding white space, "" where empty.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: no regular file, empty, a header without rows, not UTF-8, a NUL character, a damaged gzip or one that
            unpacks beyond measure, a missing or repeated column, or a record with too few or too many fields.
    """
    path = Path(path)
    text = _read_text(path)
    names, body = _split_header(path, text)
    _require_columns(path, names, columns)
    wanted = [*columns, *(name for name in optional if name in names)]
    try:
        table = pd.read_csv(
            io.StringIO(body), header=None, names=range(len(names)), dtype=str, keep_default_na=False, skipinitialspace=True
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        _check_widths(path, names, body)
        raise DatasetError(f"{path}: not a CSV table ({error}).") from error
    if (table.iloc[:, -1] == "").any():  # pandas fills up short records in silence
        _check_widths(path, names, body)
    kept = table[[names.index(name) for name in wanted]]
    kept.columns = pd.Index(wanted)
    return kept.apply(lambda column: column.str.strip())


def csv_columns(path: str | Path) -> list[str]:
    """Return the column names of a CSV file (plain or gzip); same errors as :func:`read_table_csv`."""
    path = Path(path)
    return _split_header(path, _read_text(path))[0]


def _read_text(path: Path) -> str:
    check_regular_file(path)
    size = path.stat().st_size
    if size > MAX_TABLE_BYTES:
        raise DatasetError(f"{path}: got {size} bytes; expected a table of at most {MAX_TABLE_BYTES}. Take the original file.")
    data: bytes | bytearray = path.read_bytes()
    if data.startswith(_GZIP_MAGIC):
        data = _unpack(path, size)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: byte {error.start} is not UTF-8; expected a UTF-8 CSV file. Save it as UTF-8 or download it again."
        ) from error
    if "\0" in text:  # the parser would end the cell there in silence
        row = text.count("\n", 0, text.index("\0"))
        raise DatasetError(f"{path}: a NUL character in row {row} (0: the header); expected text. Download it again.")
    return text


def _unpack(path: Path, packed_bytes: int) -> bytearray:
    """Unpack a gzip file as far as a table may go.

    Raises:
        DatasetError: damaged, or it unpacks to more than a table can have.
    """
    most = min(MAX_TABLE_BYTES, max(16 * _UNPACK_AT_ONCE, MAX_EXPANSION * packed_bytes))
    data = bytearray()
    try:
        with gzip.open(path) as stream:
            while part := stream.read(_UNPACK_AT_ONCE):
                data += part
                if len(data) > most:
                    raise DatasetError(
                        f"{path}: {packed_bytes} bytes of gzip unpack to more than {most}; expected a table of text, which "
                        "shrinks far less. Download it again."
                    )
    except (EOFError, OSError, zlib.error) as error:
        raise DatasetError(f"{path}: damaged or truncated gzip file ({error}). Download it again.") from error
    return data


def _split_header(path: Path, text: str) -> tuple[list[str], str]:
    """Return column names and the text below the header.

    NIH ships ``Bbox [x,y,w,h],,,`` without quotes: six columns, of which a plain parser makes nine. The reading of the header
    that has as many fields as the first record is taken.
    """
    if not text.strip():
        raise DatasetError(f"{path}: the file is empty; expected a CSV table with a header line. Download it again.")
    header, _, body = text.lstrip("\r\n").partition("\n")
    header = header.rstrip("\r")
    if not body.strip():
        raise DatasetError(f"{path}: the table has a header and no rows. Download it again.")
    width = len(next(_records(path, body.lstrip("\r\n"))))
    plain = next(_records(path, header))
    if len(plain) > MAX_COLUMNS:
        raise DatasetError(
            f"{path}: a header of {len(plain)} columns; expected at most {MAX_COLUMNS}. Take the original file."
        )
    joined = [name.replace("\0", ",") for name in next(_records(path, _COMMA_IN_BRACKETS.sub("\0", header)))]
    names = joined if len(plain) != width and len(joined) == width else plain
    if len(names) != width:
        _check_widths(path, names, body)
    names = [name.strip() or f"column {position}" for position, name in enumerate(names, start=1)]
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise DatasetError(f"{path}: column name(s) {_listed(repeated)} occur twice; columns found: {_listed(names)}.")
    return names, body


def _require_columns(path: Path, names: list[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in names]
    if not missing:
        return
    hints = []
    for column in missing:
        close = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
        hints.append(f"'{column}'" + (f" (closest: '{close[0]}')" if close else ""))
    raise DatasetError(
        f"{path}: missing column {', '.join(hints)}; columns found: {_listed(names)}. "
        "Rename the column or take the original file."
    )


def _check_widths(path: Path, names: list[str], body: str) -> None:
    """Raise for the first record whose number of fields is not the header's."""
    for row, fields in enumerate(_records(path, body), start=1):
        if len(fields) != len(names):
            raise DatasetError(
                f"{path}: row {row} has {len(fields)} field(s): {','.join(fields)[:80]!r}; expected {len(names)} "
                f"({_listed(names)}). The file may be truncated; download it again."
            )


def _listed(names: Sequence[str]) -> str:
    """Return the first names of a header; a file that is no table may have a million of any length."""
    rest = f" and {len(names) - SHOWN_COLUMNS} more" if len(names) > SHOWN_COLUMNS else ""
    return ", ".join(name[:SHOWN_CHARACTERS] for name in names[:SHOWN_COLUMNS]) + rest


def _records(path: Path, text: str) -> Iterator[list[str]]:
    """Yield the fields of each record that is not a blank line.

    Raises:
        DatasetError: the text is no CSV (a field of more than 131,072 characters, the sign of a quote that never ends).
    """
    records = 0
    try:
        for fields in filter(None, csv.reader(io.StringIO(text))):
            yield fields
            records += 1
    except csv.Error as error:
        raise DatasetError(f"{path}: not a CSV table behind {records} record(s) ({error}). Download it again.") from error
