"""Malformed JSON: COCO, annotation.json, predictions, reports, thresholds, vocabulary; and settings files in YAML."""

import copy
import json
from typing import Any

import good_files as good
from case_files import damaged_cases, no_files, put, unnamed
from hostile_case import READ, Case, Make

from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.text.vocabulary import count_vocabulary

UNLABELLED = {"good_unlabelled__json": good.as_json(good.unlabelled())}
ANNOTATION = {"good_annotation__json": good.as_json(good.annotation())}
DIGITS = "9" * 5000
NOT_A_RECORD = ("an image id of 5,000 digits", "a record that is a list", "a key twice", "a record 90,000 brackets deep")
OF_A_DOCUMENT = ("cut off", "text behind its end", "UTF-16")


def classics(reader: str, name: str, value: Any, **others: bytes) -> list[Case]:
    """Cases that every JSON reader meets, made from a good value."""
    text = json.dumps(value)
    found = {
        "100,000 brackets deep": b"[" * 100_000,
        "200,000 keys, one of them twice": b"{" + b",".join(b'"k%d":1' % (key % 199_999) for key in range(200_000)) + b"}",
        "objects 50,000 deep": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "cut off": text[: len(text) // 2].encode(),
        "text behind its end": text.encode() + b" and more",
        "UTF-16": text.encode("utf-16"),
        "Latin-1": '{"key": "Größe"}'.encode("latin-1"),
        "a number at the top": b"3",
        "a list of lists": b"[[1], [2]]",
        "single quotes": text.replace('"', "'").encode(),
    }
    return [Case(reader, what, put(name, data, **others)) for what, data in found.items()]


def changed(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    """A deep copy with one place changed; ``...`` removes it."""
    copied = copy.deepcopy(value)
    place = copied
    for key in path[:-1]:
        place = place[key]
    if new is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return copied


def raw(value: Any, path: tuple[str | int, ...], text: str) -> bytes:
    """JSON with a place filled by any text, JSON or not."""
    return json.dumps(changed(value, path, "@@")).replace('"@@"', text).encode()


def coco_cases() -> list[Case]:
    """COCO files of this package and of others."""
    value, cases = good.coco(), []
    box, image = ("annotations", 1, "bbox"), ("images", 1)
    changes: dict[str, tuple[tuple[str | int, ...], str]] = {
        "a box with NaN": (box, "[NaN, 1, 2, 3]"),
        "an infinite box": (box, "[0, 0, Infinity, 3]"),
        "a box of negative width": (box, "[5, 5, -3, 3]"),
        "a box of 10^400": (box, f"[0, 0, {'9' * 400}, 3]"),
        "a box of 5,000 digits": (box, f"[0, 0, {DIGITS}, 3]"),
        "a box of text": (box, '["0", "0", "1", "1"]'),
        "a box of truth values": (box, "[true, true, true, true]"),
        "a box of three numbers": (box, "[1, 2, 3]"),
        "a box that is null": (box, "null"),
        "no pixels in height": ((*image, "height"), "0"),
        "a negative width": ((*image, "width"), "-50"),
        "a height of 10^12": ((*image, "height"), "1000000000000"),
        "a height of text": ((*image, "height"), '"60"'),
        "a fractional height": ((*image, "height"), "60.5"),
        "a file name that climbs out": ((*image, "file_name"), '"../../../etc/passwd"'),
        "a file name of 5,000 characters": ((*image, "file_name"), f'"{"a" * 5_000}.png"'),
        "an absolute file name": ((*image, "file_name"), '"/etc/passwd"'),
        "a file name with a NUL character": ((*image, "file_name"), '"a\\u0000.png"'),
        "a file name with half a surrogate pair": ((*image, "file_name"), '"a\\ud800.png"'),
        "a file name that is a list": ((*image, "file_name"), "[]"),
        "an image id that is a list": ((*image, "id"), "[1]"),
        "an image id that is null": ((*image, "id"), "null"),
        "an image id twice": ((*image, "id"), "1"),
        "a box of an unknown image": (("annotations", 1, "image_id"), "77"),
        "a box of an image id that is an object": (("annotations", 1, "image_id"), "{}"),
        "a box of an unknown class": (("annotations", 1, "category_id"), "77"),
        "categories that are no list": (("categories",), '{"1": "a"}'),
        "an image that is null": (image, "null"),
    }
    for reader in ("COCO, own", "COCO, foreign"):
        for what, (path, text) in changes.items():
            cases.append(Case(reader, what, put("boxes.json", raw(value, path, text))))
        cases += classics(reader, "boxes.json", value)
    twice = json.dumps(value).replace('"images"', '"images": [], "images"', 1).encode()
    cases += [
        Case("COCO, own", "the key 'images' twice", put("boxes.json", twice)),
        Case("COCO, own", "a byte-order mark", put("boxes.json", b"\xef\xbb\xbf" + good.as_json(value))),
        Case("COCO, own", "another class table", put("boxes.json", raw(value, ("categories", 0, "name"), '"Lung"'))),
        Case("COCO, foreign", "a class that is an object", put("boxes.json", raw(value, ("categories", 3, "name"), "{}"))),
        Case("COCO, foreign", "a source id that climbs out",
             unnamed(put("boxes.json", raw(value, ("images", 1, "source_id"), '"../x"'))), record="../x"),
        *no_files("COCO, own", "boxes.json"),
    ]  # fmt: skip
    return cases + damaged_cases("COCO, own", "boxes.json", good.as_json(value), seed=41)


def annotation_cases() -> list[Case]:
    """annotation.json; each bad entry is named."""
    name, value = "annotation.json", good.annotation()
    entry = ("val", 0)
    changes: dict[str, tuple[tuple[str | int, ...], str]] = {
        "a box with NaN": ((*entry, "boxes"), "[[NaN, 1, 2, 3]]"),
        "a box outside its image": ((*entry, "boxes"), "[[40, 1, 20, 3]]"),
        "a box of 10^400": ((*entry, "boxes"), f"[[0, 0, {'9' * 400}, 3]]"),
        "a score of 2": ((*entry, "scores"), "[2]"),
        "a score that is NaN": ((*entry, "scores"), "[NaN]"),
        "a score that is true": ((*entry, "scores"), "[true]"),
        "a score less than boxes": ((*entry, "scores"), "[]"),
        "an unknown class": ((*entry, "labels"), '["Cardiomegalia"]'),
        "a class that is a list": ((*entry, "labels"), "[[]]"),
        "a path that climbs out": ((*entry, "image_path"), '["../../etc/passwd"]'),
        "an absolute path": ((*entry, "image_path"), '["/etc/passwd"]'),
        "a path with a NUL character": ((*entry, "image_path"), '["a\\u0000b"]'),
        "a path that is a number": ((*entry, "image_path"), "[3]"),
        "no height": ((*entry, "height"), "0"),
        "a height of 10^15": ((*entry, "height"), "1000000000000000"),
        "a report that is null": ((*entry, "report"), "null"),
        "an id that is a number": ((*entry, "id"), "3"),
        "an id of another split": ((*entry, "id"), '"train1"'),
        "the entry of another split": ((*entry, "split"), '"test"'),
        "an entry that is a text": (entry, '"<script>"'),
    }
    record = "val[0]"
    cases = [Case("annotation.json", what, put(name, raw(value, *change)), record=record) for what, change in changes.items()]
    cases += [
        Case("annotation.json", "an unknown split", put(name, good.as_json({**value, "dev": []})), record="dev"),
        Case("annotation.json", "the key 'val' twice",
             put(name, json.dumps(value).replace('"val"', '"val": [], "val"', 1).encode()), record="'val'"),
        Case("annotation.json", "half a surrogate pair in a report", put(name, raw(value, (*entry, "report"), '"\\udfff"'))),
        Case("annotation.json", "script and formula in a report",
             put(name, raw(value, (*entry, "report"), '"=1+1 <script>alert(1)</script>"')), expected=(READ,), records=3),
        *no_files("annotation.json", name),
        *classics("annotation.json", name, value),
    ]  # fmt: skip
    return cases + damaged_cases("annotation.json", name, good.as_json(value), seed=42)


def prediction_cases() -> list[Case]:
    """Boxes as JSON lines, a COCO result each."""
    name, value = "shard.jsonl", good.predictions()
    changes: dict[str, tuple[tuple[str | int, ...], str]] = {
        "a box with NaN": ((4, "bbox"), "[NaN, 1, 2, 3]"),
        "a box of another frame": ((4, "bbox"), "[400, 1, 20, 3]"),
        "a box of negative height": ((4, "bbox"), "[4, 1, 20, -3]"),
        "a score of 7": ((4, "score"), "7"),
        "a score that is NaN": ((4, "score"), "NaN"),
        "an unknown image": ((4, "image_id"), "99"),
        "an unknown class": ((4, "category_id"), "99"),
        "an image id of 10^30": ((4, "image_id"), "1" + "0" * 30),
        "an image id of 5,000 digits": ((4, "image_id"), DIGITS),
        "an image id of text": ((4, "image_id"), '"1"'),
        "a box that is null": ((4, "bbox"), "null"),
        "a record that is a list": ((4,), "[]"),
        "a key twice": ((4, "score"), '0.5, "score": 0.6'),
        "a record 90,000 brackets deep": ((4, "bbox"), "[" * 90_000 + "]" * 90_000),
    }
    cases = []
    for what, ((place, *key), text) in changes.items():
        broken = raw(value[place], tuple(key), text) if key else text.encode()
        data = lines(value[:place]) + broken + b"\n" + lines(value[place + 1 :])
        record = "line 5" if what in NOT_A_RECORD else "record 5"
        cases.append(Case("predictions", what, put(name, data, **UNLABELLED), record=record))
    long = b'{"image_id": 1, "category_id": 4, "score": 0.5, "bbox": [1, 1, 2, 2], "note": "' + b"x" * (65 << 20) + b'"}'
    cases += [
        Case("predictions", "a record of 65 MB", put(name, long, **UNLABELLED)),
        Case("predictions", "blanks only", put(name, b" " * 100_000, **UNLABELLED)),
        Case("predictions", "cut off", put(name, lines(value)[:-9], **UNLABELLED), record="line 6"),
        Case("predictions", "text behind its end", put(name, lines(value)[:-1] + b" and more", **UNLABELLED), record="line 6"),
        Case("predictions", "UTF-16", put(name, lines(value).decode().encode("utf-16"), **UNLABELLED)),
        *(case for case in classics("predictions", name, value, **UNLABELLED)[1:] if case.name not in OF_A_DOCUMENT),
    ]
    return cases + damaged_cases("predictions", name, lines(value), seed=43, **UNLABELLED)


def lines(records: list[Any]) -> bytes:
    """JSON lines."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def stage_cases() -> list[Case]:
    """The files between conversion, annotation and scores."""
    cases = []
    for what, change in {
        "a study id that is a list": ((1, "study_id"), []),
        "an unknown split": ((1, "split"), "dev"),
        "images that are a text": ((1, "images"), "i2"),
        "images that are numbers": ((1, "images"), [2]),
        "no report": ((1, "report"), ...),
        "a report that is a number": ((1, "report"), 3),
        "a study twice": ((1, "study_id"), "s1"),
    }.items():
        data = good.as_lines(changed(good.reports(), *change))
        cases.append(Case("reports.jsonl", what, put("reports.jsonl", data, **UNLABELLED), record="record 2"))
    lines = good.as_lines(good.reports())
    for what, data in {
        "a line cut off": lines[:-20],
        "a line that is a list": lines + b"[]\n",
        "a line 100,000 brackets deep": lines + b"[" * 100_000,
        "a line with a key twice": lines + b'{"a": 1, "a": 2}\n',
        "a line that is not UTF-8": lines + b'{"a": "\xff"}\n',
        "half a surrogate pair": lines + b'{"a": "\\ud800"}\n',
    }.items():
        cases.append(Case("reports.jsonl", what, put("reports.jsonl", data, **UNLABELLED), record="line"))
    for what, change in {
        "an id beyond 64 bits": (("images", 1, "id"), 2**70),
        "a source id that is a list": (("images", 1, "source_id"), [1]),
        "a study id that is a number": (("images", 1, "study_id"), 7),
        "no original height": (("images", 1, "source_height"), 0),
        "an original height that is null": (("images", 1, "source_height"), None),
        "a missing split": (("images", 1, "split"), ...),
    }.items():
        cases.append(Case("unlabelled.json", what, put("unlabelled.json", good.as_json(changed(good.unlabelled(), *change)))))
    pairs = [{"id": f"{split}1", "reference": "heart .", "hypothesis": "heart ."} for split in ("test",)]
    for what, change in {
        "an unknown id": ((0, "id"), "other"),
        "an id that is a list": ((0, "id"), [1]),
        "an empty reference": ((0, "reference"), " "),
        "a hypothesis that is null": ((0, "hypothesis"), None),
    }.items():
        data = good.as_lines(changed(pairs, *change))
        cases.append(Case("generated reports", what, put("test.jsonl", data, **ANNOTATION), record="report 1"))
    return cases


def small_documents() -> list[Case]:
    """thresholds.json and vocabulary.json."""
    classes = {name: {"threshold": 0.5} for name in CATEGORY_NAMES}
    table: dict[str, Any] = {"split": "val", "classes": classes, "detector": {"sha256": "0"}}
    cases = []
    for what, change in {
        "a threshold of 2": (("classes", "Cardiomegaly", "threshold"), 2),
        "a threshold that is NaN": (("classes", "Cardiomegaly", "threshold"), float("nan")),
        "a class less": (("classes", "Cardiomegaly"), ...),
        "classes that are a list": (("classes",), []),
        "chosen on training reports": (("split",), "train"),
    }.items():
        cases.append(Case("thresholds.json", what, put("thresholds.json", good.as_json(changed(table, *change)))))
    words = count_vocabulary(["heart large .", "no effusion ."], protocol="r2gen", section="findings", min_token_count=1)
    content = {
        "format": "d2rnet-vocabulary-1", "protocol": "r2gen", "section": "findings", "min_token_count": 1,
        "hash": words.hash, "tokens": list(words.tokens), "counts": list(words.counts),
    }  # fmt: skip
    for what, change in {
        "tokens that are a text": (("tokens",), "abc"),
        "a token that is a list": (("tokens", 5), []),
        "a token with a blank": (("tokens", 5), "a b"),
        "a token twice": (("tokens", 5), "."),
        "other special tokens": (("tokens", 0), "<padding>"),
        "a count less": (("counts", 5), ...),
        "a count of text": (("counts", 5), "3"),
        "a protocol that is a list": (("protocol",), []),
        "tokens in another order": (("tokens",), [*words.tokens[:4], *reversed(words.tokens[4:])]),
    }.items():
        cases.append(Case("vocabulary.json", what, put("vocabulary.json", good.as_json(changed(content, *change)))))
    whole = good.as_json(content)
    return [
        *cases,
        *classics("vocabulary.json", "vocabulary.json", content),
        *damaged_cases("vocabulary.json", "vocabulary.json", whole, seed=44),
    ]


def settings_cases() -> list[Case]:
    """A YAML file for --settings."""

    def yaml_file(text: str | bytes) -> Make:
        return put("mine.yaml", text.encode() if isinstance(text, str) else text)

    laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
    )
    found = {
        "a billion laughs through aliases": laughs,
        "an alias that contains itself": "max_boxes: &a [*a]\n",
        "a tag that calls a function": "max_boxes: !!python/object/apply:os.system ['touch /tmp/hostile']\n",
        "a key twice": "max_boxes: 3\nmax_boxes: 4\n",
        "an unknown key": "max_boxs: 3\n",
        "a number of 5,000 digits": f"max_boxes: {DIGITS}\n",
        "an impossible date": "max_boxes: 2001-99-99\n",
        "a list at the top": "- 1\n- 2\n",
        "lists 1,500 deep": "[" * 1500,
        "a tab for indentation": "max_boxes:\n\t3\n",
        "NaN for a threshold": "score_threshold: .nan\n",
        "an infinite number of boxes": "max_boxes: .inf\n",
        "UTF-16": "max_boxes: 3\n".encode("utf-16"),
        "a control character": "max_boxes: \x01\n",
        "bytes that are no text": b"\xff\xfe\x00\x01" * 10,
    }
    return [Case("settings file", what, yaml_file(text)) for what, text in found.items()]


def cases() -> list[Case]:
    """All of them."""
    return [
        *coco_cases(), *annotation_cases(), *prediction_cases(), *stage_cases(), *small_documents(), *settings_cases(),
    ]  # fmt: skip
