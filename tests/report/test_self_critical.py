"""Self-critical training: loss and gradient by hand, what it leaves alone, exact resume, parts of a batch, what it teaches."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_samples import (
    ENTRIES,
    SETTINGS,
    VOCABULARY,
    WHOLE,
    ToyBatch,
    ToyEntries,
    ToyModel,
    fit,
    history,
    stopping_after,
    train,
)

from d2rnet.errors import ConfigError
from d2rnet.files.torch_files import load_torch
from d2rnet.report import self_critical
from d2rnet.report.decoder.sampling import entry_draws
from d2rnet.report.interface import Encoded
from d2rnet.report.rewards import Reward
from d2rnet.report.self_critical import SelfCritical, report_log_probs
from d2rnet.report.settings import ReportTrainingSettings
from d2rnet.report.training_task import Losses, TokenLoss
from d2rnet.report.validation import token_loss
from d2rnet.training.processes import run_processes
from d2rnet.training.record import LAST
from d2rnet.training.task import TrainingTask

CPU = torch.device("cpu")
WORDS = 6  # four special ones, and tokens 4 and 5


class State:
    """Of a decoder that remembers nothing."""

    def reorder(self, origin: Tensor) -> None:
        pass

    def keep(self, sources: Tensor) -> None:
        pass


class FixedDecoder(nn.Module):
    """The next token is 4 with probability 2/8, 5 with 5/8, the end with 1/8; what is never written scores high."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor([9.0, 9.0, math.log(1), 9.0, math.log(2), math.log(5)]))

    def start(self, encoded: Tensor, mask: Tensor, *, beams: int, max_tokens: int) -> State:
        return State()

    def step(self, token_ids: Tensor, state: State) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        return self.scores.expand(len(token_ids), WORDS)

    def forward(self, encoded: Tensor, mask: Tensor, token_ids: Tensor) -> Tensor:
        assert not self.training and token_ids[:, 0].tolist() == [1] * len(token_ids)
        return self.scores.expand(*token_ids.shape, WORDS)


def earn(references: Tensor, written: Tensor) -> Tensor:
    """1/4 for each token 4; 1 for an end; 1/2 for each token 5 where the reference has one."""
    like = (references == 5).any(dim=1, keepdim=True)
    return (0.25 * (written == 4) + 1.0 * (written == 2) + 0.5 * ((written == 5) & like)).sum(dim=1)


def critic(reward: Any = earn, **changes: Any) -> SelfCritical:
    settings = ReportTrainingSettings().replaced(max_report_tokens=4, self_critical={"reward": "cider", "start_epoch": 0})
    return SelfCritical(settings.replaced(**changes), reward, steps_per_epoch=2)


def toy_batch(token_ids: Tensor) -> ToyBatch:
    return ToyBatch(
        torch.zeros(len(token_ids), 1, 4), torch.ones(len(token_ids), 1) > 0, token_ids, torch.arange(len(token_ids))
    )


