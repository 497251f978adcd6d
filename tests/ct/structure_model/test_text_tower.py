"""Text towers: texts as written reach a pretrained one's own tokenizer; CT-CLIP's takes its place, in every tensor."""

import logging
from pathlib import Path

import pytest
import torch
from ct_clip_sample import SMALL, V1, V2, ct_clip_state
from structure_samples import SHAPE, tiny_settings, write_samples
from torch.nn import functional as F

from d2rnet.ct.structure_model.ct_clip_weights import UNUSED_BY_TEXT, CtClipText, ct_clip_text_name
from d2rnet.ct.structure_model.dataset import StructureEntries
from d2rnet.ct.structure_model.encoder_weights import match_weights
from d2rnet.ct.structure_model.evaluate import evaluate_structures
from d2rnet.ct.structure_model.settings import EvaluateStructuresSettings, StructureTextSettings
from d2rnet.ct.structure_model.text_tower import PretrainedTextTower, embed_known, make_text_tower, text_tokens, tower_files
from d2rnet.ct.structure_model.trainer import train_structures
from d2rnet.ct.structures.table import load_table
from d2rnet.ct.verify_training import check_models
from d2rnet.errors import CheckpointError, ConfigError
from d2rnet.files.documents import read_json
from d2rnet.report.annotation_file import Entry
from d2rnet.report.text.vocabulary import count_vocabulary
from d2rnet.settings import Section

transformers = pytest.importorskip("transformers", reason="optional extra text-encoder is not installed")
from tiny_bert import as_cxr_bert, save_tokenizer, write_bert  # noqa: E402  (needs transformers)

VOCABULARY = count_vocabulary(["the lungs are clear ."], protocol="faithful", section="findings", min_token_count=1)
TEXT = "The lungs are clear. NODULE"
PIECES = ["[CLS]", "the", "lung", "##s", "are", "clear", ".", "nod", "##ule", "[SEP]"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("weights") / "bert")


@pytest.fixture(scope="module")
def ct_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "CT_CLIP_zeroshot.pt"
    torch.save(ct_clip_state(SMALL), path)
    return path


def of(bert: Path, **changes: object) -> StructureTextSettings:
    return StructureTextSettings().replaced(weights=str(bert), **changes)


def test_the_text_as_written_reaches_the_tower_s_own_tokenizer(bert: Path) -> None:
    """Spelled from our vocabulary, in which nodule is unknown, it would be [UNK]."""
    tokens = text_tokens(of(bert), VOCABULARY)
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(bert))
    assert tokenizer.convert_ids_to_tokens(tokens.encode(TEXT)) == PIECES
    assert tokenizer.convert_ids_to_tokens(text_tokens(of(bert, max_tokens=6), VOCABULARY).encode(TEXT)) == [
        *PIECES[:5],
        "[SEP]",
    ]
    own = text_tokens(StructureTextSettings(), VOCABULARY)
    assert own.encode(TEXT) == VOCABULARY.encode(TEXT, max_tokens=64) and own.pad_id == 0


def test_mean_of_words_and_first_token_by_hand(bert: Path) -> None:
    tokens = text_tokens(of(bert), VOCABULARY)
    ids = torch.tensor([tokens.encode(TEXT)])
    network = transformers.AutoModel.from_pretrained(str(bert)).eval()
    with torch.no_grad():
        features = network(input_ids=ids).last_hidden_state[0]
    words = [place for place, piece in enumerate(PIECES) if piece not in ("[CLS]", "[SEP]", ".")]
    by_hand = {"mean": features[words].mean(dim=0), "cls": features[0]}
    for pooling, expected in by_hand.items():
        tower = make_text_tower(of(bert, pooling=pooling), VOCABULARY).train()
        padded = F.pad(ids, (0, 4), value=tower.pad_id)
        for given in (ids, padded, padded):  # dropout would make the last two differ
            torch.testing.assert_close(tower(given)[0], F.normalize(expected, dim=0), rtol=1e-4, atol=1e-5)
        assert tower.width == SMALL.text_width and tower.is_frozen
        assert tower.state_dict() == {} and list(tower.parameters()) == []


