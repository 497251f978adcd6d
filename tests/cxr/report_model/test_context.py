"""What an entry tells beside images and boxes: views of images, indication, the study before."""

import zlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from report_samples import make_batch, make_model

from d2rnet.cxr.report_model.context import (
    AP,
    LATERAL,
    PA,
    UNKNOWN,
    ContextBatch,
    EntryContexts,
    check_context,
    collate_contexts,
    numbers_of,
    view_id,
    word_ids,
)
from d2rnet.cxr.report_model.context_encoder import ContextEncoder, TextTokens, ViewEmbedding
from d2rnet.cxr.report_model.dataset import ChestBatch, collate
from d2rnet.cxr.report_model.settings import D2RNetModelSettings
from d2rnet.errors import DatasetError

WITH_VIEWS = D2RNetModelSettings(view_embedding=True)
WITH_TEXTS = D2RNetModelSettings(indication=True, prior=True, context_buckets=1000, context_words=5)
TEXT: dict[str, Any] = {"protocol": "r2gen", "categories": ("Cardiomegaly", "Nodule/Mass")}
PRIOR = {
    "study_id": "s0", "report": "Heart enlarged on the left.", "height": 50, "width": 100,
    "boxes": [[10.0, 20.0, 30.0, 5.0]], "scores": [0.5], "labels": ["Nodule/Mass"],
}  # fmt: skip


