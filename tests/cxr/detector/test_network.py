"""RPN, box head and the network as a whole: which images feed which loss, with what weight, and empty images everywhere."""

import math
from typing import Any

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from d2rnet.cxr.detector.box_regression import BoundaryOffsetTransform
from d2rnet.cxr.detector.config import build_cfg
from d2rnet.cxr.detector.meta_arch import UnbiasedTeacherRCNN
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.roi_heads import UncertaintyOutputLayers
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.errors import ConfigError

LABELLED = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_box_nll"}
PSEUDO = {"loss_rpn_cls_pseudo", "loss_cls_pseudo", "loss_box_reg_pseudo"}


@pytest.fixture
def network(settings: TrainDetectorSettings) -> UnbiasedTeacherRCNN:
    torch.manual_seed(0)
    return build_network(build_cfg(settings))


def target(boxes: list[list[float]], scores: list[float] | None = None, sigma: float = 0.1) -> Instances:
    made = Instances((64, 64))
    made.gt_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    made.gt_classes = torch.zeros(len(boxes), dtype=torch.int64)
    if scores is not None:
        made.gt_scores = torch.tensor(scores)
        made.gt_sigmas = torch.full((len(boxes), 4), sigma)
    return made


def view(made: Instances) -> dict:
    return {"image": torch.randint(0, 256, (1, 64, 64), dtype=torch.uint8), "instances": made}


def losses(network: UnbiasedTeacherRCNN, *targets: Instances) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    with EventStorage():
        return network.train()([view(made) for made in targets])


BOX = [[10.0, 12.0, 30.0, 40.0]]


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ([target(BOX)], LABELLED),
        ([target([])], LABELLED),
        ([target(BOX), target([], []), target(BOX, [0.9]), target([])], LABELLED | PSEUDO),
        ([target(BOX), target([], [])], LABELLED | PSEUDO),
        ([target([]), target([], [])], LABELLED | PSEUDO),
    ],
)
def test_each_kind_of_image_feeds_its_own_losses(
    network: UnbiasedTeacherRCNN, targets: list[Instances], names: set[str]
) -> None:
    found = losses(network, *targets)
    assert found.keys() == names
    assert all(torch.isfinite(loss) for loss in found.values())
    torch.stack(list(found.values())).sum().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_pseudo_anchors_weigh_the_score_of_their_best_box(network: UnbiasedTeacherRCNN) -> None:
    anchors = Boxes(torch.tensor([[10.0, 12.0, 30.0, 40.0], [40.0, 40.0, 60.0, 60.0], [41.0, 41.0, 50.0, 50.0]]))
    pseudo = target([*BOX, [40.0, 40.0, 60.0, 60.0]], [0.9, 0.4])
    labels, weights, index = network.proposal_generator.match_anchors(anchors, pseudo)
    assert labels.tolist() == [1, 1, 0]
    assert weights.tolist() == pytest.approx([0.9, 0.4, 0.4])  # the third overlaps the second box best
    assert index.tolist() == [0, 1, 1]
    assert network.proposal_generator.match_anchors(anchors, target(BOX))[1].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("policy", "weight"), [("reference", 0.0), ("skip", 0.0), ("background", 1.0)])
def test_anchors_of_an_image_without_pseudo_boxes(settings: TrainDetectorSettings, policy: str, weight: float) -> None:
    settings = settings.replaced(training={"empty_unlabelled": policy})
    rpn = build_network(build_cfg(settings)).proposal_generator
    labels, weights, _ = rpn.match_anchors(Boxes(torch.tensor(BOX)), target([], []))
    assert (labels.tolist(), weights.tolist()) == ([0], [weight])


def test_objectness_of_zero_logits_is_log_2_times_the_weights(network: UnbiasedTeacherRCNN) -> None:
    for parameter in network.proposal_generator.rpn_head.objectness_logits.parameters():
        torch.nn.init.zeros_(parameter)
    found = losses(network, target(BOX), target(BOX), target(BOX, [0.25]), target(BOX, [0.25]), target(BOX, [0.25]))
    assert found["loss_rpn_cls"].item() == pytest.approx(math.log(2))  # a mean over images
    assert found["loss_rpn_cls_pseudo"].item() == pytest.approx(0.25 * math.log(2))