def test_loss_and_gradient_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Falling order of the draws: token 5 below 5/8, token 4 below 7/8, the end above."""
    draws = torch.tensor([[0.7, 0.1, 0.9, 0.1], [0.1, 0.6, 0.7, 0.2]], dtype=torch.float64)
    monkeypatch.setattr(self_critical, "entry_draws", lambda *_, **__: draws)
    decoder, loss = FixedDecoder().train(), critic()
    encoded = Encoded(torch.zeros(2, 1, 4), torch.ones(2, 1) > 0, 0)
    found = loss(decoder, encoded, toy_batch(torch.tensor([[1, 4, 2, 0], [1, 5, 4, 2]])))
    # Sampled: 4 5 end, and 5 5 4 5, cut; greedy: 5 5 5 5, cut. Earned: 1.25 and 1.75; greedy 0 and 2.
    first = math.log(2 / 8) + math.log(5 / 8) + math.log(1 / 8)
    second = 3 * math.log(5 / 8) + math.log(2 / 8)
    assert found.item() == pytest.approx(-(1.25 * first - 0.25 * second))
    found.backward()
    # Advantage times the number of tokens times p, less the times that a token was drawn.
    expected = [1.25 * (3 * p - n) - 0.25 * (4 * p - m) for p, n, m in ((1 / 8, 1, 0), (2 / 8, 1, 1), (5 / 8, 1, 3))]
    assert decoder.scores.grad.tolist() == pytest.approx([0, 0, expected[0], 0, *expected[1:]])
    assert decoder.training
    loss.after_step()
    values = {"reward": 1.5, "baseline": 1.0, "advantage": 0.5}
    assert loss.values() == pytest.approx({f"self_critical_{name}": value for name, value in values.items()})


def test_log_probabilities_stop_at_the_end_token() -> None:
    logits = torch.tensor([9.0, 9.0, math.log(1), 9.0, math.log(2), math.log(5)]).repeat(2, 3, 1)
    found = report_log_probs(logits, torch.tensor([[4, 2, 0], [5, 5, 5]]))
    assert found.tolist() == pytest.approx([math.log(2 / 8) + math.log(1 / 8), 3 * math.log(5 / 8)])


def test_an_entry_is_drawn_by_seed_step_and_its_place_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], int]] = []

    def draws(names: list[str], *, seed: int, max_tokens: int) -> Tensor:
        asked.append((list(names), seed))
        return entry_draws(names, seed=seed, max_tokens=max_tokens)

    monkeypatch.setattr(self_critical, "entry_draws", draws)
    loss = critic(seed=7)
    for numbers in ([5, 2], [2, 5]):
        batch = toy_batch(torch.tensor([[1, 4, 2], [1, 5, 2]]))
        batch.entry_numbers = torch.tensor(numbers)
        loss(FixedDecoder(), Encoded(torch.zeros(2, 1, 4), torch.ones(2, 1) > 0, 0), batch)
        loss.after_step()
    assert asked == [(["step 0 entry 5", "step 0 entry 2"], 7), (["step 1 entry 2", "step 1 entry 5"], 7)]


def test_rewards_are_those_of_the_epoch() -> None:
    loss = critic(lambda _, written: torch.full((len(written),), float(loss.steps)))
    encoded = Encoded(torch.zeros(1, 1, 4), torch.ones(1, 1) > 0, 0)
    seen = []
    for _ in range(3):
        loss(FixedDecoder(), encoded, toy_batch(torch.tensor([[1, 4, 2]])))
        loss.after_step()
        seen.append(loss.values()["self_critical_reward"])
    assert seen == [0.0, 0.5, 2.0]  # steps 0 and 1 are an epoch


def toy_losses(**changes: Any) -> tuple[Losses, ToyBatch]:
    """Losses of a model with dropout, and the four entries."""
    torch.manual_seed(2)
    settings = ReportTrainingSettings().replaced(
        max_report_tokens=6, self_critical={"reward": "cider", "start_epoch": 0} | changes
    )
    reward = Reward(VOCABULARY, lambda reference, written: float(len(set(reference.split()) & set(written.split()))))
    entries = ToyEntries(ENTRIES, VOCABULARY)
    model = ToyModel(SETTINGS.model.replaced(dropout=0.4), len(VOCABULARY)).train()
    return Losses(model, None, 0.0, SelfCritical(settings, reward, steps_per_epoch=2)), entries.collate([*entries])


def test_the_loss_is_weighed_and_divided_as_the_cross_entropy_is() -> None:
    losses, batch = toy_losses(weight=3.0, cross_entropy_weight=0.5)
    torch.manual_seed(5)
    found = losses(batch)
    torch.manual_seed(5)
    encoded = losses.model.encode(batch)
    total, count = token_loss(losses.model.logits(encoded, batch.token_ids), batch.token_ids)
    assert float(found["train"]) == pytest.approx(float(total) / int(count))
    assert losses.weights() == {"train": 0.5}
    drawn = losses.self_critical(losses.model.transformer, encoded, batch)
    assert float(found["self_critical"]) == pytest.approx(3 * float(drawn) / int(count)) and float(drawn) != 0
    assert all(module.training for module in losses.modules())


def test_what_counts_for_more_counts_so_beside_rewards() -> None:
    losses, _ = toy_losses(cross_entropy_weight=0.25)
    losses.some_tokens = TokenLoss(weight=1.0)
    losses.some_tokens.name = "side_words"
    assert losses.weights() == {"train": 0.25, "side_words": 0.25}
    losses, _ = toy_losses(start_epoch=1)
    losses.some_tokens = TokenLoss(weight=1.0)
    assert losses.weights() == {}


def test_before_its_epoch_nothing_is_drawn() -> None:
    losses, batch = toy_losses(start_epoch=1)
    assert list(losses(batch)) == ["train"]
    losses.after_step()
    assert list(losses(batch)) == ["train"] and losses.values() == {} and losses.weights() == {}
    losses.after_step()
    assert list(losses(batch)) == ["train", "self_critical"]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_history_has_the_plain_cross_entropy_and_the_step_the_weighted_one(weight: float) -> None:
    losses, batch = toy_losses(weight=3.0, cross_entropy_weight=weight)
    entries = ToyEntries(ENTRIES, VOCABULARY)
    task = TrainingTask(losses, entries, ReportTrainingSettings().replaced(batch_size=4), device=CPU)
    torch.manual_seed(5)
    plain = losses(batch)
    torch.manual_seed(5)
    total = task.loss(batch)
    assert task.mean_losses()["train_loss"] == pytest.approx(float(plain["train"]))
    assert float(total) == pytest.approx(weight * float(plain["train"]) + float(plain["self_critical"]))


def test_the_image_network_learns_from_it() -> None:
    losses, batch = toy_losses()
    losses(batch)["self_critical"].backward()
    assert float(losses.model.embedding.weight.grad.abs().sum()) > 0


REWARDED = {"reward": "cider", "start_epoch": 1}


def test_a_stopped_training_goes_on_as_if_it_had_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps an epoch: before it begins (2), inside an epoch of it (3) and at the end of one (4)."""
    changes = {"epochs": 3, "validate_every_epochs": 1, "selection": "reward", "self_critical": REWARDED}
    settings = SETTINGS.replaced(training=changes)
    train(tmp_path / "whole", tmp_path / "model", settings)
    for steps in (2, 3, 4):
        work = tmp_path / f"stopped_{steps}"
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(TrainingTask, "train_step", stopping_after(steps))
            train(work, tmp_path / "model", settings)
        train(work, tmp_path / "model", settings)
        assert history(work) == history(tmp_path / "whole")
    told = ["self_critical_loss", *(f"self_critical_{name}" for name in ("reward", "baseline", "advantage"))]
    assert [[name in row for name in told] for row in history(tmp_path / "whole")] == [[False] * 4, [True] * 4, [True] * 4]
    assert all(0 <= row["val_reward"] <= 10 for row in history(tmp_path / "whole"))