def entry(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {"id": f"e{number}", "image_path": ["a.png"], **changes}


def study_batch(*, order: tuple[int, ...] = (0, 1, 2), views: tuple[int, ...] = (PA, LATERAL, AP)) -> ChestBatch:
    """Two entries of three images and two boxes, whose images stand in ``order``."""
    batch = make_batch(views=3, lesions=(2, 2))
    batch.lesion_view[:] = torch.tensor([0, 1])
    place_of = torch.tensor(order).argsort()
    batch.pixels = batch.pixels[:, list(order)]
    batch.lesion_view = place_of[batch.lesion_view]
    own = torch.tensor([views[place] for place in order]).expand(2, 3)
    numbers = torch.tensor([numbers_of(row) for row in own.tolist()])
    batch.context = replace(batch.context, views=own, view_numbers=numbers)
    return batch


@pytest.mark.parametrize(
    ("spelt", "expected"),
    [
        ("PA", PA),
        ("pa", PA),
        ("AP", AP),
        ("AP AXIAL", AP),
        ("XTABLE LATERAL", LATERAL),
        ("LATERAL", LATERAL),
        ("LL", LATERAL),
        ("LPO", 0),
        ("", UNKNOWN),
    ],
)
def test_views_as_releases_spell_them(spelt: str, expected: int) -> None:
    assert view_id(spelt) == expected


def test_images_of_one_view_are_numbered() -> None:
    assert numbers_of([PA, AP, AP, LATERAL, AP]) == [0, 0, 1, 0, 2]
    assert numbers_of([UNKNOWN] * 6) == [0, 1, 2, 3, 3, 3]
    assert numbers_of([]) == []


def test_contexts_of_entries() -> None:
    entries = [entry(image_path=["a", "b", "c"], views=["AP", "", "AP"]), entry(1, views=["LL"]), entry(2)]
    contexts = EntryContexts(entries, WITH_VIEWS, **TEXT)
    batch = collate_contexts([contexts.of(0), contexts.of(1), contexts.of(2)])
    assert batch.views.tolist() == [[AP, UNKNOWN, AP], [LATERAL, 0, 0], [UNKNOWN, 0, 0]]
    assert batch.view_numbers.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    untold = EntryContexts(entries, D2RNetModelSettings(), **TEXT).of(0)
    assert untold.views.tolist() == [UNKNOWN] * 3


def test_a_batch_without_contexts_tells_nothing() -> None:
    batch = make_batch(views=2, lesions=(1, 0))
    assert batch.context.views.tolist() == [[0, 0], [0, 0]]
    assert collate([], size_px=32, crop_size_px=32).context.views.shape == (0, 1)
    assert [field.name for field in fields(batch.to("cpu").context)] == [field.name for field in fields(batch.context)]


def test_keys_that_the_model_takes_must_be_there(tmp_path: Path) -> None:
    source = tmp_path / "annotation.json"
    check_context([entry()], D2RNetModelSettings(), source=source)
    check_context([entry(views=[""])], WITH_VIEWS, source=source)
    with pytest.raises(DatasetError, match=r"1 of 2 entries, such as e1, have no key 'views'.*cxr.annotation.context"):
        check_context([entry(views=["PA"]), entry(1)], WITH_VIEWS, source=source)


def test_a_switch_leaves_the_other_weights_and_what_they_see_as_they_are() -> None:
    plain = make_model().state_dict()
    told = make_model(view_embedding=True, indication=True, prior=True).state_dict()
    assert {name.split(".")[0] for name in told if name not in plain} == {"views", "context"}
    # the memory-conditioned norms are drawn by make_model itself, after the model
    assert all(torch.equal(told[name], plain[name]) for name in plain if not name.startswith("transformer.conditioned_norms"))
    told_batch = study_batch()
    untold = study_batch()
    untold.context = ContextBatch.nothing(untold.view_mask)
    model = make_model()
    assert torch.equal(model(told_batch), model(untold))


def test_tokens_of_an_image_get_its_view_by_hand() -> None:
    model = make_model(view_embedding=True, patch_dropout=0.0)
    batch = study_batch(views=(PA, LATERAL, PA))
    batch.view_mask[1, 2] = False
    batch.lesion_mask[1, 1] = False
    views, model.views = model.views, None
    plain = model.look(batch)
    model.views = views
    told = model.look(batch)
    assert isinstance(views, ViewEmbedding)
    added = told.tokens - plain.tokens
    patches = added.shape[1] - 2
    expected = [views.view.weight[PA], views.view.weight[LATERAL], views.view.weight[PA] + views.number.weight[1]]
    for image in range(3):
        of_image = added[0, image * patches // 3 : (image + 1) * patches // 3]
        assert torch.allclose(of_image, expected[image].expand_as(of_image), atol=1e-6)
    assert torch.allclose(added[0, -2:], torch.stack(expected[:2]), atol=1e-6)  # boxes of image 0 and 1
    assert (added[1, 2 * patches // 3 : patches] == 0).all() and (added[1, -1] == 0).all()  # absent image and box
    assert torch.equal(told.lesions, plain.lesions) and torch.equal(told.patches, plain.patches)  # what LAB and GAB see


def test_order_of_images_matters_among_those_of_one_view_alone() -> None:
    model = make_model(view_embedding=True)
    assert torch.allclose(model(study_batch()), model(study_batch(order=(2, 0, 1))), atol=1e-5)
    alike = (PA, LATERAL, PA)
    kept = model(study_batch(views=alike))
    assert torch.allclose(kept, model(study_batch(views=alike, order=(1, 0, 2))), atol=1e-5)
    assert not torch.allclose(kept, model(study_batch(views=alike, order=(2, 1, 0))), atol=1e-5)


def test_boxes_are_told_by_the_image_they_are_in() -> None:
    """By class and position alone, two boxes in two images are the same two tokens whichever is where."""
    blind = {"lesion_branch": "roi_align", "lesion_position": False, "lesion_score": False}
    for switch, differs in ((False, False), (True, True)):
        model = make_model(view_embedding=switch, **blind)
        assert model.lesion_encoder is not None
        for parameter in model.lesion_encoder.appearance.parameters():
            torch.nn.init.zeros_(parameter)
        batch = study_batch()
        swapped = study_batch()
        swapped.lesion_view = swapped.lesion_view.flip(1)
        assert torch.allclose(model(batch), model(swapped), atol=1e-6) is not differs


def test_batch_and_single_agree_with_studies_of_one_and_three_images() -> None:
    model = make_model(view_embedding=True)
    batch = study_batch(views=(PA, LATERAL, PA))
    batch.view_mask[1, 1:] = False
    batch.lesion_mask[1] = False
    alone = ChestBatch(**{field.name: getattr(batch, field.name)[1:] for field in fields(batch)})
    alone.pixels, alone.view_mask = alone.pixels[:, :1], alone.view_mask[:, :1]
    one_image = {"views": alone.context.views[:, :1], "view_numbers": alone.context.view_numbers[:, :1]}
    alone.context = replace(alone.context, **one_image)
    for name in ("boxes_xyxy", "positions", "lesion_view", "category_ids", "scores", "crops", "lesion_mask"):
        setattr(alone, name, getattr(alone, name)[:, :0])
    assert torch.allclose(model(batch)[1], model(alone)[0], atol=1e-5)


def told_batch() -> ChestBatch:
    """Three entries: both texts and one earlier lesion; no indication, an earlier study without lesions; neither."""
    entries = [
        entry(indication="Cough and fever.", prior=PRIOR),
        entry(1, indication="", prior=PRIOR | {"report": "Clear.", "boxes": [], "scores": [], "labels": []}),
        entry(2, indication="", prior=None),
    ]
    contexts = EntryContexts(entries, WITH_TEXTS, **TEXT)
    batch = make_batch(lesions=(2, 0, 3))
    batch.context = collate_contexts([contexts.of(place) for place in range(3)])
    return batch


def test_words_are_numbered_by_hand() -> None:
    rules: dict[str, Any] = {"protocol": "r2gen", "buckets": 1000}
    expected = [1 + zlib.crc32(word) % 1000 for word in (b"cough", b"and", b"fever", b".")]
    assert word_ids("Cough, and FEVER.", most=9, **rules) == expected
    assert word_ids("Cough, and FEVER.", most=2, **rules) == expected[:2]
    assert word_ids("___", most=9, **rules) == [] and word_ids("", most=9, **rules) == []
    assert word_ids("Cough", most=1, protocol="faithful", buckets=1000) == expected[:1]


def test_texts_and_earlier_lesions_as_tensors() -> None:
    context = told_batch().context
    assert (context.indication_ids != 0).tolist() == [[True] * 4, [False] * 4, [False] * 4]
    assert (context.prior_ids != 0).sum(dim=1).tolist() == [5, 2, 0]  # cut at five words; "clear ."
    assert context.has_prior.tolist() == [True, True, False]
    assert context.prior_category_ids.tolist() == [[2], [0], [0]] and context.prior_scores.tolist() == [[0.5], [0.0], [0.0]]
    assert context.prior_positions[0, 0].tolist() == pytest.approx([0.25, 0.45, 0.3, 0.1])
    untaken = EntryContexts([entry(indication="Cough.", prior=PRIOR)], D2RNetModelSettings(), **TEXT).of(0)
    assert not len(untaken.indication_ids) and not len(untaken.prior_ids) and not untaken.has_prior
    with pytest.raises(DatasetError, match="class Nodule/Mass, which the model does not know"):
        EntryContexts([entry(prior=PRIOR)], WITH_TEXTS, protocol="r2gen", categories=("Cardiomegaly",))


def test_a_mirrored_entry_has_mirrored_texts_and_lesions() -> None:
    entries = [
        entry(indication="Left chest pain.", prior=PRIOR),
        entry(1, indication="Lingula?", prior=None),
        entry(2, indication="", prior=PRIOR | {"report": "Right middle lobe collapse."}),
    ]
    contexts = EntryContexts(entries, WITH_TEXTS, **TEXT, flips=True)
    assert [contexts.may_flip(place) for place in range(3)] == [True, False, False]
    rules: dict[str, Any] = {"protocol": "r2gen", "buckets": 1000, "most": 5}
    flipped = contexts.of(0, flip=True)
    assert flipped.indication_ids.tolist() == word_ids("Right chest pain.", **rules)
    assert flipped.prior_ids.tolist() == word_ids("Heart enlarged on the right.", **rules)
    assert flipped.prior_positions[0].tolist() == pytest.approx([0.75, 0.45, 0.3, 0.1])
    assert contexts.of(0).prior_positions[0, 0].item() == pytest.approx(0.25)


def test_shapes_and_masks_of_the_context_by_hand() -> None:
    model = make_model(indication=True, prior=True, context_buckets=1000)
    batch = told_batch()
    visual = model.look(batch)
    patches = visual.patches.shape[1]
    assert visual.mask[:, :patches].all()
    expected = torch.tensor(
        [  # is there, 4 words of the indication; is there, 5 words of the report; 1 earlier lesion
            [*(1, 1, 1, 1, 1), *(1, 1, 1, 1, 1, 1), 1],
            [*(1, 0, 0, 0, 0), *(1, 1, 1, 0, 0, 0), 0],
            [*(1, 0, 0, 0, 0), *(1, 0, 0, 0, 0, 0), 0],
        ],
        dtype=torch.bool,
    )
    told = slice(patches, patches + 12)
    assert torch.equal(visual.mask[:, told], expected)
    assert torch.equal((visual.tokens[:, told] != 0).any(dim=-1), expected)
    assert torch.equal(visual.mask[:, patches + 12 :], batch.lesion_mask)  # lesions stay the last tokens
    assert model.num_regions(visual) == 3 and visual.tokens.shape[1] == patches + 12 + 3
    assert isinstance(model.context, ContextEncoder) and isinstance(model.context.report, TextTokens)
    there = model.context.report.is_there.weight
    assert torch.equal(visual.tokens[:, patches + 5], there[[1, 1, 0]])  # the third entry has none before


def test_what_an_entry_tells_changes_its_own_report_alone() -> None:
    model = make_model(indication=True, prior=True, context_buckets=1000)
    before = model(told_batch())
    changes = {
        "indication_ids": (0, 1), "prior_ids": (0, 1), "prior_category_ids": (0, 0), "prior_scores": (0, 0),
        "prior_positions": (0, 0), "has_prior": (0,),
    }  # fmt: skip
    for name, place in changes.items():
        batch = told_batch()
        values = getattr(batch.context, name)
        values[place] = False if values.dtype == torch.bool else values[place] + 1
        after = model(batch)
        assert not torch.allclose(before[0], after[0], atol=1e-6), name
        assert torch.equal(before[1:], after[1:]), name


def test_padding_of_the_context_changes_nothing() -> None:
    """Batch and single agree, and what stands behind a mask is not read."""
    model = make_model(indication=True, prior=True, view_embedding=True, context_buckets=1000)
    batch = told_batch()
    alone = ChestBatch(**{field.name: getattr(batch, field.name)[2:] for field in fields(batch)})
    alone.context = ContextBatch.nothing(alone.view_mask)
    assert torch.allclose(model(batch)[2], model(alone)[0], atol=1e-5)
    dirty = told_batch()
    dirty.context.prior_positions[1:] = 0.7
    dirty.context.prior_scores[1:] = 0.9
    assert torch.equal(model(batch), model(dirty))


def test_an_earlier_lesion_is_no_lesion_of_today() -> None:
    """The same box tells one thing as an earlier and another as a present one, and is no region of a sentence."""
    model = make_model(prior=True)
    batch = told_batch()
    encoded = model.encode(batch)
    assert model.region_attention(encoded, batch.token_ids).shape[-1] == batch.lesion_mask.shape[1]
    assert model.context is not None and model.context.lesions is not None
    assert model.context.lesions.kind.weight.abs().sum() > 0


def test_an_earlier_lesion_is_marked_by_hand() -> None:
    model = make_model(prior=True)
    assert model.context is not None and model.context.lesions is not None
    branch = model.context.lesions
    marked, mask = branch(told_batch().context)
    torch.nn.init.zeros_(branch.kind.weight)
    plain, _ = branch(told_batch().context)
    torch.nn.init.ones_(branch.kind.weight)
    shifted, _ = branch(told_batch().context)
    assert torch.allclose(shifted[mask], plain[mask] + 1, atol=1e-6) and not torch.equal(marked[mask], plain[mask])


def test_every_part_gets_gradients_also_where_no_entry_tells_anything() -> None:
    """Or several processes would wait for each other for ever."""
    model = make_model(indication=True, prior=True, view_embedding=True)
    batch = make_batch(lesions=(1, 0))
    model(batch).sum().backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not [name for name in missing if name.startswith(("context.", "views."))]


def test_texts_need_their_keys(tmp_path: Path) -> None:
    source = tmp_path / "annotation.json"
    check_context([entry(indication="", prior=None)], WITH_TEXTS, source=source)
    for key in ("indication", "prior"):
        told = entry(indication="", prior=None)
        del told[key]
        with pytest.raises(DatasetError, match=rf"such as e0, have no key '{key}'.*Add '{key}' to cxr.annotation.context"):
            check_context([told], WITH_TEXTS, source=source)
