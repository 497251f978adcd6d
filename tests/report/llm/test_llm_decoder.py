"""A tiny random Llama as report decoder: its loss, padding, beam search, what it learns and what it saves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from llm_samples import NEEDS_EXTRA, REPORTS, write_llama
from torch import Tensor, nn
from torch.nn import functional as F

from d2rnet.errors import CheckpointError, ConfigError
from d2rnet.report.decoder.beam_search import SearchOptions, beam_search
from d2rnet.report.decoder.token_rules import SpecialIds
from d2rnet.report.interface import ReportModel, VisualTokens
from d2rnet.report.llm.base import load_tokenizer
from d2rnet.report.llm.decoder import LlmDecoder
from d2rnet.report.llm.tokens import OFFSET, LlmTokens
from d2rnet.report.settings import LlmSettings, ReportTrainingSettings
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from d2rnet.report.training_task import report_task
from d2rnet.report.validation import token_loss, validate_model
from d2rnet.training.batches import stack_padded

pytestmark = NEEDS_EXTRA
CPU = torch.device("cpu")
WIDTH = 32  # of the tiny Llama
EVERY_LAYER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the base model; it has 3 rows that its tokenizer does not use."""
    return write_llama(tmp_path_factory.mktemp("llama"), extra_rows=3)


def settings_of(llama: Path, **changes: Any) -> LlmSettings:
    return LlmSettings(weights=str(llama), dtype="float32", prompt="Findings:", lora_rank=4).replaced(**changes)


def decoder_of(llama: Path, *, used: bool = True, **changes: Any) -> LlmDecoder:
    """A decoder in evaluation mode; ``used``: its adapters have an effect, as after training."""
    torch.manual_seed(3)
    decoder = LlmDecoder(settings_of(llama, **changes)).eval()
    if used:
        for name, parameter in decoder.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.3)
    return decoder


def tokens_of(llama: Path) -> LlmTokens:
    return LlmTokens(load_tokenizer(llama, place="weights"), "faithful")


