"""Beam search against greedy decoding and against trying every report."""

import itertools

import pytest
import torch
from report_samples import NUM_TOKENS, make_batch, make_model

from d2rnet.report.decoder.beam_search import SearchOptions, beam_search
from d2rnet.report.interface import ReportModel
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID


@pytest.fixture
def model() -> ReportModel:
    """Model whose tokens differ clearly in probability."""
    model = make_model(seed=3)
    with torch.no_grad():
        model.transformer.logits.weight.mul_(3)
    return model


def score(model: ReportModel, encoded, row: int, tokens: list[int]) -> float:
    """Teacher-forced sum of log-probabilities of one report."""
    ids = torch.tensor([[BOS_ID, *tokens]])
    logits = model.transformer(encoded.tokens[row : row + 1], encoded.mask[row : row + 1], ids[:, :-1])
    return float(logits.log_softmax(-1).gather(2, ids[:, 1:].unsqueeze(2)).sum().detach())


def written(row: torch.Tensor) -> list[int]:
    """Tokens of a decoded row with its end token and without padding."""
    ids = row.tolist()
    return ids[: ids.index(EOS_ID) + 1] if EOS_ID in ids else ids


def test_beam_one_is_greedy(model: ReportModel) -> None:
    encoded = model.encode(make_batch())
    decoded = beam_search(model.transformer, encoded.tokens, encoded.mask, SearchOptions(beam_size=1, max_tokens=8))
    for row in range(3):
        tokens: list[int] = []
        while len(tokens) < 8 and EOS_ID not in tokens:
            ids = torch.tensor([[BOS_ID, *tokens]])
            logits = model.transformer(encoded.tokens[row : row + 1], encoded.mask[row : row + 1], ids)[0, -1]
            logits[[PAD_ID, BOS_ID, UNK_ID]] = float("-inf")
            tokens.append(int(logits.argmax()))
        assert written(decoded.token_ids[row]) == tokens


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_wide_beam_finds_the_best_of_all_reports(model: ReportModel, penalty: float) -> None:
    encoded = model.encode(make_batch(lesions=(2,)))
    allowed = [token for token in range(NUM_TOKENS) if token not in (PAD_ID, BOS_ID, UNK_ID)]
    words = [token for token in allowed if token != EOS_ID]
    reports = [[EOS_ID], *([word, EOS_ID] for word in words), *(list(pair) for pair in itertools.product(words, words))]
    best = max(reports, key=lambda tokens: score(model, encoded, 0, tokens) / len(tokens) ** penalty)
    options = SearchOptions(beam_size=NUM_TOKENS, max_tokens=2, length_penalty=penalty)
    decoded = beam_search(model.transformer, encoded.tokens, encoded.mask, options)
    assert written(decoded.token_ids[0]) == best
    assert float(decoded.log_probs[0]) == pytest.approx(score(model, encoded, 0, best), abs=1e-4)


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_reported_log_prob_is_that_of_the_report(model: ReportModel, beams: int) -> None:
    encoded = model.encode(make_batch())
    decoded = beam_search(model.transformer, encoded.tokens, encoded.mask, SearchOptions(beam_size=beams, max_tokens=10))
    for row in range(3):
        expected = score(model, encoded, row, written(decoded.token_ids[row]))
        assert float(decoded.log_probs[row]) == pytest.approx(expected, abs=1e-3)


def lost(tokens: list[int]) -> float:
    """What a report loses in the tests below: the more, the fewer even tokens it has, and each something."""
    return 0.5 + 3.0 * max(0, 2 - sum(token % 2 == 0 for token in tokens))


def loses(sources: torch.Tensor, token_ids: torch.Tensor, ended: torch.Tensor) -> torch.Tensor:
    """The same of those that have ended; what stands for the others no search may read."""
    found = torch.full(ended.shape, float("nan"))
    for row, beam in ended.nonzero().tolist():
        found[row, beam] = lost(token_ids[row, beam].tolist())
    return found


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_wide_beam_finds_the_best_report_after_what_it_loses(model: ReportModel, penalty: float) -> None:
    encoded = model.encode(make_batch(lesions=(2,)))
    words = [token for token in range(NUM_TOKENS) if token not in (PAD_ID, BOS_ID, UNK_ID, EOS_ID)]
    reports = [[EOS_ID], *([word, EOS_ID] for word in words), *(list(pair) for pair in itertools.product(words, words))]
    best = max(reports, key=lambda tokens: (score(model, encoded, 0, tokens) - lost(tokens)) / len(tokens) ** penalty)
    options = SearchOptions(beam_size=NUM_TOKENS, max_tokens=2, length_penalty=penalty)
    decoded = beam_search(model.transformer, encoded.tokens, encoded.mask, options, loses)
    assert (
        written(decoded.token_ids[0])
        == best
        != written(beam_search(model.transformer, encoded.tokens, encoded.mask, options).token_ids[0])
    )
    assert float(decoded.log_probs[0]) == pytest.approx(score(model, encoded, 0, best), abs=1e-4), "of its tokens alone"


