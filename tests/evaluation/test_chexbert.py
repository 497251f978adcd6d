"""CheXbert from a file of the published layout, with a tiny random BERT: labels by hand, conventions, why it is not run."""

import json
import sys

import numpy as np
import pytest

from d2rnet.evaluation.chexbert import BLANK, FIVE, LABELS, NEGATIVE, POSITIVE, PROTOCOLS, UNCERTAIN, Chexbert
from d2rnet.evaluation.chexbert_network import _tokenizer
from d2rnet.evaluation.clinical import agreement

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="optional extra text-encoder is not installed")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "no", "effusion", "heart", "large", "small", "left", "##s", "."]
SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
OUTPUTS = (*(4,) * 13, 2)


@pytest.fixture(scope="module")
def tiny():
    """Encoder and heads; random weights large enough that texts have different labels."""
    torch.manual_seed(0)
    bert = transformers.BertModel(transformers.BertConfig(vocab_size=len(WORDS), initializer_range=2.0, **SIZES)).eval()
    heads = [(torch.randn(outputs, 8), torch.randn(outputs)) for outputs in OUTPUTS]
    return bert, heads


def published(tiny, prefix="module."):
    """The state dict under the names of the published file."""
    bert, heads = tiny
    state = {f"{prefix}bert.{key}": value for key, value in bert.state_dict().items()}
    state[f"{prefix}bert.embeddings.position_ids"] = torch.arange(512)[None]
    for number, (weight, bias) in enumerate(heads):
        state |= {f"{prefix}linear_heads.{number}.weight": weight, f"{prefix}linear_heads.{number}.bias": bias}
    return state


@pytest.fixture
def weights(tiny, tmp_path):
    torch.save({"epoch": 7, "model_state_dict": published(tiny)}, tmp_path / "chexbert.pth")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": len(WORDS), **SIZES}))
    return tmp_path / "chexbert.pth"


def by_hand(tiny, pieces):
    """Labels of one text, given its word pieces."""
    bert, heads = tiny
    ids = torch.tensor([[WORDS.index(piece) for piece in ("[CLS]", *pieces, "[SEP]")]])
    with torch.no_grad():
        first = bert(input_ids=ids).last_hidden_state[0, 0]
    return [int((weight @ first + bias).argmax()) for weight, bias in heads]


def test_labels_by_hand(tiny, weights):
    texts = ["No effusions .", "heart large", "small  left\nEffusion", "", "zebra"]
    pieces = [["no", "effusion", "##s", "."], ["heart", "large"], ["small", "left", "effusion"], [], ["[UNK]"]]
    found = Chexbert(str(weights)).read(texts)
    assert found.tolist() == [by_hand(tiny, each) for each in pieces]  # in one batch, padded
    assert len({tuple(row) for row in found.tolist()}) > 2
    assert set(found[:, 13].tolist()) <= {BLANK, POSITIVE}
    assert {BLANK, POSITIVE, NEGATIVE, UNCERTAIN} <= set(found[:, :13].flatten().tolist())


def test_long_texts_are_cut_at_512_tokens(tiny, weights):
    words = [WORDS[4 + number % 6] for number in range(700)]
    found = Chexbert(str(weights)).read([" ".join(words)])
    assert found.tolist() == [by_hand(tiny, words[:510])]
    encoded = _tokenizer(weights.with_name("vocab.txt"), len(WORDS), source="here").encode(" ".join(words))
    assert encoded.tokens == ["[CLS]", *words[:510], "[SEP]"]


def test_a_file_without_the_prefix_of_data_parallel(tiny, weights):
    expected = Chexbert(str(weights)).read(["heart large"])
    torch.save({"model_state_dict": published(tiny, prefix="")}, weights)
    assert Chexbert(str(weights)).read(["heart large"]).tolist() == expected.tolist()


def states(**named):
    """One report's classes: those named, the others blank."""
    row = [BLANK] * len(LABELS)
    for name, state in named.items():
        row[LABELS.index(name.replace("_", " "))] = state
    return row