def batch_of(llama: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Visual tokens (4, 5, WIDTH) with nonsense at masked places, their mask, reports (4, T)."""
    generator = torch.Generator().manual_seed(1)
    visual = torch.randn(4, 5, WIDTH, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 1], [1, 1, 1, 0, 0]]).bool()
    visual[~mask] = 1e3
    tokens = tokens_of(llama)
    reports = [torch.tensor(tokens.encode(report, max_tokens=60)) for report in REPORTS]
    return visual, mask, stack_padded(reports, value=PAD_ID)[0]


def test_the_loss_is_of_the_reports_pieces_and_its_end_alone(llama):
    """By hand with the base model itself: neither prompt nor padding count, each given piece sees what stands before it."""
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    tokenizer = load_tokenizer(llama, place="weights")
    visual, mask, token_ids = batch_of(llama)
    decoder = decoder_of(llama, used=False)
    embed = base.get_input_embeddings()
    prompt = tokenizer("Findings:", add_special_tokens=False)["input_ids"]
    expected, pieces_of_all = 0.0, 0
    with torch.no_grad():
        for row, report in enumerate(REPORTS):
            pieces = [*tokenizer(report, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            given = [embed(torch.tensor([1])), visual[row][mask[row]], embed(torch.tensor([*prompt, *pieces[:-1]]))]
            logits = base(inputs_embeds=torch.cat(given)[None]).logits[0, -len(pieces) :]
            expected += float(F.cross_entropy(logits, torch.tensor(pieces), reduction="sum"))
            pieces_of_all += len(pieces)
        loss, count = token_loss(decoder(decoder.encode(visual, mask), mask, token_ids[:, :-1]), token_ids)
    assert int(count) == pieces_of_all and float(loss) == pytest.approx(expected, rel=1e-5)
    assert tokenizer.bos_token_id == 1


def test_an_entry_of_a_batch_is_the_entry_alone(llama):
    visual, mask, token_ids = batch_of(llama)
    decoder = decoder_of(llama)
    options = SearchOptions(beam_size=2, max_tokens=12)
    with torch.no_grad():
        together = decoder(decoder.encode(visual, mask), mask, token_ids[:, :-1])
        written = decoder.search(visual, mask, options)
        for row, seen in enumerate(mask):
            own = (visual[row : row + 1, seen], mask[row : row + 1, seen])
            length = int((token_ids[row] != PAD_ID).sum()) - 1
            alone = decoder(*own, token_ids[row : row + 1, :length])
            torch.testing.assert_close(together[row : row + 1, :length], alone, rtol=1e-4, atol=1e-4)
            single = decoder.search(*own, options)
            kept = single.token_ids.shape[1]
            assert written.token_ids[row, :kept].tolist() == single.token_ids[0].tolist()
            assert not written.token_ids[row, kept:].any()
            assert float(written.log_probs[row]) == pytest.approx(float(single.log_probs[0]), rel=1e-4)


class WholePrefixes:
    """The decoder for the project's own beam search, each prefix scored from its beginning."""

    def __init__(self, decoder: LlmDecoder) -> None:
        self.decoder = decoder

    def start(self, encoded: Tensor, mask: Tensor, *, beams: int, max_tokens: int) -> "WholePrefixes":
        self.encoded, self.mask = (each.repeat_interleave(beams, dim=0) for each in (encoded, mask))
        self.written = torch.zeros(len(self.encoded), 0, dtype=torch.long)
        self.beams = beams
        return self

    def step(self, token_ids: Tensor, state: "WholePrefixes") -> Tensor:
        self.written = torch.cat([self.written, token_ids[:, None]], dim=1)
        return self.decoder(self.encoded, self.mask, self.written)[:, -1]

    def reorder(self, origin: Tensor) -> None:
        self.written = self.written[(torch.arange(len(origin))[:, None] * self.beams + origin).flatten()]


@pytest.mark.parametrize(
    ("beams", "rules"),
    [
        (1, {}),
        (3, {}),
        (3, {"length_penalty": 1.0}),
        (2, {"min_tokens": 6}),
        (1, {"min_tokens": 40}),
        (3, {"no_repeat_ngram": 1}),
    ],
)
def test_beam_search_finds_what_the_projects_own_finds(llama, beams, rules):
    """transformers' search and ours agree in what is forbidden, in what ends a report, and in its log-probability."""
    visual, mask, _ = batch_of(llama)
    decoder = decoder_of(llama)
    end, special = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(4)) * 0.4
    with torch.no_grad():  # some reports end early, others late or not at all; special pieces would be written
        decoder.llm.get_output_embeddings().weight[decoder.end] = end
        decoder.llm.get_output_embeddings().weight[decoder.never_written] = special
    forbidden = (PAD_ID, BOS_ID, UNK_ID, *(OFFSET + piece for piece in (*decoder.never_written, decoder.end)))
    ids = SpecialIds(PAD_ID, BOS_ID, EOS_ID, never_written=forbidden)
    options = SearchOptions(beam_size=beams, max_tokens=9, ids=ids, early_stop=False, **rules)
    own = beam_search(WholePrefixes(decoder), visual, mask, options)
    found = decoder.search(visual, mask, options)
    length = found.token_ids.shape[1]
    assert found.token_ids.tolist() == own.token_ids[:, :length].tolist() and not own.token_ids[:, length:].any()
    torch.testing.assert_close(found.log_probs, own.log_probs, rtol=1e-4, atol=1e-4)
    if not rules:
        ends = [row.index(EOS_ID) if EOS_ID in row else None for row in found.token_ids.tolist()]
        assert len(set(ends)) > 1, "the case tests no padding behind an end"


def test_only_adapters_are_trained_and_saved(llama):
    decoder = decoder_of(llama, dtype="bfloat16")
    state = decoder.state_dict()
    assert len(state) == 16 and all(".lora_" in name for name in state)  # 2 layers x 4 projections x A, B
    assert {name for name, parameter in decoder.named_parameters() if parameter.requires_grad} == set(state)
    assert all(value.dtype == torch.float32 for value in state.values())
    assert decoder.llm.get_input_embeddings().weight.dtype == torch.bfloat16
    other = decoder_of(llama, used=False, dtype="bfloat16")
    visual, mask, token_ids = batch_of(llama)
    with torch.no_grad():
        expected = decoder(decoder.encode(visual, mask), mask, token_ids)
        assert not torch.equal(other(other.encode(visual, mask), mask, token_ids), expected)
        other.load_state_dict(state, strict=True)
        assert torch.equal(other(other.encode(visual, mask), mask, token_ids), expected)
    name = next(iter(state))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({key: value for key, value in state.items() if key != name}, strict=True)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict({**state, "more": state[name]}, strict=True)