def test_nothing_lost_is_the_plain_search(model: ReportModel) -> None:
    """Reports end at different steps; what is said of those that are still open is not read."""
    with torch.no_grad():
        model.transformer.logits.bias[EOS_ID] += 2
    encoded = model.encode(make_batch())
    options = SearchOptions(beam_size=3, max_tokens=12)
    plain = beam_search(model.transformer, encoded.tokens, encoded.mask, options)
    assert (plain.token_ids[:, -1] == PAD_ID).any(), "some end before the last step"
    nothing = beam_search(
        model.transformer,
        encoded.tokens,
        encoded.mask,
        options,
        lambda sources, token_ids, ended: torch.where(ended, 0.0, float("nan")),
    )
    assert torch.equal(nothing.token_ids, plain.token_ids) and torch.equal(nothing.log_probs, plain.log_probs)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_what_reports_lose_ends_no_search_too_early(model: ReportModel, penalty: float) -> None:
    encoded = model.encode(make_batch())
    found = [
        beam_search(
            model.transformer,
            encoded.tokens,
            encoded.mask,
            SearchOptions(beam_size=3, max_tokens=12, length_penalty=penalty, early_stop=early_stop),
            loses,
        )
        for early_stop in (True, False)
    ]
    assert torch.equal(found[0].token_ids, found[1].token_ids)


def repeats(tokens: list[int], size: int) -> bool:
    """Whether the last ``size`` tokens are there before; the end token does not count."""
    windows = [tuple(tokens[place : place + size]) for place in range(len(tokens) - size + 1)]
    return bool(size) and tokens[-1] != EOS_ID and windows[-1:] != [] and windows[-1] in windows[:-1]


def literal_search(
    model: ReportModel, encoded, row: int, *, beams: int, limit: int, penalty: float = 0.0, ngram: int = 0
) -> list[int]:
    """Beam search as the paper tells it: a list of beams, whole prefixes scored anew, no early end."""
    opened: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for length in range(1, limit + 1):
        candidates = []
        for total, tokens in opened:
            ids = torch.tensor([[BOS_ID, *tokens]])
            logits = model.transformer(encoded.tokens[row : row + 1], encoded.mask[row : row + 1], ids)[0, -1]
            log_probs = logits.log_softmax(-1).tolist()
            allowed = set(range(NUM_TOKENS)) - {PAD_ID, BOS_ID, UNK_ID}
            grown = [[*tokens, token] for token in allowed]
            candidates += [(total + log_probs[beam[-1]], beam) for beam in grown if not repeats(beam, ngram)]
        best = sorted(candidates, reverse=True)[:beams]
        ended = [beam for beam in best if beam[1][-1] == EOS_ID or length == limit]
        finished += [(total / length**penalty, tokens) for total, tokens in ended]
        opened = [beam for beam in best if beam not in ended]
    return max(finished)[1]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("beams", [2, 3])
@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_equals_a_literal_search(beams: int, penalty: float, seed: int) -> None:
    model = make_model(seed=seed)
    model.transformer.logits.weight.mul_(2)
    model.transformer.logits.bias[EOS_ID] += 1.5
    encoded = model.encode(make_batch(seed=seed))
    options = SearchOptions(beam_size=beams, max_tokens=7, length_penalty=penalty)
    decoded = beam_search(model.transformer, encoded.tokens, encoded.mask, options)
    for row in range(3):
        expected = literal_search(model, encoded, row, beams=beams, limit=7, penalty=penalty)
        assert written(decoded.token_ids[row]) == expected
        assert float(decoded.log_probs[row]) == pytest.approx(score(model, encoded, row, expected), abs=1e-4)


@pytest.mark.parametrize("ngram", [1, 2, 3])
@torch.no_grad()
def test_no_repeated_ngrams_equals_a_literal_search(ngram: int) -> None:
    model = make_model(seed=5)
    model.transformer.logits.weight.mul_(2)
    encoded = model.encode(make_batch(seed=5))
    free = beam_search(model.transformer, encoded.tokens, encoded.mask, SearchOptions(max_tokens=9))
    options = SearchOptions(max_tokens=9, no_repeat_ngram=ngram)
    decoded = beam_search(model.transformer, encoded.tokens, encoded.mask, options)
    for row in range(3):
        assert written(decoded.token_ids[row]) == literal_search(model, encoded, row, beams=3, limit=9, ngram=ngram)
    assert ngram == 3 or not torch.equal(free.token_ids, decoded.token_ids)


