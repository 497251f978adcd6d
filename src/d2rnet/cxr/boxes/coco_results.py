"""COCO results files read as a stream: however long the list and whatever its layout, a chunk of it is in memory at a time.

Reads: COCO results json (``image_id, category_id, bbox, score``). Writes: nothing. What the records say is checked by their
readers, d2rnet.cxr.annotation.predictions and d2rnet.cxr.detector.results.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from d2rnet.errors import DatasetError
from d2rnet.files.documents import check_regular_file
from d2rnet.files.parsing import ParseError, guarded, parse_json, unique_keys

CHUNK_CHARACTERS = 1 << 20
REMEDY = "Run 'd2rnet predict-boxes' again for this shard."
_OPENING = re.compile(r"\s*\[\s*(\]?)")
_SEPARATOR = re.compile(r"\s*([,\]])\s*")


def iterate_results(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a COCO results list without holding the file in memory, however it is laid out.

    Raises:
        DatasetError: not UTF-8, not a JSON list of objects, or cut off; the message names the record.
    """
    check_regular_file(path)
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as stream:
            for number, record in enumerate(_iterate_list(stream), start=1):
                if not isinstance(record, dict):
                    raise DatasetError(f"{path}: record {number} is {repr(record)[:300]}; expected an object. {REMEDY}")
                yield record
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 after record {number} ({error.reason}). {REMEDY}") from error
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path}: not a COCO results list, or cut off after record {number} ({error.msg}). {REMEDY}"
        ) from error
    except ParseError as error:
        raise DatasetError(f"{path}: record {number + 1} cannot be used: {error}. {REMEDY}") from error


def _iterate_list(stream: TextIO) -> Iterator[Any]:
    """Yield the items of a JSON list, reading the stream in chunks; an item is shorter than a chunk."""
    decoder = json.JSONDecoder(object_pairs_hook=unique_keys)
    buffer = stream.read(CHUNK_CHARACTERS)
    opening = _OPENING.match(buffer)
    if opening is None:
        raise json.JSONDecodeError("it does not start with '['", buffer[:20], 0)
    position = opening.end()
    if opening[1]:
        _check_nothing_left(buffer[position:], stream)
        return
    is_fresh = True
    while True:
        if is_fresh:
            items, position = _whole_items(buffer, position)
            yield from items
            is_fresh = False
        try:
            item, end = guarded(decoder.raw_decode, buffer, position)
            separator = _SEPARATOR.match(buffer, end)
            if separator is None:
                raise json.JSONDecodeError("expected ',' or ']'", buffer[position:end], end - position)
        except json.JSONDecodeError:
            more = stream.read(CHUNK_CHARACTERS) if len(buffer) - position < CHUNK_CHARACTERS else ""
            if not more:
                raise
            buffer, position, is_fresh = (buffer[position:] + more).lstrip(), 0, True
            continue
        yield item
        position = separator.end()
        if separator[1] == "]":
            _check_nothing_left(buffer[position:], stream)
            return


def _whole_items(buffer: str, position: int) -> tuple[list[Any], int]:
    """Parse at once what ends before the last "}," of a buffer, five times faster than one by one; return what follows, too.

    Where those two characters are inside an item, or anything is wrong, brackets or quotes stay open and nothing is taken: one
    by one, what is wrong is found and named.
    """
    cut = buffer.rfind("},", position) + 1
    separator = _SEPARATOR.match(buffer, cut) if cut else None
    if separator is None:
        return [], position
    try:
        return parse_json(f"[{buffer[position:cut]}]"), separator.end()
    except ValueError:
        return [], position


def _check_nothing_left(buffer: str, stream: TextIO) -> None:
    """Raise if anything but white space follows the list: two files written into one would lose the second."""
    while buffer:
        if rest := buffer.strip():
            raise json.JSONDecodeError("text behind the end of the list", rest[:20], 0)
        buffer = stream.read(CHUNK_CHARACTERS)
