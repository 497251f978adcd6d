"""Nothing of a DICOM header beyond geometry and view leaves the readers: names and dates are planted, then searched for."""

import io
import json
import logging

import good_files as good
import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import DicomDictionary
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import JPEGBaseline8Bit

from d2rnet.cli import entry as cli
from d2rnet.files.documents import read_jsonl

NAME, DATE, TIME = "ZZSECRET", "19610704", "235901"
SECRETS = (NAME.lower().encode(), DATE.encode(), b"1961-07-04", TIME.encode(), b"23:59:01")
TEXTS = dict.fromkeys(("AE", "LO", "SH", "ST", "LT", "UT", "UC", "CS"), NAME)
PLANTED = TEXTS | {"PN": f"{NAME}^Jane", "DA": DATE, "TM": TIME, "DT": DATE + TIME, "AS": "061Y", "UI": f"2.25.{DATE}{TIME}"}
NEEDED_GROUPS = (0x0000, 0x0002, 0x0028)  # not of a file; how the file and its pixels are written
KEPT = {Tag("ViewPosition"), Tag("SOPClassUID")}


def planted(copy: int = 0) -> Dataset:
    """A radiograph with a name or a date in every text element that the standard knows, and in private ones.

    ``copy`` makes it another file and instance: copies of one radiograph in two splits are refused.
    """
    dataset = dcmread(io.BytesIO(good.dicom(ViewPosition="PA")))
    for number, (vr, multiplicity, *_) in DicomDictionary.items():
        tag = Tag(number)
        if vr in PLANTED and tag.group not in NEEDED_GROUPS and tag not in KEPT and multiplicity:
            dataset.add_new(tag, vr, PLANTED[vr])
    private = dataset.private_block(0x0029, NAME, create=True)
    private.add_new(0x01, "LO", NAME)
    dataset.InstanceNumber = copy
    dataset.SOPInstanceUID = f"2.25.{DATE}{TIME}{copy}"
    dataset.RequestAttributesSequence = [Dataset()]
    dataset.RequestAttributesSequence[0].RequestedProcedureDescription = NAME
    dataset.file_meta.SourceApplicationEntityTitle = NAME
    return dataset


