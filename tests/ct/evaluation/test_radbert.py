"""CT-RATE's text classifier: what says why it does not run, both layouts of weights, thresholds, and files that do not fit."""

import importlib.util
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from d2rnet.ct.evaluation.abnormalities import Truth
from d2rnet.ct.evaluation.radbert import RELEASED, RadBert

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "nodule", "heart", "."]


def test_without_weights_it_says_so():
    labels = RadBert(None, device="cpu")
    assert labels.notes == {"radbert18": "not run: ct.evaluation.radbert_weights is null"}
    assert labels.judge(["a"], None, ["b"]) == {}


def test_without_the_package_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    labels = RadBert(str(tmp_path), device="cpu")
    assert labels.notes["radbert18"].startswith("not run: the package transformers does not import")
    assert labels.judge(["a"], None, ["b"]) == {}


def test_a_missing_folder_is_named(tmp_path):
    labels = RadBert(str(tmp_path / "nowhere"), device="cpu")
    assert labels.notes["radbert18"] == f"not run: ct.evaluation.radbert_weights: {tmp_path / 'nowhere'}: no such folder."
    assert labels.judge(["a"], None, ["b"]) == {} and labels.files == {}


def test_each_text_is_read_once_and_set_beside_both_truths(monkeypatch):
    calls = []

    def classify(texts):
        calls.append(list(texts))
        return np.array([[text.startswith("a")] + [False] * 17 for text in texts])

    monkeypatch.setattr("d2rnet.ct.evaluation.radbert._open", lambda folder, device: classify)
    labels = RadBert(None, device="cpu")
    table = Truth({"uncertain_positive": np.zeros((2, 18), bool)}, np.ones((2, 18), bool))
    found = labels.judge(["a", "b"], table, ["a", "a"])
    assert sum(map(len, calls)) == 2
    assert found["radbert18_vs_report"].truth[:, 0].tolist() == [True, False]
    assert found["radbert18_vs_report"].claimed[:, 0].tolist() == [True, True]
    assert found["radbert18_vs_table"].truth.sum() == 0


def a_released_network(folder, monkeypatch, *, outputs=18, extra=None):
    """A pooled encoder of our own stands for RoBERTa; returns the weights that were saved."""

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(7, 4)

        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(pooler_output=(self.embedding(input_ids) * attention_mask[..., None]).sum(1))

    class Inputs(dict):
        def to(self, device):
            return self

    class Tokenizer:
        def __call__(self, texts, **options):
            assert options["max_length"] == 512 and options["truncation"]
            rows = [[WORDS.index(word) for word in text.split()] for text in texts]
            longest = max(map(len, rows))
            ids = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
            return Inputs(input_ids=ids, attention_mask=(ids != 1).long())

    fake = SimpleNamespace(
        AutoTokenizer=SimpleNamespace(from_pretrained=lambda *a, **k: Tokenizer()),
        AutoConfig=SimpleNamespace(from_pretrained=lambda *a, **k: SimpleNamespace(hidden_size=4)),
        AutoModel=SimpleNamespace(from_config=lambda config: Encoder()),
    )
    monkeypatch.setitem(__import__("sys").modules, "transformers", fake)
    torch.manual_seed(0)
    state = {"model.embedding.weight": torch.randn(7, 4), "classifier.weight": torch.randn(outputs, 4)}
    state |= {"classifier.bias": torch.randn(outputs), "model.embeddings.position_ids": torch.arange(3), **(extra or {})}
    torch.save(state, folder / RELEASED)
    return state


def test_the_released_layout_by_hand(tmp_path, monkeypatch):
    state = a_released_network(tmp_path, monkeypatch)
    labels = RadBert(str(tmp_path), device="cpu")
    found = labels.read(["nodule heart .", "heart"])
    embedding = state["model.embedding.weight"]
    logits = torch.stack([embedding[[4, 5, 6]].sum(0), embedding[5]]) @ state["classifier.weight"].T + state["classifier.bias"]
    assert found.tolist() == (logits > 0).tolist()  # sigmoid above 0.5
    assert 0 < found.sum() < found.size
    assert list(labels.files) == [f"radbert_{RELEASED}"]


@pytest.mark.parametrize("change", [{"outputs": 19}, {"extra": {"model.unknown": torch.zeros(1)}}])
def test_weights_that_do_not_fit_are_refused(tmp_path, monkeypatch, change):
    a_released_network(tmp_path, monkeypatch, **change)
    labels = RadBert(str(tmp_path), device="cpu")
    assert re.search(rf"^not run: .*{RELEASED}: does not fit", labels.notes["radbert18"])
    assert labels.read(["nodule"]) is None


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="optional extra text-encoder is not installed")
def test_a_sequence_classifier_that_transformers_saved(tmp_path):
    import transformers

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_word_tokenizer(vocabulary), pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=7,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=600,
        num_labels=18,
    )
    network = transformers.RobertaForSequenceClassification(config).eval()
    network.save_pretrained(tmp_path)
    labels = RadBert(str(tmp_path), device="cpu")
    inputs = tokenizer(["nodule heart ."], return_tensors="pt")
    with torch.no_grad():
        expected = network(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits > 0
    assert labels.read(["nodule heart ."]).tolist() == expected.tolist()


def _word_tokenizer(vocabulary):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer
