"""A finished run in miniature: four radiographs, untrained networks, and the files that the workflow's own stages write."""

from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from radiograph_samples import draw_chest, write_dicom

from d2rnet.cxr.annotation.build import build_annotation
from d2rnet.cxr.boxes.coco import write_coco
from d2rnet.cxr.conversion.image_conversion import write_png
from d2rnet.cxr.detector.checkpoint import save_weights
from d2rnet.cxr.detector.config import TEACHER_NAME, build_cfg, write_cfg
from d2rnet.cxr.detector.predict import predict_boxes
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.results import gather_boxes
from d2rnet.cxr.detector.settings import DetectorSettings
from d2rnet.cxr.images.reader import read_header, read_radiograph
from d2rnet.cxr.report_model.front_end import facts_of
from d2rnet.cxr.report_model.generate import generate_reports
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.settings import ReportSettings
from d2rnet.cxr.settings import CxrSettings
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.reading.cxr_settings import describe_reading
from d2rnet.report.model_files import save_model
from d2rnet.report.text.vocabulary import build_vocabulary, load_vocabulary

STUDIES = {"s1": ("front", "second"), "s2": ("tall",), "s3": ("scan",)}
FILES = {"front": "s1/front.png", "second": "s1/second.jpg", "tall": "s2/tall.png", "scan": "s3/scan.dcm"}
SIZES_HW = {"front": (150, 120), "second": (130, 170), "tall": (200, 90), "scan": (160, 140)}
OVERLAY: dict[str, Any] = {
    "data": {
        "conversion": {"max_side_px": 96},
        "labelled": {"root": "real/labelled"},  # not the demo cohort, which a demo may have left in this checkout
        "reports": {"root": "real/reports", "views": ["PA", "AP"]},
    },
    "detector": {
        "model": {
            "backbone_width": 16,
            "fpn_channels": 16,
            "roi_fc_dim": 32,
            "anchor_sizes_px": [8, 16, 32, 64],
            "train_shortest_px": [64, 64],
            "test_shortest_px": 64,
            "longest_px": 96,
            "rpn_pre_nms_test": 50,
            "rpn_post_nms_test": 20,
        },
        "prediction": {"score_floor": 0.0, "max_boxes_per_image": 30},
    },
    "annotation": {"score_threshold": 0.1, "class_score_thresholds": {"Edema": 0.3}, "max_boxes": 6},
    "report": {
        "text": {"min_token_count": 1},
        "model": {
            "input_size_px": 32,
            "backbone_stages": 2,
            "patch_channels": 16,
            "lesion_roi_size": 2,
            "d_model": 16,
            "d_ff": 32,
            "num_heads": 2,
            "num_layers": 2,
            "memory_heads": 2,
        },
        "generation": {
            "batch_size": 2,
            "beam_size": 2,
            "max_tokens": 12,
            "min_tokens": 6,
            "grounding_share": 0.0,
            "grounding_contrast": 0.0,
        },
    },
}