def written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def broken_files() -> dict[str, bytes]:
    """Files that fail in different places, each with the planted header."""
    whole = written(planted())
    assert whole.lower().count(NAME.lower().encode()) > 1000 and whole.count(DATE.encode()) > 100
    files = {"cut": whole[:-4000], "head": whole[: len(whole) // 3]}
    changes = {
        "nosize": {"Rows": None},
        "photometric": {"PhotometricInterpretation": NAME},
        "bits": {"BitsStored": 40},
        "function": {"WindowCenter": "1", "WindowWidth": "2", "VOILUTFunction": NAME},
        "frames": {"NumberOfFrames": "9"},
    }
    for name, attributes in changes.items():
        dataset = planted()
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        files[name] = written(dataset)
    window = planted()
    window.WindowCenter, window.WindowWidth = "77777777", "2"
    files["window"] = written(window).replace(b"77777777", NAME.encode())
    syntax = planted()
    syntax.file_meta.TransferSyntaxUID = f"1.2.840.{DATE}.{TIME}"
    files["syntax"] = written(syntax)
    jpeg = planted()
    jpeg.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    jpeg.BitsAllocated = jpeg.BitsStored = 8
    jpeg.PixelData = encapsulate([b"\xff\xd8 no picture of " + NAME.encode()])
    jpeg["PixelData"].VR = "OB"
    files["jpeg"] = written(jpeg)
    return files


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """VinDr-CXR and an R2Gen source whose images are such files; settings of section ``data``."""
    root = tmp_path_factory.mktemp("cohort")
    broken = broken_files()
    train = {f"good{number}": written(planted(number)) for number in range(6)} | broken
    test = {f"test{number}": written(planted(10 + number)) for number in range(2)}
    for split, files in (("train", train), ("test", test)):
        (root / "vindr" / split).mkdir(parents=True)
        for name, data in files.items():
            (root / "vindr" / split / f"{name}.dicom").write_bytes(data)
    rows = [f"{name},R{reader},Cardiomegaly,5,6,25,16" for name in train for reader in (1, 2, 3)]
    test_rows = [f"test{number},Cardiomegaly,5,6,25,16" for number in range(2)]
    (root / "vindr/annotations_train.csv").write_bytes(good.table(good.BOX_HEADER, rows))
    (root / "vindr/annotations_test.csv").write_bytes(good.table(good.BOX_HEADER.replace("rad_id,", ""), test_rows))
    (root / "reports").mkdir()
    entries = {"train": ["a", *broken], "val": ["b"], "test": ["c"]}
    content = {
        split: [{"id": f"r-{name}", "report": "Clear.", "image_path": [f"{name}.dcm"], "split": split} for name in names]
        for split, names in entries.items()
    }
    for number, name in enumerate(("a", "b", "c"), start=20):
        (root / "reports" / f"{name}.dcm").write_bytes(written(planted(number)))
    for name, data in broken.items():
        (root / "reports" / f"{name}.dcm").write_bytes(data)
    (root / "reports/annotation.json").write_bytes(good.as_json(content))
    return {
        "labelled": {"source": "vindr", "root": str(root / "vindr")},
        "reports": {"source": "r2gen", "root": str(root / "reports"), "views": []},
        "conversion": {"max_side_px": 64, "max_bad_fraction": 1.0},
    }


def run_commands(output, settings) -> list[int]:
    """Verify and convert both sources with the command line; return the exit codes."""

    def run(*words) -> int:
        try:
            return cli.main([str(word) for word in words] + ["--log", str(output / f"{words[0]}.log"), "--verbose"])
        finally:
            logging.getLogger().handlers.clear()

    given = ("--settings", json.dumps(settings))
    codes = [run("verify-inputs", "--output", output / "verify", *given)]
    for name, folder in (("labelled", output / "labelled"), ("unlabelled", output)):
        shard, images = output / f"{name}.shard.jsonl", output / "verify" / f"{name}_images.jsonl"
        if not images.is_file():
            continue
        side = ("--set", "max_side_px=64")
        codes.append(run("convert-images-shard", "--images", images, "--folder", folder, "--output", shard, *side))
        rows = {"labelled": "boxes", "unlabelled": "reports"}[name]
        table = output / "verify" / ("labelled_boxes.jsonl" if name == "labelled" else "reports.jsonl")
        tables = ("--images", images, f"--{rows}", table, "--counts", output / "verify" / "counts.json")
        keys = {"labelled": ("labelled", "conversion"), "unlabelled": ("reports", "conversion")}[name]
        part = ("--settings", json.dumps({key: settings[key] for key in keys}))
        codes.append(run(f"convert-{name}", *tables, "--shards", shard, "--output", folder, *part))
    return codes


def leaks(output) -> list[str]:
    """Files with a planted value in name or content."""
    found = []
    for path in output.rglob("*"):
        content = path.read_bytes().lower() if path.is_file() else b""
        found += [f"{path.name}: {secret.decode()}" for secret in SECRETS if secret in content + path.name.lower().encode()]
    return found


def test_header_stays_in_the_file(cohort, tmp_path, capfd):
    assert run_commands(tmp_path, cohort) == [0, 0, 0, 0, 0]
    quarantined = {record["source_id"] for record in read_jsonl(tmp_path / "verify" / "quarantine.jsonl")}
    assert {"cut", "head", "nosize", "photometric", "bits", "frames", "syntax", "function"} <= quarantined
    unreadable = [record for record in read_jsonl(tmp_path / "labelled.shard.jsonl") if record.get("reason")]
    assert len(unreadable) >= 1, "JPEG data fail in decoding only"
    assert len(list(tmp_path.rglob("*.png"))) >= 11
    assert leaks(tmp_path) == []
    shown = "".join(capfd.readouterr()).lower().encode()
    assert len(shown) > 1000 and [secret for secret in SECRETS if secret in shown] == []


def test_errors_tell_no_more(cohort, tmp_path, capfd):
    strict = {**cohort, "conversion": {**cohort["conversion"], "max_bad_fraction": 0.0}}
    assert run_commands(tmp_path, strict)[0] == 2
    shown = "".join(capfd.readouterr())
    assert "photometric.dicom" in shown and "Traceback" not in shown
    assert leaks(tmp_path) == [] and [secret for secret in SECRETS if secret in shown.lower().encode()] == []