def test_unsure_teacher_is_not_listened_to(network: UnbiasedTeacherRCNN) -> None:
    assert losses(network, target(BOX), target(BOX, [0.9], sigma=0.6))["loss_box_reg_pseudo"].item() == 0
    assert losses(network, target(BOX), target(BOX, [0.9], sigma=0.1))["loss_box_reg_pseudo"].item() > 0


def test_detections_carry_the_uncertainty_of_their_own_proposal(network: UnbiasedTeacherRCNN) -> None:
    head = network.roi_heads.box_predictor
    proposals = Instances((64, 64))
    proposals.proposal_boxes = Boxes(
        torch.tensor([[0.0, 0.0, 10.0, 10.0], [30.0, 30.0, 50.0, 50.0], [70.0, 70.0, 90.0, 90.0]])
    )
    logits = torch.full((3, 23), -9.0)
    logits[0, 4], logits[1, 7], logits[2, 1] = 2.0, 5.0, 9.0
    uncertainty = torch.tensor([[0.0] * 4, [math.log(3.0)] * 4, [9.0] * 4])
    head.test_score_thresh = 0.5
    (found,), (kept,) = head.inference((logits, torch.zeros(3, 4), uncertainty), [proposals])
    assert found.pred_classes.tolist() == [7, 4]  # the third box lies outside the image
    assert found.pred_boxes.tensor.tolist() == [[30.0, 30.0, 50.0, 50.0], [0.0, 0.0, 10.0, 10.0]]
    assert found.pred_sigmas.tolist() == [pytest.approx([0.75] * 4), [0.5] * 4]
    assert kept.tolist() == [1, 0]


def test_an_image_without_proposals_or_sure_classes_gives_no_detection(network: UnbiasedTeacherRCNN) -> None:
    head = network.roi_heads.box_predictor
    head.test_score_thresh = 0.5
    for count in (0, 2):
        proposals = Instances((64, 64))
        proposals.proposal_boxes = Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(count, 1))
        (found,), (kept,) = head.inference((torch.zeros(count, 23), torch.zeros(count, 4), torch.zeros(count, 4)), [proposals])
        assert (len(found), len(kept)) == (0, 0)
        assert found.pred_boxes.tensor.shape == found.pred_sigmas.shape == (0, 4)
        assert found.scores.shape == found.pred_classes.shape == (0,)


def sampled(made: Instances) -> Instances:
    """Two sampled proposals of an image with one box: 2 px too wide on the right, and background."""
    proposals = Instances((64, 64))
    proposals.proposal_boxes = Boxes(torch.tensor([[10.0, 12.0, 32.0, 40.0], [40.0, 40.0, 60.0, 60.0]]))
    proposals.gt_classes = torch.tensor([3, 22])
    for name, values in made.get_fields().items():
        if name != "gt_classes":
            proposals.set(name, values[torch.zeros(2, dtype=torch.int64)])
    return proposals


def test_box_losses_by_hand(network: UnbiasedTeacherRCNN) -> None:
    head = network.roi_heads.box_predictor
    wrong = 10 * 2 / 22  # delta of the right boundary; the prediction is 0
    found = head.losses((torch.zeros(2, 23), torch.zeros(2, 4), torch.zeros(2, 4)), [sampled(target(BOX))])
    assert found["loss_cls"].item() == pytest.approx((22 / 23) ** 1.5 * math.log(23))
    assert found["loss_box_reg"].item() == pytest.approx(wrong / 2)
    nll = wrong**2 / 2 / 0.25 + 4 * math.log(0.5) + 2 * math.log(2 * math.pi)
    assert found["loss_box_nll"].item() == pytest.approx(0.05 * 20 / 22 * nll / 2)


def test_nll_is_weighted_by_the_iou_of_the_predicted_box(network: UnbiasedTeacherRCNN) -> None:
    deltas = torch.tensor([[0.0, 0.0, 5.0, 0.0], [0.0] * 4])  # right boundary: 32 + 5 / 10 * 22 = 43; target 30, 20 px wide
    found = network.roi_heads.box_predictor.losses((torch.zeros(2, 23), deltas, torch.zeros(2, 4)), [sampled(target(BOX))])
    nll = (5 + 10 * 2 / 22) ** 2 / 2 / 0.25 + 4 * math.log(0.5) + 2 * math.log(2 * math.pi)
    assert found["loss_box_nll"].item() == pytest.approx(0.05 * 20 / 33 * nll / 2)


