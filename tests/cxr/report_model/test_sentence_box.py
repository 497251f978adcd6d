"""Findings of reports, their likeness, and sentences against boxes: by hand."""

import logging
import math

import pytest
import torch
from report_samples import PUBLISHED_ALIGNMENT, make_batch, make_model
from torch.nn import functional as F

from d2rnet.cxr.report_model.alignment import Alignment
from d2rnet.cxr.report_model.alignment_watch import FIRST_LOOK
from d2rnet.cxr.report_model.report_findings import PLACES, jaccard, naming_sentences, report_classes
from d2rnet.cxr.report_model.sentence_box import SentencePairs, box_retrieval, sentence_box_loss, sentence_pairs
from d2rnet.cxr.report_model.settings import AlignmentSettings, D2RNetModelSettings
from d2rnet.errors import ConfigError
from d2rnet.report.text.vocabulary import Vocabulary, count_vocabulary
from d2rnet.training.contrastive import class_balanced_loss, hardest_negative_loss, soft_target_loss

REPORTS = (
    "Cardiomegaly. Small pleural effusion on the left and a pneumothorax.",
    "No pneumothorax. Lungs are clear.",
    "There is cardiomegaly. Pleural effusion on the left, pneumothorax.",
    "Clear lungs.",
    "Cardiomegaly.",
)
VOCABULARY = count_vocabulary(REPORTS, protocol="r2gen", section="findings", min_token_count=1)
EFFUSION, HEART, AIR = (PLACES[name] for name in ("Pleural effusion", "Cardiomegaly", "Pneumothorax"))


def encode(reports: tuple[str, ...] = REPORTS, vocabulary: Vocabulary = VOCABULARY) -> torch.Tensor:
    rows = [torch.tensor(vocabulary.encode(report, max_tokens=40)) for report in reports]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def test_classes_of_reports_and_their_likeness() -> None:
    found = report_classes(encode(), VOCABULARY)
    assert [row.nonzero().flatten().tolist() for row in found] == [
        sorted([HEART, EFFUSION, AIR]),
        [],
        sorted([HEART, EFFUSION, AIR]),
        [],
        [HEART],
    ]
    expected = torch.tensor(
        [[1, 0, 1, 0, 1 / 3], [0, 1, 0, 1, 0], [1, 0, 1, 0, 1 / 3], [0, 1, 0, 1, 0], [1 / 3, 0, 1 / 3, 0, 1]]
    )
    assert torch.allclose(jaccard(found, found), expected)
    assert torch.allclose(jaccard(found[:2], found), expected[:2])
    assert jaccard(found[:0], found).shape == (0, 5) and report_classes(encode()[:0], VOCABULARY).shape == (0, 22)


def test_sentences_that_name_a_class() -> None:
    found = naming_sentences(encode(), VOCABULARY)
    assert found.owners.tolist() == [0, 0, 2, 2, 4]
    assert [row.nonzero().flatten().tolist() for row in found.classes[:2]] == [[HEART], sorted([EFFUSION, AIR])]
    assert VOCABULARY.decode(found.token_ids[0].tolist()) == ["cardiomegaly", "."]
    none = naming_sentences(encode(("Clear lungs.",)), VOCABULARY)
    assert none.token_ids.shape == (0, 2) and none.classes.shape == (0, 22)


def test_class_balanced_loss_by_hand() -> None:
    """Keys: the positive, two of one negative class, one of another, one of a class that the row names, one of none."""
    scores = torch.tensor([[1.0, 0.5, -0.5, 2.0, 9.0, 9.0]])
    classes = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]).bool()
    negative = torch.tensor([[False, True, True, False]])
    positive = torch.tensor([[True, False, False, False, False, False]])
    against = (math.exp(0.5) + math.exp(-0.5)) / 2 + math.exp(2.0)
    expected = -math.log(math.e / (math.e + against))
    assert float(class_balanced_loss(scores, positive, negative, classes)) == pytest.approx(expected, rel=1e-5)
    both = torch.tensor([[True, False, False, False, True, False]])  # two positives: the mean
    second = -math.log(math.exp(9) / (math.exp(9) + against))
    assert float(class_balanced_loss(scores, both, negative, classes)) == pytest.approx((expected + second) / 2, rel=1e-5)
    assert float(class_balanced_loss(scores, positive, negative & False, classes)) == pytest.approx(0.0, abs=1e-6)


