"""Malformed tables and reports: CSV, box tables, MIMIC-CXR's folders, Open-i's XML, R2Gen's annotation.json."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import good_files as good
from case_files import damaged_cases, no_files, put, put_link, unnamed
from hostile_case import READ, REFUSED, SET_ASIDE, Case, Make

MIMIC_IDS = ("50000001", "50000002", "50000003")


def csv_cases() -> list[Case]:
    """The table reader itself."""
    name, table = "mimic-cxr-2.0.0-split.csv", good.table(good.SPLIT_HEADER, ["a,1,2,train", "b,3,4,test"])
    rows = lambda *lines: good.table(good.SPLIT_HEADER, list(lines))  # noqa: E731
    found = {
        "a header and no rows": good.table(good.SPLIT_HEADER, []),
        "blank lines only": b"\n\r\n\n",
        "UTF-16 with a byte-order mark": table.decode().encode("utf-16"),
        "UTF-16 without a byte-order mark": table.decode().encode("utf-16-le"),
        "Latin-1": rows("a,1,2,träin").decode().encode("latin-1"),
        "a NUL character in a cell": rows("a,1,2,tr\0ain"),
        "a gzip bomb, 0.1 MB for 63 MB": lambda: gzip.compress(table + b"c,5,6,train\n" * (40 << 20 >> 3), 9),
        "half a gzip file": gzip.compress(table)[:40],
        "a gzip file with a wrong checksum": gzip.compress(table)[:-8] + bytes(8),
        "a zip archive": b"PK\x03\x04" + bytes(100),
        "a column twice": table.replace(b"study_id", b"dicom_id"),
        "a column missing": table.replace(b"study_id", b"studyid"),
        "an HTML login page": b"<!DOCTYPE html><html><body>Please log in</body></html>\n",
        "a header of 100,000 columns": lambda: b"a," * 100_000 + b"b\n" + b"1," * 100_000 + b"1\n",
        "carriage returns alone": table.replace(b"\n", b"\r"),
        "semicolons": table.replace(b",", b";"),
        "a quote that never ends": rows('"a,1,2,train', "b,3,4,test"),
        "a cell of 300,000 characters behind a quote that never ends": rows('"' + "x" * 300_000, "b,3,4,test"),
    }
    cases = [Case("CSV table", what, put(name, data)) for what, data in found.items()]
    cases += [
        Case("CSV table", "a row with a field less", put(name, rows("a,1,2,train", "b,3,4")), record="row 2"),
        Case("CSV table", "a row with a field more", put(name, rows("a,1,2,train", "b,3,4,test,5")), record="row 2"),
        Case("CSV table", "a byte-order mark and CRLF", put(name, b"\xef\xbb\xbf" + table.replace(b"\n", b"\r\n")),
             expected=(READ,), records=2),
        Case("CSV table", "formula cells", put(name, rows('=cmd|\'/C calc\'!A0,1,2,train', '"@SUM(1,2)",3,4,test')),
             expected=(READ,), records=2),
        Case("CSV table", "a line break within quotes", put(name, rows('"a\nb",1,2,train', "c,3,4,test")),
             expected=(READ,), records=2),
    ]  # fmt: skip
    cases += no_files("CSV table", name)
    cases += damaged_cases("CSV table", f"{name}.gz", good.split_table(), seed=21, what="gzip: ")
    return cases + damaged_cases("CSV table", name, table * 5, seed=22)


def box_cases() -> list[Case]:
    """VinDr-CXR's boxes; each bad row is named."""
    name, good_rows = "annotations_train.csv", good.box_rows()

    def row(what: str, line: str, **more: object) -> Case:
        data = good.table(good.BOX_HEADER, [*good_rows, line])
        return Case("box table", what, put(name, data), **({"record": "row 9"} | more))  # type: ignore[arg-type]

    bad_box = {
        "a box of NaN": "nan,nan,nan,nan",
        "an infinite box": "0,0,inf,10",
        "a coordinate of 1e999": "0,0,1e999,10",
        "a coordinate of 5,000 digits": f"0,0,{'9' * 5000},10",
        "corners exchanged": "30,40,10,20",
        "no width": "10,20,10,40",
        "negative corners": "-50,-20,10,40",
        "three corners": "10,20,30,",
        "text for a corner": "10,20,30,<script>",
        "a formula for a corner": '10,20,30,"=1+1"',
        "hexadecimal corners": "0x10,20,0x30,40",
    }
    ids = {
        "an id that climbs out of its folder": "../../etc/passwd",
        "an absolute path for an id": "/etc/passwd",
        "an id that is a Windows path": "..\\..\\x",
        "an id with two full stops": "a..b",
        "an id that begins with a full stop": ".part",
        "an id of 300 characters": "x" * 300,
        "an id with a line break": '"a\nb"',
        "an id with a control character": "a\x1bb",
        "an id that turns the direction of text": "a\u202eb",
        "an empty id": "",
    }
    cases = [row(what, f"img0,R1,Cardiomegaly,{corners}") for what, corners in bad_box.items()]
    cases += [row(what, f"{source_id},R1,Cardiomegaly,1,2,3,4", record="image") for what, source_id in ids.items()]
    cases += [
        row("an unknown class", "img0,R1,Cardiomegalia,1,2,3,4"),
        row("an empty reader", "img0,,Cardiomegaly,1,2,3,4"),
        row("coordinates of 'No finding'", "img0,R1,No finding,1,2,3,4"),
        row("a row twice", good_rows[0], expected=(READ,), records=9),
        row("ids with a leading dash and spaces", "-rf * $(x),R1,Cardiomegaly,1,2,3,4", expected=(READ,), records=9),
    ]
    return cases + damaged_cases("box table", name, good.table(good.BOX_HEADER, good_rows), seed=23)


