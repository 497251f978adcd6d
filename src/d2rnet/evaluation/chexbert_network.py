"""The network of CheXbert, and its weights from the published file. Torch is imported where the weights are given.

Reads: chexbert.pth (``model_state_dict`` with keys ``module.bert.*`` and ``module.linear_heads.<label>.*``), vocab.txt of
bert-base-uncased beside it, and config.json, if the encoder is not BERT-base.
Shapes: n texts, T tokens, D width, 14 labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from d2rnet.errors import CheckpointError
from d2rnet.evaluation.outside_labeller import Classify, import_transformers, take_weights
from d2rnet.runs.device import resolve_device

OUTPUTS = (*(4,) * 13, 2)  # classes of each label; "No Finding" is blank or positive
MAX_TOKENS = 512
STATE = "model_state_dict"
PARALLEL = "module."  # before each key, as DataParallel writes it
CONFIG = "config.json"


def _network(encoder: Any, width: int) -> Any:
    """Return the encoder, of ``width`` D, with a linear layer a label; parameters are named as in the published file."""
    import torch
    from torch import Tensor, nn

    class ChexbertNetwork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = encoder
            self.linear_heads = nn.ModuleList([nn.Linear(width, outputs) for outputs in OUTPUTS])

        def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
            """Return (n, 14) int64, the likeliest class of each label, for (n, T) ids and mask, 0 at padding."""
            first = self.bert(input_ids=token_ids, attention_mask=mask).last_hidden_state[:, 0]  # (n, D)
            return torch.stack([head(first).argmax(dim=1) for head in self.linear_heads], dim=1)

    return ChexbertNetwork()


def open_network(weights: Path, vocabulary: Path, *, source: str) -> Classify:
    """Return a function: n texts -> (n, 14) classes, on the GPU where there is one.

    Args:
        weights: chexbert.pth.
        vocabulary: vocab.txt, a word piece a line.
        source: setting that named them, for errors.

    Raises:
        CheckpointError: a file is something else, or they do not belong together.
        ToolError: transformers is not installed.
        ImportError: torch is not.
    """
    import torch

    from d2rnet.files.torch_files import load_torch

    transformers = import_transformers()
    content = load_torch(weights)
    if not isinstance(content.get(STATE), dict):
        raise CheckpointError(f"{source}: {weights}: no '{STATE}' in it; expected the published chexbert.pth.")
    state = {key.removeprefix(PARALLEL): value for key, value in content[STATE].items()}
    beside = weights.with_name(CONFIG)
    config = transformers.BertConfig.from_json_file(str(beside)) if beside.is_file() else transformers.BertConfig()
    network = _network(transformers.BertModel(config), config.hidden_size)
    shape = str(beside) if beside.is_file() else f"BERT-base ({CONFIG} beside it would say another)"
    take_weights(network, state, source=f"{source}: {weights}", expected=f"{shape} and 14 labels")
    tokenizer = _tokenizer(vocabulary, config.vocab_size, source=source)
    device = resolve_device("auto")
    network = network.to(device).eval()

    @torch.inference_mode()
    def classify(texts: Sequence[str]) -> NDArray[Any]:
        encoded = tokenizer.encode_batch(list(texts))
        ids = torch.tensor([each.ids for each in encoded], device=device)  # (n, T)
        mask = torch.tensor([each.attention_mask for each in encoded], device=device)
        return network(ids, mask).cpu().numpy()

    return classify


def _tokenizer(vocabulary: Path, size: int, *, source: str) -> Any:
    """Return the tokenizer of bert-base-uncased for a vocabulary of ``size`` word pieces; it pads and cuts."""
    from tokenizers.implementations import BertWordPieceTokenizer  # comes with transformers

    pieces = vocabulary.read_text(encoding="utf-8").split("\n")
    words = {piece: number for number, piece in enumerate(pieces[:-1] if not pieces[-1] else pieces)}
    lacking = [piece for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if piece not in words]
    if lacking or len(words) != size:
        raise CheckpointError(
            f"{source}: {vocabulary}: {len(words)} word pieces{', without ' + ' '.join(lacking) if lacking else ''}; expected "
            f"{size}, [PAD], [UNK], [CLS] and [SEP] among them: vocab.txt of bert-base-uncased."
        )
    tokenizer = BertWordPieceTokenizer(words, lowercase=True)
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(pad_id=words["[PAD]"])
    return tokenizer