@pytest.mark.parametrize(("student_sigma", "listens"), [(0.9, True), (0.25, False)])
def test_listening_compares_with_the_students_own_uncertainty(
    network: UnbiasedTeacherRCNN, student_sigma: float, listens: bool
) -> None:
    logit = torch.full((2, 4), math.log(student_sigma / (1 - student_sigma)))
    pseudo = [sampled(target(BOX, [0.9], sigma=0.2))]
    found = network.roi_heads.box_predictor.losses((torch.zeros(2, 23), torch.zeros(2, 4), logit), pseudo)
    assert found["loss_box_reg_pseudo"].item() == pytest.approx(10 * 2 / 22 / 2 if listens else 0)


def test_anchors_are_moved_to_their_own_box(network: UnbiasedTeacherRCNN) -> None:
    """Of three images, the second without boxes, the third with its boxes in the other order."""
    boxes = [[10.0, 12.0, 30.0, 40.0], [40.0, 40.0, 60.0, 60.0]]
    anchors, targets = Boxes(torch.tensor(boxes)), [target(boxes), target([]), target(boxes[::-1])]
    matched = [network.proposal_generator.match_anchors(anchors, made) for made in targets]
    labels, index = (torch.stack([found[part] for found in matched]) for part in (0, 2))
    assert labels.tolist() == [[1, 1], [0, 0], [1, 1]] and index.tolist() == [[0, 1], [0, 0], [1, 0]]
    deltas = torch.zeros(3, 2, 4, requires_grad=True)
    loss = network.proposal_generator._box_loss(anchors, deltas, labels, index, [made.gt_boxes for made in targets])
    assert loss.item() == 0
    network.proposal_generator._box_loss(anchors, deltas, labels * 0, index, [made.gt_boxes for made in targets]).backward()
    assert not deltas.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_boxes_are_pooled_where_they_are_in_mixed_precision(network: UnbiasedTeacherRCNN, dtype: torch.dtype) -> None:
    """A bright stripe of four pixels at column 1007: bfloat16 knows 1000, 1004 and 1008 there, float16 halves of pixels."""
    heads = network.roi_heads.eval()
    pooled = []
    heads.box_head.forward = lambda features: pooled.append(features) or features.new_zeros(len(features), 32)
    stripe = torch.zeros(1, 16, 8, 168)
    stripe[..., 126] = 1.0  # stride 8: 1008 to 1016 px
    features = {f"p{level}": stripe if level == 3 else torch.zeros(1, 16, 1, 1) for level in range(3, 7)}
    proposals = Instances((64, 1344))
    proposals.proposal_boxes = Boxes(torch.tensor([[x, 5.0, x + 21.0, 33.0] for x in (993.25, 995.25, 1001.75)]))
    with torch.no_grad():
        heads._forward_box(features, [proposals])
        with torch.autocast("cpu", dtype):
            heads._forward_box({name: level.to(dtype) for name, level in features.items()}, [proposals])
    exact, mixed = pooled
    assert not torch.allclose(exact[0], exact[1], atol=0.1)
    torch.testing.assert_close(mixed.float(), exact, atol=1e-3, rtol=0)


@pytest.mark.parametrize("anchor", [0, 2])
def test_outputs_of_the_rpn_belong_to_their_anchors(network: UnbiasedTeacherRCNN, anchor: int) -> None:
    """One sure cell of one level, moved to the right by a quarter of its width."""
    rpn = network.proposal_generator.eval()
    images = network.preprocess_image([view(target([]))])
    with torch.no_grad():
        features = network.eval().backbone(images.tensor)
    levels = [features[name] for name in rpn.in_features]
    logits = [level.new_full((1, 3, *level.shape[2:]), -9.0) for level in levels]
    deltas = [level.new_zeros((1, 12, *level.shape[2:])) for level in levels]
    row, column = 3, 4
    logits[0][0, anchor, row, column] = 9.0
    deltas[0][0, 4 * anchor, row, column] = 0.25
    rpn.rpn_head.forward = lambda _: (logits, deltas)
    (proposals,), _ = rpn(images, features)
    width = logits[0].shape[3]
    x1, y1, x2, y2 = rpn.anchor_generator(levels)[0].tensor[(row * width + column) * 3 + anchor].tolist()
    shift = 0.25 * (x2 - x1)
    assert proposals.proposal_boxes.tensor[0].tolist() == pytest.approx([x1 + shift, y1, x2 + shift, y2], abs=1e-3)