def test_sentence_box_loss_by_hand() -> None:
    """Entry 0 has a heart and an effusion, entry 1 an effusion; sentence 0 names the heart, 1 names what its entry lacks."""
    boxes = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [0.0, 0.0]]])
    mask = torch.tensor([[True, True], [True, False]])
    ids = torch.tensor([[HEART + 1, EFFUSION + 1], [EFFUSION + 1, 0]])
    classes = torch.zeros(3, 22, dtype=torch.bool)
    classes[0, HEART] = classes[1, HEART] = classes[2, EFFUSION] = True
    sentences = torch.tensor([[0.8, 0.6], [1.0, 0.0], [0.0, 1.0]])
    owners = torch.tensor([0, 1, 1])
    pairs = sentence_pairs(sentences, owners, classes, boxes, mask, ids, temperature=0.5)
    # Sentence 0: own heart 0.8 against effusions 0.6 and 0.96; sentence 2: own effusion 0.8 against the heart, 0.
    first = -math.log(math.exp(1.6) / (math.exp(1.6) + (math.exp(1.2) + math.exp(1.92)) / 2))
    third = -math.log(math.exp(1.6) / (math.exp(1.6) + 1))
    assert float(sentence_box_loss(pairs)) == pytest.approx((first + third) / 2, rel=1e-5)
    # Sentence 0: an effusion is nearer, by chance 1 of 3; sentence 2: its own effusion is nearer than the heart, 1 of 2.
    assert [float(value) for value in box_retrieval(pairs)] == pytest.approx([1 / 2, (1 / 3 + 1 / 2) / 2, 2])
    nothing = sentence_pairs(sentences[:0], owners[:0], classes[:0], boxes, mask, ids, temperature=0.5)
    assert float(sentence_box_loss(nothing)) == 0.0 and [float(value) for value in box_retrieval(nothing)] == [0, 0, 0]
    no_boxes = sentence_pairs(sentences, owners, classes, boxes[:, :0], mask[:, :0], ids[:, :0], temperature=0.5)
    assert float(sentence_box_loss(no_boxes)) == 0.0 and [float(value) for value in box_retrieval(no_boxes)] == [0, 0, 0]


def test_the_nearest_box_of_equal_ones_counts_a_part() -> None:
    """Boxes: two positives, a negative, one of a class that the sentence names, none; the second pair has no negative."""
    scores = torch.tensor([[1.0, 0.0, 1.0, 9.0, 9.0]]).expand(2, -1)
    positives = torch.tensor([[True, True, False, False, False]]).expand(2, -1)
    key_classes = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]).bool()
    negative_classes = torch.tensor([[False, True, False], [False, False, False]])
    found = box_retrieval(SentencePairs(scores, positives, negative_classes, key_classes))
    assert [float(value) for value in found] == pytest.approx([1 / 2, 2 / 3, 1])


def test_pairs_that_are_left_out_are_no_negatives() -> None:
    scores = torch.tensor([[0.5, 0.4, 0.3], [0.1, 0.6, 0.3], [0.2, 0.1, 0.5]])
    valid = torch.ones(3, dtype=torch.bool)
    left_out = torch.zeros(3, 3, dtype=torch.bool)
    left_out[0, 1] = left_out[1, 0] = left_out[0, 0] = True
    # Without the first two as negatives of each other no other comes within the margin.
    assert float(hardest_negative_loss(scores, valid, 0.15)) == pytest.approx(0.05 / 3)
    assert float(hardest_negative_loss(scores, valid, 0.15, left_out)) == 0.0
    likeness = torch.eye(3)

    def cross(own: float, others: list[float]) -> float:
        return -math.log(math.exp(own) / (math.exp(own) + sum(map(math.exp, others))))

    far = torch.eye(3) * 60  # targets are the pairs alone
    found = soft_target_loss(scores, valid, far, 1.0, left_out)
    rows = cross(0.5, [0.3]) + cross(0.6, [0.3]) + cross(0.5, [0.2, 0.1])
    columns = cross(0.5, [0.2]) + cross(0.6, [0.1]) + cross(0.5, [0.3, 0.3])
    assert float(found) == pytest.approx((rows + columns) / 6, rel=1e-5)
    assert float(soft_target_loss(scores, valid, likeness, 1.0)) != pytest.approx(
        float(soft_target_loss(scores, valid, likeness, 1.0, left_out))
    )


def make_alignment(**changes) -> Alignment:
    torch.manual_seed(1)
    settings = D2RNetModelSettings(lesion_branch="roi_align", d_model=16, patch_channels=16, dropout=0.0)
    chosen = PUBLISHED_ALIGNMENT | {"embed_dim": 8, "text_heads": 2} | changes
    return Alignment(AlignmentSettings.read(chosen), settings, VOCABULARY, max_tokens=40)