def judged(monkeypatch, truth, claimed):
    texts = [[f"{side} {row}" for row in range(len(rows))] for side, rows in (("true", truth), ("claimed", claimed))]
    known = dict(zip([*texts[0], *texts[1]], [*truth, *claimed], strict=True))
    monkeypatch.setattr("d2rnet.evaluation.chexbert._open", lambda _: lambda asked: np.array([known[text] for text in asked]))
    return Chexbert(None).judge(*texts)


def test_conventions_and_averages_by_hand(monkeypatch):
    """Truth: edema and a doubted effusion; a fracture. Claimed: edema; an effusion, the fracture denied, no finding."""
    truth = [states(Edema=POSITIVE, Pleural_Effusion=UNCERTAIN, Pneumonia=NEGATIVE), states(Fracture=POSITIVE)]
    claimed = [states(Edema=POSITIVE), states(Pleural_Effusion=POSITIVE, Fracture=NEGATIVE, No_Finding=POSITIVE)]
    found = judged(monkeypatch, truth, claimed)
    assert list(found) == list(PROTOCOLS)
    scores = {key: agreement(each.truth, each.claimed, PROTOCOLS[key]) for key, each in found.items()}
    doubt = scores["chexbert14_uncertain_positive"]
    assert (doubt["micro_precision"], doubt["micro_recall"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert doubt["example_precision"] == pytest.approx((1 + 0) / 2)
    assert doubt["example_recall"] == pytest.approx((1 / 2 + 0) / 2)
    assert doubt["macro_f1"] == pytest.approx((1 + 0 + 0) / 3)  # edema, effusion, fracture
    assert scores["chexbert14_uncertain_negative"]["micro_recall"] == pytest.approx(1 / 2)
    five = scores["chexbert5_uncertain_positive"]
    assert (five["micro_precision"], five["micro_recall"], five["micro_f1"]) == (1 / 2, 1 / 2, 1 / 2)
    assert set(five["per_class"]) == {"Edema", "Pleural Effusion"}
    assert scores["chexbert5_uncertain_negative"]["example_f1"] == pytest.approx(1 / 2)  # of the second only a claim is left
    assert found["chexbert5_uncertain_positive"].truth.shape == (2, len(FIVE))


def note(weights):
    labels = Chexbert(None if weights is None else str(weights))
    assert labels.judge(["a"], ["b"]) == {} and not labels.runs
    return labels.notes["chexbert"]


def test_why_it_is_not_run(tiny, weights, monkeypatch):
    assert note(None) == "not run: evaluation.chexbert_weights is null"
    assert note(weights.with_name("other.pth")).endswith("other.pth: no such file; expected chexbert.pth.")
    (weights.parent / "config.json").rename(weights.parent / "config.txt")
    assert "does not fit BERT-base (config.json beside it would say another) and 14 labels: Error(s) in" in note(weights)
    (weights.parent / "config.txt").rename(weights.parent / "config.json")
    (weights.parent / "vocab.txt").write_text("\n".join(WORDS[1:]))
    assert "vocab.txt: 11 word pieces, without [PAD]; expected 12" in note(weights)
    (weights.parent / "vocab.txt").unlink()
    assert "expected vocab.txt of bert-base-uncased beside the weights" in note(weights)
    (weights.parent / "vocab.txt").write_text("\n".join(WORDS))
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'd2rnet[text-encoder]'" in note(weights)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: {}, "no 'model_state_dict' in it"),
        (lambda state: {"model_state_dict": {**state, "module.linear_heads.14.weight": torch.zeros(2, 8)}}, "linear_heads.14"),
        (lambda state: {"model_state_dict": {**state, "module.linear_heads.13.bias": torch.zeros(4)}}, "linear_heads.13.bias"),
        (lambda state: {"model_state_dict": dict(list(state.items())[1:])}, "word_embeddings"),
    ],
)
def test_files_of_another_layout(tiny, weights, change, reason):
    torch.save(change(published(tiny)), weights)
    assert reason in note(weights)


def test_a_file_that_is_no_torch_file(weights):
    weights.write_bytes(b"not weights")
    assert "chexbert.pth: not a readable PyTorch file" in note(weights)
