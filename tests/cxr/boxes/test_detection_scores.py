"""VOC average precision, FROC, AUROC and calibration, worked out by hand; what the bootstrap draws."""

import numpy as np
import pytest
from detection_samples import random_case, record, result

from d2rnet.cxr.boxes.coco_scores import unweighted
from d2rnet.cxr.boxes.detection_scores import (
    FROC_RATES,
    HEADLINES,
    calibration,
    class_intervals,
    difference_of,
    evaluate_results,
    figures_of,
    froc_sensitivity,
    headlines,
    per_class_voc,
)
from d2rnet.evaluation.resampling import resample_counts
from d2rnet.findings.classes import CATEGORY_NAMES, VINBIGDATA_NAMES

CARDIOMEGALY, NODULE = 3, 15
BOX, FAR = [0, 0, 10, 10], [50, 50, 10, 10]
ONE, TWO, NORMAL = record(1, [[0, 0, 10, 10]], [CARDIOMEGALY]), record(2, [[0, 0, 10, 10]], [CARDIOMEGALY]), record(3, [], [])


def once(records, results):
    """Headlines with each image counted once."""
    return {
        name: values[0] for name, values in headlines(evaluate_results(records, results), unweighted(len(records))).items()
    }


def test_voc_area_under_the_envelope_over_all_points():
    """Hit, miss, hit over two truth boxes: recall 1/2 at precision 1, then recall 1 at precision 2/3."""
    boxes = [result(1, 4, BOX, 0.9), result(3, 4, BOX, 0.8), result(2, 4, BOX, 0.7)]
    figures = once([ONE, TWO, NORMAL], boxes)
    assert figures["voc_mAP40_22"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert figures["AP50"] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


@pytest.mark.parametrize(("width", "expected"), [(4.0, 0.0), (4.01, 1.0)])
def test_voc_iou_must_exceed_two_fifths(width, expected):
    assert once([ONE], [result(1, 4, [0, 0, width, 10], 0.9)])["voc_mAP40_22"] == expected


def test_voc_detection_whose_best_truth_is_taken_is_a_double():
    """COCO gives the second detection to the other truth box; VOC does not."""
    pair = record(1, [[0, 0, 10, 10], [3, 0, 13, 10]], [CARDIOMEGALY] * 2)
    both = [result(1, 4, BOX, 0.9), result(1, 4, BOX, 0.8)]
    figures = once([pair], both)
    assert figures["voc_mAP40_22"] == pytest.approx(0.5)
    assert figures["AP50"] == pytest.approx(1.0)  # IoU with the second one is 70 / 130


def test_a_better_detection_claims_a_truth_box_whatever_its_iou():
    worse_fit_first = [result(1, 4, [0, 0, 10, 5], 0.9), result(1, 4, BOX, 0.8)]
    assert once([ONE], worse_fit_first)["voc_mAP40_22"] == 1.0
    evaluated = evaluate_results([ONE], worse_fit_first)
    assert evaluated.voc_hits.tolist() == [True, False]


def test_means_over_22_and_over_the_14_classes_of_the_challenge():
    inside, outside = CATEGORY_NAMES.index("Nodule/Mass"), CATEGORY_NAMES.index("Rib fracture")
    assert len(VINBIGDATA_NAMES) == 14 and "Rib fracture" not in VINBIGDATA_NAMES
    image = record(1, [[0, 0, 10, 10], [50, 50, 60, 60]], [inside, outside])
    figures = once([image], [result(1, inside + 1, BOX, 0.9)])
    assert (figures["voc_mAP40_14"], figures["voc_mAP40_22"]) == (1.0, 0.5)


def froc_of(records, results):
    ranking = evaluate_results(records, results).pooled_ranking()
    return froc_sensitivity(ranking, unweighted(len(records)))[:, 0].tolist()


def test_froc_by_hand():
    """Eight images, four truth boxes. Best first: hit, miss, hit, two misses, hit; the fourth box is never found."""
    records = [
        record(number, [[0, 0, 10, 10]] if number <= 4 else [], [CARDIOMEGALY] * (number <= 4)) for number in range(1, 9)
    ]
    order = [(1, BOX), (5, BOX), (2, BOX), (6, BOX), (7, BOX), (3, BOX)]
    boxes = [result(image, 4, box, 0.9 - place / 10) for place, (image, box) in enumerate(order)]
    # false positives before the hits: 0, 1, 3; of eight images 0, 1/8, 3/8
    assert froc_of(records, boxes) == [0.5, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75]
    assert FROC_RATES == (0.125, 0.25, 0.5, 1, 2, 4, 8)
    assert once(records, boxes)["froc_mean"] == pytest.approx((0.5 * 2 + 0.75 * 5) / 7)


def test_froc_counts_false_positives_of_the_same_score_against_the_hit():
    boxes = [result(1, 4, BOX, 0.5), result(1, 4, FAR, 0.5)]
    assert froc_of([ONE], boxes) == [0, 0, 0, 1, 1, 1, 1]


def test_froc_takes_a_double_and_a_wrong_class_for_false_positives():
    image = record(1, [[0, 0, 10, 10], [50, 50, 60, 60]], [CARDIOMEGALY, NODULE])
    boxes = [result(1, 4, BOX, 0.9), result(1, 4, BOX, 0.8), result(1, 4, FAR, 0.7), result(1, 16, FAR, 0.6)]
    assert froc_of([image], boxes) == [0.5, 0.5, 0.5, 0.5, 1, 1, 1]


def test_boxes_of_classes_without_truth_enter_auroc_only():
    boxes = [result(1, 4, BOX, 0.5), result(1, 1, FAR, 0.9)]
    assert froc_of([ONE], boxes) == [1] * 7
    evaluated = evaluate_results([ONE, NORMAL], boxes)
    assert sum(entry["boxes"] for entry in calibration(evaluated.scored)["bins"]) == 1
    assert evaluated.image_scores.tolist() == [0.9, 0.0]


def test_calibration_by_hand():
    boxes = [result(1, 4, BOX, 0.95), result(2, 4, FAR, 0.91), result(2, 4, BOX, 0.2), result(3, 4, FAR, 1.0)]
    found = calibration(evaluate_results([ONE, TWO, NORMAL], boxes).scored)
    top, low = found["bins"][9], found["bins"][2]
    assert (top["boxes"], top["mean_score"], top["precision"]) == (3, pytest.approx(0.953333), pytest.approx(0.333333))
    assert (low["boxes"], low["mean_score"], low["precision"]) == (1, 0.2, 1.0)
    assert (low["from"], low["to"]) == (0.2, 0.3)
    assert found["bins"][0] == {"from": 0.0, "to": 0.1, "boxes": 0, "mean_score": None, "precision": None}
    assert found["ece"] == pytest.approx((3 * (0.953333 - 0.333333) + (1 - 0.2)) / 4, abs=1e-5)


def test_no_detection_and_no_truth():
    nothing_found = figures_for([ONE, NORMAL], [])
    assert [nothing_found[name] for name in HEADLINES] == [0, 0, 0, 0, 0, 0, 0.5]
    assert nothing_found["calibration"]["ece"] is None
    no_truth = figures_for([NORMAL], [result(3, 4, BOX, 0.5)])
    assert [no_truth[name] for name in HEADLINES] == [None] * 7
    assert set(no_truth["intervals"].values()) == {None}


def figures_for(records, results, samples=20):
    counts = resample_counts(len(records), samples=samples, seed=0)
    evaluated = evaluate_results(records, results)
    return figures_of(evaluated, headlines(evaluated, counts), counts)


def test_every_figure_lies_in_its_interval_and_agrees_with_the_headlines():
    records, results = random_case(60, seed=3)
    figures = figures_for(records, results, samples=200)
    assert {name: figures[name] for name in HEADLINES} == pytest.approx(once(records, results), abs=1e-6)
    for name in HEADLINES:
        low, high = figures["intervals"][name]
        assert low < figures[name] < high
    for value, (low, high) in zip(figures["froc"]["sensitivity"], figures["froc"]["intervals"], strict=True):
        assert low <= value <= high
    assert figures["froc_mean"] == pytest.approx(np.mean(figures["froc"]["sensitivity"]), abs=1e-6)
    values = list(figures["per_class_voc_AP40"].values())
    assert figures["voc_mAP40_22"] == pytest.approx(np.mean(values), abs=1e-6)


def test_weights_stand_for_repeated_images():
    records, results = random_case(10, seed=6)
    counts = np.array([[2], *[[1]] * 9], dtype=np.float32)
    again = [*records, record(11, records[0].boxes_xyxy.tolist(), records[0].classes.tolist(), records[0].image_hw)]
    repeated = results + [{**item, "image_id": 11} for item in results if item["image_id"] == 1]
    weighted = headlines(evaluate_results(records, results), counts)
    assert {name: values[0] for name, values in weighted.items()} == pytest.approx(once(again, repeated))


def test_difference_of_two_networks_is_paired():
    records, results = random_case(40, seed=7)
    counts = resample_counts(40, samples=100, seed=0)
    networks = [evaluate_results(records, found) for found in (results, results[::2])]
    drawn = [headlines(network, counts) for network in networks]
    figures = [figures_of(network, values, counts) for network, values in zip(networks, drawn, strict=True)]
    difference = difference_of(*figures, *drawn)
    assert difference["AP50"]["difference"] == pytest.approx(figures[0]["AP50"] - figures[1]["AP50"])
    low, high = np.quantile(drawn[0]["AP50"] - drawn[1]["AP50"], [0.025, 0.975])
    value = figures[0]["AP50"] - figures[1]["AP50"]
    assert difference["AP50"]["interval"] == pytest.approx([2 * value - high, 2 * value - low], abs=1e-5)
    assert difference_of(figures[0], figures[0], drawn[0], drawn[0])["froc_mean"] == {"difference": 0, "interval": [0, 0]}


def test_voc_ap_of_random_detections_agrees_with_a_plain_loop():
    records, results = random_case(15, seed=9, classes=3)
    evaluated = evaluate_results(records, results)
    for category, value in zip(evaluated.scored.present, per_class_voc(evaluated, unweighted(15))[:, 0], strict=True):
        assert value == pytest.approx(plain_voc_ap(records, results, int(category)))


def plain_voc_ap(records, results, category):
    """PASCAL VOC 2010's average precision as its definition reads, one detection after the other."""
    truth = {item.image_id: item.boxes_xyxy[item.classes == category].astype(float) for item in records}
    taken = {image_id: set() for image_id in truth}
    hits = []
    of_class = [item for item in results if item["category_id"] == category + 1]
    for item in sorted(of_class, key=lambda item: -item["score"]):
        x, y, w, h = item["bbox"]
        ious = []
        for x1, y1, x2, y2 in truth[item["image_id"]]:
            common = max(0, min(x + w, x2) - max(x, x1)) * max(0, min(y + h, y2) - max(y, y1))
            ious.append(common / (w * h + (x2 - x1) * (y2 - y1) - common))
        best = int(np.argmax(ious)) if ious else -1
        hits.append(bool(ious) and ious[best] > 0.4 and best not in taken[item["image_id"]])
        if hits[-1]:
            taken[item["image_id"]].add(best)
    tp = np.cumsum(hits)
    recall = np.concatenate([[0], tp / sum(map(len, truth.values()))])
    precision = tp / np.arange(1, len(hits) + 1)
    return sum((recall[place + 1] - recall[place]) * precision[place:].max() for place in range(len(hits)))


def test_interval_of_a_class_is_over_the_images_that_show_it():
    """Cardiomegaly is found in three of four images; the only nodule is found, so that no draw says anything of it."""
    shown = [record(number, [[0, 0, 10, 10]], [CARDIOMEGALY]) for number in range(1, 5)]
    records = [*shown, record(5, [[0, 0, 10, 10]], [NODULE]), record(6, [], [])]
    found = [result(number, 4, BOX, 0.9) for number in (1, 2, 3)] + [result(5, 16, BOX, 0.9)]
    evaluated = evaluate_results(records, found)
    intervals = class_intervals(evaluated, resample_counts(6, samples=500, seed=1))
    assert intervals["Nodule/Mass"] == [0.025, 1.0]  # Clopper and Pearson: 0.025 ** (1 / 1)
    low, high = intervals["Cardiomegaly"]
    assert low < evaluated.scored.per_class([0], unweighted(6))[0, 0, 0] < high and 0.1 < low < high < 1
    assert set(intervals) == {"Cardiomegaly", "Nodule/Mass"}