def mimic(bad: bytes | None = good.REPORT.encode(), place: Make | None = None, **tables: str) -> Make:
    """MIMIC-CXR-JPG with three studies; the report of the third is ``bad`` or made by ``place``."""

    def make(folder: Path) -> Path:
        report = folder / "files"
        for number, study in enumerate(MIMIC_IDS):
            report = folder / f"files/p10/p1000000{number}/s{study}.txt"
            report.parent.mkdir(parents=True)
            if study != MIMIC_IDS[-1] or bad is not None:
                report.write_bytes(bad if study == MIMIC_IDS[-1] and bad is not None else good.REPORT.encode())
        if place is not None:
            place(report.parent)
        lines = [(f"i{number}", study, f"1000000{number}") for number, study in enumerate(MIMIC_IDS)]
        split = [f"{image},{study},{subject},train" for image, study, subject in lines]
        metadata = [f"{image},{study},{subject},PA,60,50" for image, study, subject in lines]
        split_file = folder / "mimic-cxr-2.0.0-split.csv"
        split_file.write_bytes(good.table(good.SPLIT_HEADER, [*split, *tables.get("split", "").splitlines()]))
        header = "dicom_id,study_id,subject_id,ViewPosition,Rows,Columns"
        (folder / "mimic-cxr-2.0.0-metadata.csv").write_bytes(
            good.table(header, [*metadata, *tables.get("metadata", "").splitlines()])
        )
        return report if not tables else folder / f"mimic-cxr-2.0.0-{next(iter(tables))}.csv"

    return make