def test_names_and_shapes_are_known_without_the_weights(llama):
    decoder = decoder_of(llama)
    with torch.device("meta"):
        shapes = LlmDecoder(settings_of(llama)).state_dict()
    assert {name: value.shape for name, value in shapes.items()} == {
        name: value.shape for name, value in decoder.state_dict().items()
    }
    assert all(value.is_meta for value in shapes.values())


@dataclass
class ToyBatch:
    """Vectors (B, L, 4), their mask, and the reports' tokens."""

    vectors: Tensor
    mask: Tensor
    token_ids: Tensor

    def to(self, device: torch.device | str) -> "ToyBatch":
        return self

    def __len__(self) -> int:
        return len(self.token_ids)


class ToyModel(ReportModel):
    """A projection before the language model."""

    def __init__(self, settings: LlmSettings) -> None:
        super().__init__()
        self.transformer = LlmDecoder(settings)
        self.project = nn.Linear(4, self.transformer.d_model)

    def look(self, batch: ToyBatch) -> VisualTokens:
        return VisualTokens(self.project(batch.vectors), batch.mask)


class ToyEntries:
    """Report ``n`` has 1 to 3 equal tokens that say n."""

    def __init__(self, tokens: LlmTokens) -> None:
        self.tokens = tokens

    def of_epoch(self, epoch: int) -> "ToyEntries":
        return self

    def __len__(self) -> int:
        return len(REPORTS)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        ids = self.tokens.encode(REPORTS[index], max_tokens=60)
        return torch.eye(4)[[index] * (1 + index % 3)], torch.tensor(ids)

    def collate(self, samples: Sequence[tuple[Tensor, Tensor]]) -> ToyBatch:
        vectors, mask = stack_padded([sample[0] for sample in samples])
        return ToyBatch(vectors, mask, stack_padded([sample[1] for sample in samples], value=PAD_ID)[0])


def test_it_learns_four_reports_from_their_visual_tokens(llama):
    """In bfloat16 with adapters in float32, as on a GPU; the base model stays as it was."""
    tokens = tokens_of(llama)
    entries = ToyEntries(tokens)
    torch.manual_seed(0)
    model = ToyModel(settings_of(llama, dtype="bfloat16", lora_rank=16, lora_targets=list(EVERY_LAYER)))
    before = {name: value.clone() for name, value in model.named_parameters() if not value.requires_grad}
    training = ReportTrainingSettings(epochs=120, batch_size=4, learning_rate=0.01, max_report_tokens=60)
    task = report_task(model, entries, training, device=CPU)
    while task.finished_steps < task.total_steps:
        for batch in task.batches():
            task.train_step(batch)
    model.eval()
    batch = entries.collate([entries[index] for index in range(4)])
    options = SearchOptions(beam_size=2, max_tokens=60)
    expected = [tokens.decode(row) for row in batch.token_ids.tolist()]
    with torch.no_grad():
        found = model.generate(model.encode(batch), options)
        assert [tokens.decode(row) for row in found.token_ids.tolist()] == expected
        turned = ToyBatch(batch.vectors.flip(0), batch.mask.flip(0), batch.token_ids)
        swapped = model.generate(model.encode(turned), options)
    assert [tokens.decode(row) for row in swapped.token_ids.tolist()] == expected[::-1] != expected
    scores = validate_model(model, [batch], vocabulary=tokens, max_tokens=60, write_reports=True)
    assert scores["val_bleu_4"] == pytest.approx(1) and scores["val_loss"] < 0.5
    after = dict(model.named_parameters())
    assert len(before) == 21 and all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora_targets": ["W_pack", "o_proj"]}, r"lora_targets: W_pack: no such layer in .*; expected some of .*o_proj"),
        ({"prompt": ""}, r"prompt: got ''; expected words before the report"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(llama, changes, words):
    with pytest.raises(ConfigError, match=words):
        decoder_of(llama, **changes)


def test_a_tokenizer_of_a_larger_model_is_refused(tmp_path):
    folder = write_llama(tmp_path / "small", extra_rows=-5)
    with pytest.raises(
        CheckpointError, match=r"the tokenizer has \d+ pieces, the model \d+\. Put the tokenizer of this model"
    ):
        decoder_of(folder)