def make_run(folder: Path) -> Path:
    """Write images, both models and the results of predict_boxes, build_annotation and generate_reports."""
    settings = CxrSettings.read(OVERLAY)
    images = folder / "images"
    for seed, (name, file) in enumerate(FILES.items()):
        path = images / file
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draw_chest(SIZES_HW[name], seed)
        write_dicom(path, pixels) if path.suffix == ".dcm" else Image.fromarray(pixels).save(path)
    unlabelled, reports = _convert(folder, settings)
    detector = _make_detector(folder / "results/cxr/train_detector", settings.detector)
    shard, predictions = (folder / "results/cxr/predict_boxes" / name for name in ("shards/1-of-1.jsonl", "predictions.jsonl"))
    prediction = settings.detector.prediction
    predict_boxes(unlabelled=unlabelled, model=detector, shard=1, shards=1, output=shard, device="cpu", settings=prediction)
    gather_boxes(unlabelled=unlabelled, shards=[shard], output=predictions, settings=prediction)
    for name, entry in (("build_annotation", "image"), ("build_annotation_of_studies", "study")):
        build_annotation(
            unlabelled=unlabelled,
            reports=reports,
            predictions=[predictions],
            output=folder / "results" / "cxr" / name,
            settings=settings.annotation.replaced(entry=entry),
        )
    annotation = folder / "results/cxr/build_annotation/annotation.json"
    model = _make_report_model(folder, annotation, settings.report)
    for name, source in (("generate_reports", "build_annotation"), ("generate_of_studies", "build_annotation_of_studies")):
        generate_reports(
            annotation=folder / "results" / "cxr" / source / "annotation.json",
            image_root=images,
            model=model,
            shard=1,
            shards=1,
            output=folder / "results" / "cxr" / name / "shards/1-of-1.jsonl",
            device="cpu",
            settings=settings.report.generation,
        )
    write_yaml(folder / "config.yaml", {"cxr": OVERLAY})
    weights = detector / TEACHER_NAME
    describe_reading(weights=weights, report_model=model, configfile=[folder / "config.yaml"])
    return folder


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write a configuration."""
    path.write_text(yaml.safe_dump(content))


def _convert(folder: Path, settings: CxrSettings) -> tuple[Path, Path]:
    """Write what convert_unlabelled does."""
    records = []
    for number, (name, file) in enumerate(FILES.items(), start=1):
        source = folder / "images" / file
        radiograph = read_radiograph(source, max_side_px=settings.data.conversion.max_side_px)
        write_png(folder / f"resources/cxr/unlabelled_images/{name}.png", radiograph.pixels)
        study = next(study for study, names in STUDIES.items() if name in names)
        (height, width), (source_height, source_width) = radiograph.pixels.shape, radiograph.source_hw
        records.append(
            {
                "id": number,
                "file_name": f"unlabelled_images/{name}.png",
                "height": height,
                "width": width,
                "source_height": source_height,
                "source_width": source_width,
                "source_id": name,
                "source_path": file,
                "study_id": study,
                "subject_id": f"p{study}",
                "view": read_header(source).view,
                "split": "test",
                "has_report": True,
            }
        )
    write_coco(folder / "resources/cxr/unlabelled.json", records, [])
    text = "Left pleural effusion with cardiomegaly. No pneumothorax, the lungs are clear."
    reports = [
        {
            "study_id": study,
            "subject_id": f"p{study}",
            "split": "test",
            "section": "findings",
            "report": text,
            "images": list(names),
        }
        for study, names in STUDIES.items()
    ]
    write_jsonl(folder / "resources/cxr/reports.jsonl", reports)
    return folder / "resources/cxr/unlabelled.json", folder / "resources/cxr/reports.jsonl"


def _make_detector(folder: Path, settings: DetectorSettings) -> Path:
    """Write an untrained detector whose scores differ from box to box."""
    torch.manual_seed(3)
    cfg = build_cfg(settings)
    cfg.MODEL.DEVICE = "cpu"
    network = build_network(cfg)
    with torch.no_grad():
        network.roi_heads.box_predictor.cls_score.weight.mul_(40)
    save_weights(folder / TEACHER_NAME, network)
    write_cfg(folder, cfg)
    return folder


def _make_report_model(folder: Path, annotation: Path, settings: ReportSettings) -> Path:
    """Write an untrained report model that writes long, varied reports."""
    words = folder / "words"
    entries = {"train": [], "val": [], "test": []}
    report = "Left pleural effusion with cardiomegaly. No pneumothorax, the lungs are clear."
    entry = {
        "id": "w",
        "study_id": "w",
        "subject_id": "w",
        "split": "train",
        "report": report,
        "image_path": ["w.png"],
        "height": 1,
        "width": 1,
        "boxes": [],
        "scores": [],
        "labels": [],
    }
    write_json(words / "annotation.json", {**entries, "train": [entry]})
    build_vocabulary(annotation=words / "annotation.json", output=words, settings=settings.text)
    vocabulary = load_vocabulary(words / "vocabulary.json")
    torch.manual_seed(11)
    network = D2RNet(settings.model, num_tokens=len(vocabulary), num_categories=len(CATEGORY_NAMES))
    with torch.no_grad():
        network.transformer.logits.weight.mul_(4)
        network.transformer.logits.bias[vocabulary.ids["<eos>"]] -= 3
    target = folder / "results/cxr/train_report_model"
    facts = facts_of(CATEGORY_NAMES)
    save_model(target, network.state_dict(), settings=settings, vocabulary=vocabulary, facts=facts, selected={"epoch": 0})
    return target