def test_ct_clip_s_text_tower_is_laid_over_the_folder(bert: Path, ct_clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = torch.load(ct_clip)
    with caplog.at_level(logging.INFO):
        tower = make_text_tower(of(bert, ct_clip_weights=str(ct_clip), pooling="cls"), VOCABULARY).train()
    assert isinstance(tower, PretrainedTextTower) and tower.width == SMALL.latent and tower.state_dict() == {}
    ids = torch.tensor([text_tokens(of(bert), VOCABULARY).encode(TEXT)])
    network = transformers.AutoModel.from_pretrained(str(bert)).eval()
    text = {name.removeprefix("text_transformer."): value for name, value in state.items() if name.startswith("text_")}
    text.pop("embeddings.position_ids")
    network.load_state_dict(text, strict=True)
    with torch.no_grad():
        first = network(input_ids=ids).last_hidden_state[:, 0]
    expected = F.normalize(first @ state["to_text_latent.weight"].T, dim=-1)
    found = tower(ids)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not found.requires_grad
    assert "took 24 tensors" in caplog.text and "left out 4 tensors, projections and temperature" in caplog.text
    assert "1 tensors, counters" in caplog.text and "the image encoder" in caplog.text


@pytest.mark.parametrize("sizes", [V1, V2])
def test_the_published_text_tower_fits_name_by_name(sizes) -> None:
    with torch.device("meta"):
        bert = transformers.AutoModel.from_config(transformers.BertConfig())  # 12 layers of 768
        network = CtClipText(bert, torch.nn.Linear(768, 512, bias=False)).state_dict()
    state = ct_clip_state(sizes, device="meta")
    names = {own: ct_clip_text_name(own) for own in network}
    report = match_weights(network, state, names, UNUSED_BY_TEXT, Path("CT_CLIP_zeroshot.pt"))
    assert len(report.taken) == 200 and report.taken["projection.weight"] == "to_text_latent.weight"
    assert report.taken["bert.encoder.layer.11.output.dense.bias"] == "text_transformer.encoder.layer.11.output.dense.bias"
    left = [name for names in report.left_out.values() for name in names]
    assert sorted([*report.taken.values(), *left]) == sorted(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_transformer.embeddings.word_embeddings.weight": None}, r"embeddings\.word_embeddings\.weight is missing"),
        ({"to_text_latent.weight": None}, r"to_text_latent\.weight is missing"),
        ({"to_text_latent.weight": torch.zeros(6, 5)}, r"to_text_latent\.weight is \(6, 5\); expected \(width, 12\)"),
        ({"text_transformer.pooler.dense.bias": None}, "lacks 1 of the encoder's 24 tensors"),
        ({"text_transformer.encoder.layer.1.output.dense.bias": torch.zeros(12)}, "1 tensors belong to no part"),
        ({"text_transformer.embeddings.word_embeddings.weight": torch.zeros(21, 12)}, r"\(21, 12\) instead of \(20, 12\)"),
        ({"text_transformer.embeddings.LayerNorm.bias": torch.full((12,), torch.nan)}, "not finite"),
    ],
)
def test_what_does_not_fit_the_folder_is_refused(bert: Path, tmp_path: Path, change, message) -> None:
    state = {name: value for name, value in (ct_clip_state(SMALL) | change).items() if value is not None}
    torch.save(state, tmp_path / "ct_clip.pt")
    with pytest.raises(CheckpointError, match=message):
        make_text_tower(of(bert, ct_clip_weights=str(tmp_path / "ct_clip.pt"), pooling="cls"), VOCABULARY)


def test_a_folder_of_cxr_bert_is_read_as_the_bert_it_is(bert: Path, ct_clip: Path, tmp_path: Path) -> None:
    """Its code, which is not there, is not asked for."""
    plain = write_bert(tmp_path / "plain")
    folder = as_cxr_bert(write_bert(tmp_path / "cxr_bert"))
    assert text_tokens(of(folder), VOCABULARY).encode(TEXT) == text_tokens(of(plain), VOCABULARY).encode(TEXT)
    ids = torch.tensor([text_tokens(of(plain), VOCABULARY).encode(TEXT)])
    for changes in ({}, {"ct_clip_weights": str(ct_clip), "pooling": "cls"}):
        theirs = make_text_tower(of(folder, **changes), VOCABULARY)
        torch.testing.assert_close(theirs(ids), make_text_tower(of(plain, **changes), VOCABULARY)(ids))


def test_a_folder_without_a_vocabulary_is_refused(tmp_path: Path) -> None:
    """Transformers makes up a tokenizer that knows no word."""
    folder = write_bert(tmp_path / "bert")
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match=r"text\.weights: .* has no vocabulary"):
        text_tokens(of(folder), VOCABULARY)


def test_settings_that_do_not_go_together(bert: Path) -> None:
    for changes, message in (
        ({"ct_clip_weights": "file.pt", "pooling": "cls"}, "ct_clip_weights: expected null without weights"),
        ({"weights": "folder", "ct_clip_weights": "file.pt"}, "pooling: expected cls with ct_clip_weights"),
        ({"pooling": "cls"}, "pooling: expected mean without weights"),
    ):
        with pytest.raises(ConfigError, match=message):
            StructureTextSettings().replaced(**changes)
    with pytest.raises(ConfigError, match=r"max_tokens: got 513; the encoder in .* reads 512"):
        make_text_tower(of(bert, max_tokens=513), VOCABULARY)