def test_likeness_and_negatives_of_the_settings() -> None:
    ids = encode()
    by_words = make_alignment(gab="patches", targets="soft")._relations(ids)
    by_findings = make_alignment(gab="patches", targets="soft", likeness="findings")._relations(ids)
    both = make_alignment(gab="patches", targets="soft", likeness="words_and_findings", same_findings="left_out")._relations(
        ids
    )
    assert by_words[1] is None and by_findings[1] is None
    assert torch.allclose(by_findings[0], jaccard(*[report_classes(ids, VOCABULARY)] * 2))
    assert torch.allclose(both[0], (by_words[0] + by_findings[0]) / 2)
    assert torch.equal(both[1], by_findings[0] == 1) and int(both[1].sum()) == 9
    hard = make_alignment(gab="patches", same_findings="left_out")._relations(ids)
    assert hard[0] is None and torch.equal(hard[1], both[1])
    assert make_alignment(gab="patches")._relations(ids) == (None, None)


def test_the_loss_reaches_sentences_and_boxes_and_learns() -> None:
    module = make_alignment(sentence_box=True, word_projection="separate", centring=True)
    assert module.settings.is_on and list(module.words) == ["sentence_box"]
    model = make_model(d_model=16).train()
    batch = make_batch(lesions=(3, 0, 2, 1, 1), length=4)
    batch.token_ids = encode()
    batch.category_ids = torch.tensor([[HEART, EFFUSION, AIR], [0, 0, 0], [HEART, AIR, 0], [AIR, 0, 0], [HEART, 0, 0]]) + 1
    batch.category_ids = batch.category_ids * batch.lesion_mask
    optimizer = torch.optim.Adam([*module.parameters(), *model.lesion_encoder.parameters()], lr=0.02)
    seen = []
    for _ in range(30):
        losses = module(model.look(batch), batch)
        seen.append(losses["sentence_box"].item())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        module.after_step()
    assert list(losses) == ["sentence_box"] and seen[-1] < 0.5 * seen[0]
    for parameter in (module.text_encoder.embedding.weight, model.lesion_encoder.category.weight):
        assert parameter.grad.abs().sum() > 0
    found = module.values()
    assert "sentence_box_weight" in found and int(module.watches["sentence_box"].steps) == 30
    assert found["sentence_box_retrieval"] > 0.7 > 0.3 > found["sentence_box_retrieval_by_chance"] > 0.2
    assert max(found["sentence_box_region_mean_length"], found["sentence_box_word_mean_length"]) < 0.9


def test_a_collapse_of_sentences_and_boxes_is_named(caplog: pytest.LogCaptureFixture) -> None:
    module = make_alignment(sentence_box=True, centring=False).train()
    for layers in (module.words, module.regions):
        for layer in layers.values():  # the bias alone makes all vectors alike
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.ones_(layer.bias)
    visual, batch = make_model(d_model=16).look(make_batch(lesions=(3, 0, 2, 1, 1))), make_batch(lesions=(3, 0, 2, 1, 1))
    batch.token_ids = encode()
    batch.category_ids = torch.tensor([[HEART, EFFUSION, AIR], [0, 0, 0], [HEART, AIR, 0], [AIR, 0, 0], [HEART, 0, 0]]) + 1
    with caplog.at_level(logging.WARNING, logger="d2rnet"):
        for _ in range(FIRST_LOOK):
            module(visual, batch)
            module.after_step()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("sentence_box has collapsed after 30 batches: mean vectors of boxes and sentences are 1.000")
    assert "targets" not in message and "a lower sentence_box_weight" in message


def test_sentences_need_boxes() -> None:
    settings = D2RNetModelSettings(lesion_branch="none", d_model=16, patch_channels=16)
    with pytest.raises(ConfigError, match=r"alignment\.sentence_box: true, but cxr\.report\.model\.lesion_branch is 'none'"):
        Alignment(AlignmentSettings(sentence_box=True), settings, VOCABULARY, max_tokens=40)


def test_padding_changes_nothing() -> None:
    module = make_alignment(sentence_box=True).eval()
    model = make_model(d_model=16)
    batch = make_batch(lesions=(3, 0, 2, 1, 1))
    batch.category_ids = (HEART + 1) * batch.lesion_mask
    batch.category_ids[3, 0] = AIR + 1
    found = []
    for padding in (0, 4):
        batch.token_ids = F.pad(encode(), (0, padding))
        found.append(module(model.look(batch), batch)["sentence_box"].item())
    assert found[0] > 0 and found[1] == pytest.approx(found[0], abs=1e-6)