def test_pixels_are_normalised_and_padding_is_the_mean(network: UnbiasedTeacherRCNN) -> None:
    images = network.preprocess_image([{"image": torch.full((1, 40, 64), 255, dtype=torch.uint8)}])
    assert images.tensor.shape == (1, 1, 64, 64)
    assert images.tensor[0, 0, 39, 0].item() == pytest.approx((255 - 127.5) / 64)
    assert images.tensor[0, 0, 40:].abs().max() == 0


def test_one_and_three_equal_channels_are_the_same_image(network: UnbiasedTeacherRCNN) -> None:
    image = torch.randint(0, 256, (1, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        one, three = (
            network.eval()([{"image": pixels, "height": 64, "width": 64}]) for pixels in (image, image.repeat(3, 1, 1))
        )
    assert torch.equal(one[0]["instances"].pred_boxes.tensor, three[0]["instances"].pred_boxes.tensor)


@pytest.mark.parametrize(("changes", "text"), [
    ({"anchor_sizes_px": [8, 16, 32, 64, 128]}, "got 5 sizes; expected 4, one for each of p3, p4, p5, p6"),
    ({"train_shortest_px": [64, 32]}, r"got \[64, 32\]; expected \[least, greatest\]"),
    ({"norm": "GN"}, "backbone_width: expected a multiple of 32 with norm GN"),
])  # fmt: skip
def test_settings_that_do_not_fit_each_other(settings: TrainDetectorSettings, changes: dict[str, Any], text: str) -> None:
    settings = settings.replaced(model=changes)
    with pytest.raises(ConfigError, match=text):
        build_cfg(settings)


def test_full_width_has_the_parameters_of_detectron2s_own_backbone(settings: TrainDetectorSettings) -> None:
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone

    settings = settings.replaced(model={"backbone_width": 64, "finest_level": 2, "fpn_channels": 256, "backbone_depth": 18})
    settings = settings.replaced(model={"anchor_sizes_px": [32, 64, 128, 256, 512]})
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.NORM = "build_resnet_fpn_backbone", 18, "BN"
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS, cfg.MODEL.RESNETS.OUT_FEATURES = 64, ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES, cfg.MODEL.PIXEL_MEAN = ["res2", "res3", "res4", "res5"], [0.0]
    ours, theirs = build_backbone(build_cfg(settings)).state_dict(), build_backbone(cfg).state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: tensor.shape for name, tensor in theirs.items()}


def test_a_box_whose_boundaries_cross_is_never_drawn_and_weighs_nothing(network: UnbiasedTeacherRCNN) -> None:
    """Even where its area is minus that of the true box, and both IoU terms 0."""
    head = network.roi_heads.box_predictor
    head.test_score_thresh = 0.5
    proposals = Instances((64, 64))
    proposals.proposal_boxes = Boxes(torch.tensor([[10.0, 12.0, 30.0, 40.0]]))
    crossed = torch.tensor([[10.0, 0.0, -10.0, 0.0]])  # left at 30, right at 10
    logits = torch.full((1, 23), -9.0)
    logits[0, 4] = 9.0
    (found,), _ = head.inference((logits, crossed, torch.zeros(1, 4)), [proposals])
    assert len(found) == 0
    losses = head.losses((torch.zeros(2, 23), crossed.repeat(2, 1), torch.zeros(2, 4)), [sampled(target(BOX))])
    assert losses["loss_box_nll"].item() == 0
    proposals.gt_classes, proposals.gt_boxes = torch.tensor([3]), Boxes(torch.tensor(BOX))
    assert head.losses((logits, crossed, torch.zeros(1, 4)), [proposals])["loss_box_nll"].item() == 0


def test_the_uncertainty_layer_starts_as_the_authors_does(network: UnbiasedTeacherRCNN) -> None:
    layer = build_network(build_cfg(TrainDetectorSettings().replaced(model={"roi_fc_dim": 1024}))).roi_heads.box_predictor
    assert layer.uncertainty.weight.std().item() == pytest.approx(1e-4, rel=0.1)
    assert layer.uncertainty.bias.abs().max() == 0


def test_at_most_a_quarter_of_the_sampled_anchors_is_positive(network: UnbiasedTeacherRCNN) -> None:
    """The authors' share; detectron2's own is a half."""
    anchors = Boxes(torch.tensor([[10.0, 12.0, 30.0, 40.0]] * 60 + [[40.0, 40.0, 60.0, 60.0]] * 60))
    labels, _, _ = network.proposal_generator.match_anchors(anchors, target(BOX))
    assert (int((labels == 1).sum()), int((labels == 0).sum())) == (8, 24)


# Four proposals, the last one background, three classes. Every number below was worked out from the formulas of Unbiased
# Teacher v2 (sec. 3.2-3.3) and its published constants in plain arithmetic, not by this package.
LOGITS = [[2.0, 0.5, -1.0, 0.0], [0.0, 0.0, 1.0, 3.0], [-0.5, 1.5, 0.5, 0.25], [1.0, -2.0, 0.0, 4.0]]
SOURCES = [[10.0, 20, 50, 100], [30, 30, 60, 50], [0, 0, 20, 40], [5, 5, 25, 25]]
BOXES = [[14.0, 16, 54, 108], [27, 32, 63, 48], [2, 0, 18, 44], [5, 5, 25, 25]]
DELTAS = [[0.5, -1.0, 1.5, 0.0], [-0.5, 1.5, 0.4, -1.2], [1.0, 0.5, -1.5, 0.8], [9.0, 9, 9, 9]]
UNCERTAINTY = [[0.0, -1.0, 1.0, -2.0], [0.5, 0.5, -0.5, -0.5], [-3.0, 2.0, 0.0, 1.0], [7.0, 7, 7, 7]]
TEACHER_SIGMAS = [[0.2, 0.1, 0.55, 0.45], [0.3, 0.6, 0.2, 0.4], [0.05, 0.3, 0.35, 0.6], [0.1, 0.1, 0.1, 0.1]]


def head_losses(**fields: torch.Tensor) -> dict[str, float]:
    """Losses of the box head on the four proposals, cut over two images."""
    head = UncertaintyOutputLayers(
        ShapeSpec(channels=2),
        box2box_transform=BoundaryOffsetTransform(),
        num_classes=3,
        cls_agnostic_bbox_reg=True,
        focal_gamma=1.5,
        nll_weight=0.05,
        listen_margin=0.1,
        listen_floor=0.5,
    )
    proposals = []
    for rows in (slice(0, 1), slice(1, 4)):
        made = Instances((128, 128), proposal_boxes=Boxes(torch.tensor(SOURCES)[rows]))
        made.gt_classes = torch.tensor([0, 2, 1, 3])[rows]
        made.gt_boxes = Boxes(torch.tensor(BOXES)[rows])
        for name, values in fields.items():
            made.set(name, values[rows])
        proposals.append(made)
    found = head.losses((torch.tensor(LOGITS), torch.tensor(DELTAS), torch.tensor(UNCERTAINTY)), proposals)
    return {name: loss.item() for name, loss in found.items()}


def test_losses_of_labelled_boxes_are_the_formulas() -> None:
    """Focal loss of each proposal 0.053437, 1.857686, 0.170608, 0.001155; |deltas - targets| 2.5 + 1.8 + 1.2; negative
    log likelihoods 36.879376, 2.827826, 0.192375 times IoU 0.801527, 0.828854, 0.877841. All are divided by four proposals.
    """
    assert head_losses() == pytest.approx({"loss_cls": 0.5207214, "loss_box_reg": 1.375, "loss_box_nll": 0.4009067}, rel=1e-5)


def test_losses_of_pseudo_boxes_are_the_formulas() -> None:
    """The student listens at six of twelve boundaries: 0.5 + 0.5, 0.5 + 0.6, 0.5 + 0.5, over four proposals."""
    found = head_losses(gt_scores=torch.full((4,), 0.9), gt_sigmas=torch.tensor(TEACHER_SIGMAS))
    assert found == pytest.approx({"loss_cls_pseudo": 0.5207214, "loss_box_reg_pseudo": 0.775}, rel=1e-5)