def mimic_cases() -> list[Case]:
    """Reports are set aside one by one; a bad row of a table stops."""
    last = f"s{MIMIC_IDS[-1]}.txt"
    reports = {
        "no report file": mimic(None),
        "an empty report": mimic(b""),
        "a report of white space": mimic(b" \r\n\t "),
        "a report in UTF-16": mimic(good.REPORT.encode("utf-16")),
        "a report in Latin-1": mimic("FINDINGS: Größe normal.".encode("latin-1")),
        "a report with NUL characters": mimic(b"FINDINGS: clear\0\0\0."),
        "a report of 3 MB": mimic(b"FINDINGS: " + b"x " * (3 << 19)),
        "a folder in place of a report": mimic(None, lambda folder: (folder / last).mkdir()),
        "a pipe in place of a report": mimic(None, lambda folder: os.mkfifo(folder / last)),
        "a link to an endless device for a report": mimic(None, put_link(last, "/dev/zero")),
        "a link in a circle for a report": mimic(None, put_link(last, last)),
    }
    rows = {
        "an id that climbs out of its folder": {"split": "../../x,50000009,10000009,train"},
        "a study id that is a path": {"split": "i9,../../5,10000009,train"},
        "a study id in other digits": {"split": "i9,\uff15\uff10,10000009,train"},
        "an unknown split": {"split": "i9,50000009,10000009,holdout"},
        "an image twice": {"split": "i0,50000001,10000000,train"},
    }
    across = {
        "a patient in two splits": ({"split": "i9,50000009,10000000,test"}, "subject_id 10000000"),
        "an image without metadata": ({"split": "i9,50000009,10000009,train"}, "metadata.csv: image i9"),
    }
    sizes = {"negative rows": "-60", "rows of 10^30": "1e30", "rows that are no number": "sixty", "infinite rows": "inf"}
    extra = {"split": "i9,50000009,10000009,train"}
    cases = [Case("MIMIC-CXR", what, make, record=last, expected=(SET_ASIDE,), records=3) for what, make in reports.items()]
    cases += [Case("MIMIC-CXR", what, mimic(**tables), record="mimic-cxr-2.0.0") for what, tables in rows.items()]
    cases += [Case("MIMIC-CXR", what, unnamed(mimic(**tables)), record=name) for what, (tables, name) in across.items()]
    cases += [
        Case("MIMIC-CXR", what, mimic(**{"metadata": f"i9,50000009,10000009,PA,{size},50", **extra}), record="row 4")
        for what, size in sizes.items()
    ]
    texts = {
        "a report that is one line of 500,000 characters": b"FINDINGS: " + b"word " * 100_000,
        "a report of 20,000 headers": b"FINDINGS:\n" * 20_000 + b"clear.",
        "a report of full stops and blanks": (b"." + b" " * 2000) * 200,
        "a report with script and formula": b"FINDINGS: <script>alert(1)</script> =1+1 clear.",
    }
    return cases + [Case("MIMIC-CXR", what, mimic(text), expected=(READ,), records=3) for what, text in texts.items()]


def openi_folder(data: bytes | None, place: Make | None = None) -> Make:
    """Three good reports with their images, and a fourth document."""

    def make(folder: Path) -> Path:
        reports = folder / "ecgen-radiology"
        reports.mkdir()
        for number in (1, 2, 3):
            (reports / f"{number}.xml").write_bytes(good.xml(number))
        for number in (1, 2, 3, 4):
            (folder / f"CXR{number}_IM-2145-1001.png").write_bytes(good.raster("PNG"))
        if data is not None:
            (reports / "4.xml").write_bytes(data)
        if place is not None:
            place(reports)
        return reports / "4.xml"

    return make


def openi_archive(*, link: bool = False, cut: int = 0, damage: bool = False, escape: bool = False) -> Make:
    """The packed collection of three good reports, with something wrong."""

    def make(folder: Path) -> Path:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for number in (1, 2, 3):
                member = tarfile.TarInfo(f"{'../../' if escape else ''}ecgen-radiology/{number}.xml")
                data = good.xml(number)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
                (folder / f"CXR{number}_IM-2145-1001.png").write_bytes(good.raster("PNG"))
            if link:
                member = tarfile.TarInfo("ecgen-radiology/4.xml")
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(member)
        data = buffer.getvalue()
        data = data[:-cut] if cut else data
        data = data[:30] + b"\xff\xff\xff" + data[33:] if damage else data
        (folder / "NLMCXR_reports.tgz").write_bytes(data)
        return folder / "NLMCXR_reports.tgz"

    return make


