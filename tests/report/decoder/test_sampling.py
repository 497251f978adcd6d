"""Sampling: the distribution it draws from, seeds, independence of batches."""

import math

import pytest
import torch
from pretend_gpu import GPU, pretend_gpu
from report_samples import NUM_TOKENS, make_batch, make_model

from d2rnet.report.decoder.beam_search import SearchOptions, beam_search
from d2rnet.report.decoder.sampling import SamplingOptions, entry_draws, pick, sample_reports
from d2rnet.report.interface import ReportModel
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID

LOG_PROBS = torch.tensor([0.1, 0.5, 0.0, 0.4]).log()


@pytest.fixture
def model() -> ReportModel:
    """Model whose tokens differ in probability."""
    model = make_model(seed=3)
    with torch.no_grad():
        model.transformer.logits.weight.mul_(2)
    return model


def chosen(draws: list[float], *, temperature: float = 1.0, top_p: float = 1.0) -> list[int]:
    rows = LOG_PROBS.repeat(len(draws), 1)
    return pick(rows, torch.tensor(draws, dtype=torch.float64), temperature=temperature, top_p=top_p).tolist()


def test_draws_fall_into_shares_in_falling_order() -> None:
    """Token 1 has [0, 0.5), token 3 [0.5, 0.9), token 0 the rest; token 2 nothing."""
    assert chosen([0.0, 0.499, 0.501, 0.899, 0.901, 0.999999999]) == [1, 1, 3, 3, 0, 0]


def test_top_p_cuts_to_the_fewest_tokens_that_hold_the_share() -> None:
    assert chosen([0.0, 0.99], top_p=0.4) == [1, 1]
    # Tokens 1 and 3 hold 0.9: 5/9 and 4/9 of what is left.
    assert chosen([0.55, 0.56, 0.99], top_p=0.6) == [1, 3, 3]
    assert chosen([0.99], top_p=0.95) == [0]


def test_temperature_sharpens_and_flattens() -> None:
    # Squares .25, .16, .01 of .42: token 1 up to 0.595; roots .707, .632, .316 of 1.656: up to 0.427.
    assert chosen([0.59, 0.6], temperature=0.5) == [1, 3]
    assert chosen([0.42, 0.43], temperature=2.0) == [1, 3]


def test_frequencies_are_the_probabilities() -> None:
    draws = entry_draws([f"entry {number}" for number in range(2000)], seed=4, max_tokens=1)[:, 0]
    counts = torch.bincount(torch.tensor(chosen(draws.tolist())), minlength=4) / 2000
    for found, expected in zip(counts.tolist(), [0.1, 0.5, 0.0, 0.4], strict=True):
        assert abs(found - expected) <= 4 * math.sqrt(expected * (1 - expected) / 2000)


def test_draws_depend_on_seed_and_name_alone() -> None:
    draws = entry_draws(["a", "b"], seed=1, max_tokens=5)
    assert draws.shape == (2, 5) and draws.min() >= 0 and draws.max() < 1
    assert torch.equal(entry_draws(["b"], seed=1, max_tokens=3)[0], draws[1, :3])
    assert not torch.equal(entry_draws(["b"], seed=2, max_tokens=5)[0], draws[1])
    assert not torch.equal(draws[0], draws[1])


def test_batch_equals_single(model: ReportModel) -> None:
    encoded = model.encode(make_batch())
    options = SamplingOptions(max_tokens=12, top_p=0.9)
    draws = entry_draws(["x", "y", "z"], seed=0, max_tokens=12)
    together = sample_reports(model.transformer, encoded.tokens, encoded.mask, options, draws)
    assert len({tuple(row) for row in together.token_ids.tolist()}) == 3
    for row in range(3):
        place = slice(row, row + 1)
        alone = sample_reports(model.transformer, encoded.tokens[place], encoded.mask[place], options, draws[place])
        assert torch.equal(alone.token_ids[0], together.token_ids[row])


def test_a_tiny_share_is_greedy(model: ReportModel) -> None:
    encoded = model.encode(make_batch())
    options = SamplingOptions(max_tokens=9, top_p=1e-9)
    found = sample_reports(model.transformer, encoded.tokens, encoded.mask, options, torch.rand(3, 9, dtype=torch.float64))
    greedy = beam_search(model.transformer, encoded.tokens, encoded.mask, SearchOptions(beam_size=1, max_tokens=9))
    assert torch.equal(found.token_ids, greedy.token_ids)
    assert torch.allclose(found.log_probs, greedy.log_probs, atol=1e-4)


def test_log_prob_is_the_models_own(model: ReportModel) -> None:
    with torch.no_grad():
        model.transformer.logits.bias[EOS_ID] += 4
    encoded = model.encode(make_batch())
    options = SamplingOptions(max_tokens=8, temperature=1.5, top_p=0.8)
    found = sample_reports(model.transformer, encoded.tokens, encoded.mask, options, entry_draws("abc", seed=6, max_tokens=8))
    ended = [EOS_ID in row for row in found.token_ids.tolist()]
    assert any(ended)
    for row, ids in enumerate(found.token_ids.tolist()):
        tokens = ids[: ids.index(EOS_ID) + 1] if ended[row] else ids
        assert set(ids[len(tokens) :]) <= {PAD_ID}
        assert not set(tokens) & {PAD_ID, BOS_ID, UNK_ID}
        given = torch.tensor([[BOS_ID, *tokens]])
        logits = model.transformer(encoded.tokens[row : row + 1], encoded.mask[row : row + 1], given[:, :-1])
        total = logits.log_softmax(-1).gather(2, given[:, 1:].unsqueeze(2)).sum()
        assert float(found.log_probs[row]) == pytest.approx(float(total.detach()), abs=1e-3)


def test_rules_hold_while_sampling(model: ReportModel) -> None:
    encoded = model.encode(make_batch())
    options = SamplingOptions(max_tokens=16, min_tokens=16, no_repeat_ngram=1, top_p=1.0)
    draws = entry_draws("abc", seed=0, max_tokens=16)
    found = sample_reports(model.transformer, encoded.tokens, encoded.mask, options, draws)
    for ids in found.token_ids.tolist():  # 16 of the 20 tokens may be written, none twice
        assert sorted(set(ids)) == sorted(ids) and set(ids) <= set(range(NUM_TOKENS))


def test_on_a_gpu_nothing_is_copied_to_it_at_a_token(model: ReportModel) -> None:
    """A copy of a list of token ids or of a token's random numbers would have the GPU wait each time."""
    encoded = model.encode(make_batch())
    draws = entry_draws("abc", seed=0, max_tokens=12)
    options = SamplingOptions(max_tokens=12, min_tokens=12)
    expected = sample_reports(model.transformer, encoded.tokens, encoded.mask, options, draws)
    with pretend_gpu() as gpu:
        decoder, tokens, mask = (part.to(GPU) for part in (model.transformer, encoded.tokens.detach(), encoded.mask))
        gpu.waits.clear()
        found = sample_reports(decoder, tokens, mask, options, draws)
        assert gpu.waits == {"blocking copy to the GPU": 1, "__bool__": 12}  # the random numbers; whether all have ended
        assert torch.equal(found.token_ids.cpu(), expected.token_ids)
