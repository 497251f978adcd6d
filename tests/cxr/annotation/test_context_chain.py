"""From a cohort with follow-ups to annotation.json: what its reports tell arrives whole, and nothing of the answer with it."""

from pathlib import Path

from d2rnet.cxr.annotation.build import build_annotation
from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.cxr.conversion.convert_unlabelled import convert_unlabelled
from d2rnet.cxr.conversion.image_shards import convert_images_shard
from d2rnet.cxr.conversion.settings import DataSettings, ImageConversionSettings, UnlabelledConversionSettings
from d2rnet.cxr.conversion.verify import verify_inputs
from d2rnet.cxr.demo.cohort import make_demo_cohort
from d2rnet.cxr.demo.settings import DemoSettings
from d2rnet.cxr.sources.shared_sentences import shared_sentences
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.report.annotation_file import load_annotation


def test_follow_ups_become_studies_before(tmp_path: Path) -> None:
    demo = DemoSettings(
        labelled_train_images=6,
        labelled_test_images=2,
        report_train_studies=24,
        report_val_studies=6,
        report_test_studies=6,
        size_px=128,
        seed=4,
        follow_ups=True,
    )
    make_demo_cohort(output=tmp_path / "cohort", workers=1, settings=demo)
    settings = DataSettings.read(
        {
            "labelled": {"root": str(tmp_path / "cohort" / "vindr")},
            "reports": {"root": str(tmp_path / "cohort" / "mimic"), "context": True},
        }
    )
    checked = tmp_path / "verify"
    verify_inputs(output=checked, workers=1, settings=settings)
    resources = tmp_path / "resources"
    shard = tmp_path / "shards" / "1-of-1.jsonl"
    convert_images_shard(
        images=checked / "unlabelled_images.jsonl",
        folder=resources,
        shard=1,
        shards=1,
        output=shard,
        workers=1,
        settings=ImageConversionSettings(max_side_px=settings.conversion.max_side_px),
    )
    convert_unlabelled(
        images=checked / "unlabelled_images.jsonl",
        reports=checked / "reports.jsonl",
        counts=checked / "counts.json",
        shards=[shard],
        output=resources,
        settings=UnlabelledConversionSettings(
            reports=settings.reports, extra_unlabelled=settings.extra_unlabelled, conversion=settings.conversion
        ),
    )
    (tmp_path / "none.jsonl").write_text("")
    build_annotation(
        unlabelled=resources / "unlabelled.json",
        reports=resources / "reports.jsonl",
        predictions=[tmp_path / "none.jsonl"],
        output=tmp_path / "out",
        settings=AnnotationSettings(context=("views", "indication", "prior")),
    )
    truth = {
        str(record["study_id"]): record for record in read_jsonl(tmp_path / "cohort" / "truth.jsonl") if "study_id" in record
    }
    splits = load_annotation(tmp_path / "out" / "annotation.json")
    entries = [entry for of_split in splits.values() for entry in of_split]
    assert {view for entry in entries for view in entry["views"]} == {"PA", "AP"}
    with_prior = [entry for entry in entries if entry["prior"]]
    assert with_prior and {bool(entry["indication"]) for entry in entries} >= {True}
    for entry in entries:
        own = truth[entry["study_id"]]
        if entry["indication"]:
            assert own["indication"] in entry["indication"]
        for section in ("findings", "impression"):
            assert not shared_sentences(entry["indication"], own["report"][section])
    for entry in with_prior:
        own, before = truth[entry["study_id"]], truth[entry["prior"]["study_id"]]
        assert (own["subject_id"], own["split"]) == (before["subject_id"], before["split"])
        assert entry["prior"]["report"] == before["report"]["findings"] and own["study_id"] != before["study_id"]
    counts = read_json(tmp_path / "out" / "counts.json")["context"]
    assert counts["indications_refused"] == 0 and counts["studies_without_time"] == 0
    assert counts["studies_with_prior"] == len({entry["study_id"] for entry in with_prior})