def openi_cases() -> list[Case]:
    """A document that cannot be trusted is set aside unparsed."""
    laughs = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9)
    )
    deep = "<b>" * 50_000 + "</b>" * 50_000
    documents = {
        "XML with a billion laughs": good.xml(4, "&j;", laughs + "]>"),
        "XML with an outside entity": good.xml(4, "&x;", '<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
        "XML cut off": good.xml(4)[:120],
        "XML in UTF-16": good.xml(4).decode().encode("utf-16"),
        "XML with a NUL character": good.xml(4, "cle\0ar"),
        "XML with half a surrogate pair": good.xml(4, "&#xD800;"),
        "XML with an unknown entity": good.xml(4, "&nbsp;"),
        "XML of 3 MB": good.xml(4, "x" * 3_000_000),
        "XML without an id": good.xml(4).replace(b'<uId id="CXR4"/>', b""),
        "XML whose id is a path": good.xml(4).replace(b'"CXR4"', b'"../../CXR4"'),
        "an empty document": b"",
        "no XML": b"%PDF-1.7",
    }
    cases = [
        Case("Open-i", what, openi_folder(data), record="declares a document" if b"<!DOCTYPE" in data else "4.xml",
             expected=(SET_ASIDE,), records=4)
        for what, data in documents.items()
    ]  # fmt: skip
    for what, place in {
        "a folder named like a report": lambda folder: (folder / "4.xml").mkdir(),
        "a pipe named like a report": lambda folder: os.mkfifo(folder / "4.xml"),
        "a link to nowhere named like a report": put_link("4.xml", "nowhere"),
    }.items():
        cases.append(
            Case("Open-i", what, openi_folder(None, place), record="4.xml", expected=(SET_ASIDE,), records=4)  # type: ignore[arg-type]
        )
    cases += [
        Case("Open-i", "elements 50,000 deep", openi_folder(good.xml(4, deep)), expected=(READ, SET_ASIDE), records=4),
        Case("Open-i", "a link in the archive", openi_archive(link=True), expected=(SET_ASIDE,), record="4.xml", records=4),
        Case("Open-i", "members that climb out of the archive", openi_archive(escape=True), expected=(READ,), records=3),
        Case("Open-i", "an archive cut off", openi_archive(cut=60)),
        Case("Open-i", "an archive with damaged bytes", openi_archive(damage=True)),
    ]
    for damage in damaged_cases("Open-i", "4.xml", good.xml(4), seed=31, what="XML: "):
        place = damage.make
        wrapped = openi_folder(None, lambda folder, place=place: place(folder))  # type: ignore[misc]
        cases.append(Case("Open-i", damage.name, wrapped, record="4.xml", expected=(SET_ASIDE, READ, REFUSED)))
    return cases


def r2gen_cases() -> list[Case]:
    """Each bad entry of an R2Gen file is named."""

    def entry(what: str, **changes: object) -> Case:
        content = good.annotation()
        content["train"].append({**content["train"][0], "id": "train2", "study_id": "s9", "subject_id": "p9", **changes})
        return Case("R2Gen annotation", what, put("annotation.json", good.as_json(content)), record="train[1]")

    found = [
        entry("a path that climbs out of the root", image_path=["../../etc/passwd"]),
        entry("an absolute path", image_path=["/etc/passwd"]),
        entry("a path with a NUL character", image_path=["a\0b.jpg"]),
        entry("a path that is a list", image_path=[["a.jpg"]]),
        entry("no path", image_path=[]),
        entry("an id with '..'", id="a..b"),
        entry("an id that is an object", id={"a": 1}),
        entry("an id of 300 characters", id="x" * 300),
        entry("a report that is a number", report=3),
        entry("a split of another list", split="test"),
        entry("an image that was there before", id="train1"),
    ]
    whole = good.as_json(good.annotation())
    return found + damaged_cases("R2Gen annotation", "annotation.json", whole, seed=32)


def cases() -> list[Case]:
    """All of them."""
    return [*csv_cases(), *box_cases(), *mimic_cases(), *openi_cases(), *r2gen_cases()]