def test_files_of_a_tower_are_in_the_run_s_record(bert: Path, ct_clip: Path, tmp_path: Path) -> None:
    assert tower_files(StructureTextSettings()) == {}
    files = tower_files(of(bert, ct_clip_weights=str(ct_clip), pooling="cls"))
    assert files["text_ct_clip_weights"] == ct_clip and "text_encoder_model.safetensors" in files
    with pytest.raises(FileNotFoundError, match=r"ct\.structure_model\.text\.ct_clip_weights: .*gone\.pt: no such file"):
        tower_files(of(bert, ct_clip_weights=str(tmp_path / "gone.pt"), pooling="cls"))


def test_another_padding_id_is_the_tower_s(tmp_path: Path, bert: Path) -> None:
    """Padding of a batch and the mask of the encoder go by the tokenizer, whose padding need not be 0."""
    folder = write_bert(tmp_path / "bert")
    vocabulary = (folder / "vocab.txt").read_text().splitlines()
    vocabulary[0], vocabulary[2] = vocabulary[2], vocabulary[0]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    (folder / "tokenizer.json").unlink()
    save_tokenizer(folder)
    write_samples(tmp_path)
    table = load_table("ten")
    entries: list[Entry] = read_json(tmp_path / "ct_annotation.json")["train"][:2]
    settings = of(folder)
    tokens = text_tokens(settings, VOCABULARY)
    assert tokens.pad_id == 2
    dataset = StructureEntries(entries, tmp_path / "volumes", tokens=tokens, table=table, text=settings)
    batch = dataset.collate([dataset[0], dataset[1]])
    tower = make_text_tower(settings, VOCABULARY)
    assert (batch.token_ids[~batch.known] == 2).all()
    found = embed_known(tower, batch.token_ids, batch.known)
    place = list(table.structures).index("lung")
    for number, entry in enumerate(entries):
        alone = tower(torch.tensor([tokens.encode(entry["structures"]["lung"]["text"])]))[0]
        torch.testing.assert_close(found[number, place], alone, rtol=1e-4, atol=1e-5)


def test_no_text_at_all_goes_backward_as_some_do() -> None:
    """In a process whose volumes have none, while others have some and gather the gradients of all."""
    tower = make_text_tower(StructureTextSettings(), VOCABULARY)
    nothing = embed_known(tower, torch.zeros(2, 3, 5, dtype=torch.long), torch.zeros(2, 3, dtype=torch.bool))
    assert nothing.shape == (2, 3, tower.width) and not nothing.any()
    nothing.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in tower.parameters())
    for parameter in tower.parameters():
        parameter.requires_grad_(False)
    assert not embed_known(tower, torch.zeros(2, 3, 5, dtype=torch.long), torch.zeros(2, 3, dtype=torch.bool)).requires_grad


def test_stage_1_trains_and_is_scored_with_ct_clip_s_text_tower(bert: Path, ct_clip: Path, tmp_path: Path) -> None:
    write_samples(tmp_path)
    text = {"weights": str(bert), "ct_clip_weights": str(ct_clip), "pooling": "cls"}
    train_structures(
        annotation=tmp_path / "ct_annotation.json",
        volumes=tmp_path / "volumes",
        work=tmp_path / "work",
        output=tmp_path / "model",
        device="cpu",
        settings=tiny_settings(text=text, training={"epochs": 1}),
    )
    assert "text_ct_clip_weights" in read_json(tmp_path / "model" / "run.json")["inputs"]
    evaluate_structures(
        annotation=tmp_path / "ct_annotation.json",
        volumes=tmp_path / "volumes",
        model=tmp_path / "model",
        output=tmp_path / "scores",
        device="cpu",
        settings=EvaluateStructuresSettings.read({"structure_model": {"evaluation": {"bootstrap_samples": 20}}}),
    )
    assert read_json(tmp_path / "scores" / "metrics.json")["zero_shot_auroc_macro"] is not None


def test_the_check_before_a_training_loads_it(bert: Path, tmp_path: Path) -> None:
    from d2rnet.ct.settings import CtSettings

    state = ct_clip_state(SMALL)
    del state["text_transformer.pooler.dense.bias"]
    torch.save(state, tmp_path / "ct_clip.pt")
    text = {"weights": str(bert), "ct_clip_weights": str(tmp_path / "ct_clip.pt"), "pooling": "cls"}
    settings: Section = CtSettings().replaced(
        data={"conversion": {"shape_zyx": SHAPE}}, structure_model={"text": text, "model": {"encoder": {"width": 12}}}
    )
    with pytest.raises(CheckpointError, match="lacks 1 of the encoder's 24 tensors"):
        check_models(settings)