@pytest.mark.parametrize(("micro_batches", "processes"), [(2, 1), (3, 1), (1, 2), (2, 2)])
def test_micro_batches_of_any_number_of_processes_make_the_step_of_one(
    tmp_path: Path, micro_batches: int, processes: int
) -> None:
    folders = [tmp_path / "whole", tmp_path / "parts"]
    own = WHOLE.replaced(training={"self_critical": REWARDED | {"start_epoch": 0, "weight": 20.0}})
    settings = [own, own.replaced(training={"accumulation_steps": micro_batches})]
    for folder, chosen, number in zip(folders, settings, (1, processes), strict=True):
        folder.mkdir()
        run_processes(fit, folder, chosen, processes=number, device=CPU)
    for one, other in zip(*map(history, folders), strict=True):
        assert other == pytest.approx(one, rel=1e-4)
        assert one["self_critical_loss"] != 0 and one["self_critical_reward"] != one["self_critical_baseline"]
    whole, parts = (load_torch(folder / LAST)["optimizer"]["state"] for folder in folders)
    assert any(float(state["exp_avg"].abs().max()) > 1e-3 for state in whole.values())
    for place, state in whole.items():
        torch.testing.assert_close(parts[place]["exp_avg"], state["exp_avg"], rtol=1e-4, atol=1e-7)


def test_reports_come_to_earn_more() -> None:
    """The end earns most, and comes in time in two of five reports at first."""
    decoder, loss = FixedDecoder(), critic()
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.2)
    encoded = Encoded(torch.zeros(16, 1, 4), torch.ones(16, 1) > 0, 0)
    earned = []
    for _ in range(20):
        optimizer.zero_grad()
        loss(decoder, encoded, toy_batch(torch.tensor([[1, 4, 2]] * 16))).backward()
        optimizer.step()
        loss.after_step()
        earned.append(loss.values()["self_critical_reward"])
    assert earned[0] < 0.8 and min(earned[-4:]) > 1


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="selection: got reward; expected loss or bleu_4"):
        ReportTrainingSettings.read({"selection": "reward"})
    with pytest.raises(ConfigError, match=r"self_critical.start_epoch: got 7; expected less than epochs \(7\)"):
        ReportTrainingSettings.read({"epochs": 7, "self_critical": {"reward": "cider"}})
    ReportTrainingSettings.read({"epochs": 7})