@torch.no_grad()
def test_settled_sources_leave_and_the_others_go_on_unchanged() -> None:
    """Reports of very different lengths: the batch shrinks, every report is as it is without early stop."""
    model = make_model(seed=3)
    batch = make_batch(lesions=(2, 0, 3, 1, 1))
    model.transformer.logits.weight.mul_(3)
    encoded = model.encode(batch)
    original = model.transformer.step
    rows = []
    lengths = torch.tensor([2, 5, 14, 3, 9])

    def ending(token_ids: torch.Tensor, state) -> torch.Tensor:
        logits = original(token_ids, state)
        names = state.cross[0][0][:, 0, 0, 0]  # tells the sources apart, whoever has left
        places = [int((names[row] == everyone).nonzero()) for row in range(len(names))]
        over = (lengths[places] <= state.length).repeat_interleave(3)
        logits[over, EOS_ID] += 100
        logits[~over, EOS_ID] -= 100
        rows.append(len(token_ids))
        return logits

    model.transformer.step = ending
    everyone = model.transformer.start(encoded.tokens, encoded.mask, beams=3, max_tokens=1).cross[0][0][:, 0, 0, 0]
    stopped = beam_search(model.transformer, encoded.tokens, encoded.mask, SearchOptions(max_tokens=20))
    assert rows == [15] * 3 + [9] * 2 + [6] * 4 + [3] * 5  # 5, 4 (still all of them), 3, 2 and 1 sources
    assert [len(written(row)) for row in stopped.token_ids] == [2, 5, 14, 3, 9]
    rows.clear()
    full = beam_search(model.transformer, encoded.tokens, encoded.mask, SearchOptions(max_tokens=20, early_stop=False))
    assert rows == [15] * 20
    assert torch.equal(full.token_ids, stopped.token_ids)
    assert torch.allclose(full.log_probs, stopped.log_probs, atol=1e-4)


@torch.no_grad()
def test_bfloat16_stays_close_to_float32() -> None:
    """Step by step equals whole prefixes in bfloat16 too, and both are near float32."""
    model = make_model(seed=2)
    batch = make_batch(length=9)
    encoded = model.encode(batch)
    precise = model.transformer(encoded.tokens, encoded.mask, batch.token_ids)
    model.transformer.to(torch.bfloat16)
    rough = model.encode(batch)
    assert rough.tokens.dtype == torch.bfloat16
    whole = model.transformer(rough.tokens, rough.mask, batch.token_ids).float()
    state = model.transformer.start(rough.tokens, rough.mask, beams=1, max_tokens=9)
    steps = torch.stack([model.transformer.step(batch.token_ids[:, place], state) for place in range(9)], dim=1).float()
    spread = float(precise.std())
    assert float((steps - whole).abs().max()) < 0.1 * spread
    assert float((whole - precise).abs().mean()) < 0.03 * spread


def test_batch_equals_single(model: ReportModel) -> None:
    encoded = model.encode(make_batch())
    options = SearchOptions(beam_size=3, max_tokens=10)
    together = beam_search(model.transformer, encoded.tokens, encoded.mask, options)
    for row in range(3):
        place = slice(row, row + 1)
        alone = beam_search(model.transformer, encoded.tokens[place], encoded.mask[place], options)
        assert torch.equal(alone.token_ids[0], together.token_ids[row])
        assert float(alone.log_probs[0]) == pytest.approx(float(together.log_probs[row]), abs=1e-4)


def test_early_stop_does_not_change_the_result(model: ReportModel) -> None:
    """A longer limit only adds steps after the best report is settled."""
    with torch.no_grad():
        model.transformer.logits.bias[EOS_ID] += 8
    encoded = model.encode(make_batch())
    steps = 0
    original = model.transformer.step

    def counted(*arguments):
        nonlocal steps
        steps += 1
        return original(*arguments)

    model.transformer.step = counted
    decoded = beam_search(model.transformer, encoded.tokens, encoded.mask, SearchOptions(beam_size=3, max_tokens=60))
    assert steps < 60
    for row in range(3):
        tokens = written(decoded.token_ids[row])
        assert tokens[-1] == EOS_ID
        assert float(decoded.log_probs[row]) == pytest.approx(score(model, encoded, row, tokens), abs=1e-3)


def test_min_tokens_delays_the_end(model: ReportModel) -> None:
    with torch.no_grad():
        model.transformer.logits.bias[EOS_ID] += 30
    encoded = model.encode(make_batch())
    for least in (0, 4):
        options = SearchOptions(beam_size=2, max_tokens=9, min_tokens=least)
        decoded = beam_search(model.transformer, encoded.tokens, encoded.mask, options)
        assert [len(written(row)) - 1 for row in decoded.token_ids] == [least] * 3


def test_never_writes_padding_start_or_unknown(model: ReportModel) -> None:
    with torch.no_grad():
        model.transformer.logits.bias[[PAD_ID, BOS_ID, UNK_ID]] += 50
    encoded = model.encode(make_batch())
    decoded = beam_search(model.transformer, encoded.tokens, encoded.mask, SearchOptions(beam_size=3, max_tokens=6))
    assert not set(itertools.chain(*map(written, decoded.token_ids))) & {PAD_ID, BOS_ID, UNK_ID}
    assert torch.isfinite(decoded.log_probs).all()
