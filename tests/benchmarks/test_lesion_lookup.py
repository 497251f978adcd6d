"""The look-up by the classes of boxes, by hand."""

import lesion_lookup

from d2rnet.files.documents import write_json, write_jsonl

TEXTS = ("There is a left pleural effusion.", "The heart is enlarged.", "The lungs are clear.")


def entry(name: str, report: str, split: str, boxes: dict[str, float]) -> dict:
    """An entry of annotation.json with boxes of these classes and scores."""
    return {
        "id": name,
        "study_id": name,
        "subject_id": name,
        "image_path": [f"{name}.png"],
        "split": split,
        "report": report,
        "height": 8,
        "width": 8,
        "boxes": [[1.0, 1.0, 4.0, 4.0]] * len(boxes),
        "labels": list(boxes),
        "scores": list(boxes.values()),
    }


def test_an_entry_is_answered_by_the_report_that_names_its_boxes(tmp_path, capsys):
    """The box of the second test entry is wrong, that of the third is below every threshold but the first two."""
    train = [entry(f"t{number}", text, "train", {}) for number, text in enumerate(TEXTS)]
    boxes = [{"Pleural effusion": 0.95}, {"Pleural effusion": 0.95}, {"Cardiomegaly": 0.65}]
    truth = (TEXTS[0], TEXTS[1], TEXTS[1])
    test = [entry(f"e{number}", text, "test", one) for number, (text, one) in enumerate(zip(truth, boxes, strict=True))]
    write_json(tmp_path / "build_annotation/annotation.json", {"train": train, "val": [], "test": test})
    lines = [{"id": one["id"], "reference": one["report"], "hypothesis": TEXTS[2]} for one in test]
    write_jsonl(tmp_path / "generate_reports/test.jsonl", lines)
    lesion_lookup.main(tmp_path)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    rows = {label: " | ".join(scores) for label, *scores in cells}
    assert rows["generated reports"] == "0.000 | - | 0.000"  # they name nothing
    assert rows["classes of boxes of score 0.5 and more"] == "0.667 | 0.667 | 0.667"
    assert rows["training report that names them, 0.6"] == "0.667 | 0.667 | 0.667"
    assert rows["training report that names them, 0.8"] == "0.400 | 0.500 | 0.333"
