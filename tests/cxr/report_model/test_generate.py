"""Generation: shards, grounding, gathering, folders whose files do not belong together."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from report_samples import refuse
from safetensors.torch import load_file, save_file

from d2rnet.cxr.report_model.front_end import facts_of
from d2rnet.cxr.report_model.generate import generate_reports
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.settings import D2RNetGenerationSettings, ReportSettings
from d2rnet.cxr.report_model.unsaid import UnsaidFindings
from d2rnet.errors import CheckpointError, ConfigError, DatasetError
from d2rnet.files.hashes import sha256_file
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.generation import gather_reports, shard_bounds
from d2rnet.report.model_files import save_model
from d2rnet.report.region_grounding import ground_sentences
from d2rnet.report.text.vocabulary import build_vocabulary, load_vocabulary


@pytest.fixture
def model(cohort: Path, tmp_path: Path, report_settings: ReportSettings) -> Path:
    """Folder of an untrained model that writes long, varied reports."""
    build_vocabulary(annotation=cohort / "annotation.json", output=tmp_path, settings=report_settings.text)
    vocabulary = load_vocabulary(tmp_path / "vocabulary.json")
    torch.manual_seed(11)
    network = D2RNet(report_settings.model, num_tokens=len(vocabulary), num_categories=len(CATEGORY_NAMES))
    with torch.no_grad():
        network.transformer.logits.weight.mul_(4)
        network.transformer.logits.bias[vocabulary.ids["<eos>"]] -= 3
    save_model(
        tmp_path / "model",
        network.state_dict(),
        settings=report_settings,
        vocabulary=vocabulary,
        facts=facts_of(CATEGORY_NAMES),
        selected={"epoch": 0},
    )
    return tmp_path / "model"


def generate(
    cohort: Path, model: Path, output: Path, settings: D2RNetGenerationSettings, **changes: Any
) -> list[dict[str, Any]]:
    options = {"shard": 1, "shards": 1, "device": "cpu"} | changes
    generate_reports(
        annotation=cohort / "annotation.json", image_root=cohort, model=model, output=output, settings=settings, **options
    )
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_lines(cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    rows = generate(cohort, model, tmp_path / "test.jsonl", report_settings.generation)
    entries = json.loads((cohort / "annotation.json").read_text())["test"]
    assert [row["id"] for row in rows] == [entry["id"] for entry in entries]
    assert rows[1]["reference"].endswith(" .") and rows[1]["reference"] == rows[1]["reference"].lower()
    for row, entry in zip(rows, entries, strict=True):
        assert list(row) == ["id", "reference", "hypothesis", "log_prob", "sentences"]
        assert " ".join(sentence["text"] for sentence in row["sentences"]) == row["hypothesis"]
        assert all(box < len(entry["boxes"]) for sentence in row["sentences"] for box in sentence["boxes"])
        assert row["log_prob"] < 0
    assert len({row["log_prob"] for row in rows}) == len(rows)


def test_reference_is_the_full_report(cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    content = json.loads((cohort / "annotation.json").read_text())
    content["test"][0]["report"] = "Long. " * 80
    (cohort / "annotation.json").write_text(json.dumps(content))
    rows = generate(cohort, model, tmp_path / "test.jsonl", report_settings.generation)
    assert rows[0]["reference"].count("long .") == 80


@pytest.mark.parametrize("shards", [2, 3, 5])
def test_shards_together_equal_one_byte_for_byte(
    cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings, shards: int
) -> None:
    generate(cohort, model, tmp_path / "one.jsonl", report_settings.generation)
    parts = [tmp_path / f"{shard}.jsonl" for shard in range(1, shards + 1)]
    for shard, part in enumerate(parts, start=1):
        generate(cohort, model, part, report_settings.generation, shard=shard, shards=shards)
    gather(cohort, parts[::-1], tmp_path / "gathered.jsonl", report_settings.generation)
    assert (tmp_path / "gathered.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["counts"] == {"split": "test", "reports": 5, "shards": shards}
    counts = [json.loads((tmp_path / f"{shard}.run.json").read_text())["counts"] for shard in range(1, shards + 1)]
    assert [count["shard"] for count in counts] == list(range(1, shards + 1))
    assert sum(count["reports"] for count in counts) == 5


@pytest.mark.parametrize(("count", "shards"), [(0, 2), (1, 3), (17, 4), (32, 4)])
def test_shards_are_runs_of_whole_batches(count: int, shards: int) -> None:
    bounds = [shard_bounds(count, batch_size=4, shard=shard, shards=shards) for shard in range(1, shards + 1)]
    assert [index for start, end in bounds for index in range(start, end)] == list(range(count))
    assert all(start % 4 == 0 or start == count for start, _ in bounds)


def test_grounding_by_hand() -> None:
    tokens = ["a", ".", "b", "c"]
    attention = torch.tensor([[0.4, 0.0], [0.2, 0.1], [0.0, 0.3], [0.2, 0.5], [9.0, 9.0]])
    # Sentence 1: means 0.3 and 0.05; sentence 2: 0.1 and 0.4. Whole report: 0.2 and 0.225.
    assert ground_sentences(tokens, attention, least_share=0.1, least_contrast=0.0) == [
        {"text": "a .", "boxes": [0], "attended": 0},
        {"text": "b c", "boxes": [1, 0], "attended": 1},
    ]
    nothing = {"text": "a .", "boxes": [], "attended": None}
    assert ground_sentences(tokens, attention[:, :0], least_share=0.1, least_contrast=1.0)[0] == nothing
    assert ground_sentences([], attention, least_share=0.1, least_contrast=1.0) == []


@pytest.mark.parametrize(
    ("contrast", "boxes"), [(0.4, [[0], [1, 0]]), (0.6, [[0], [1]]), (1.45, [[0], [1]]), (1.6, [[], [1]]), (1.8, [[], []])]
)
def test_a_box_must_stand_out_from_the_rest_of_the_report(contrast: float, boxes: list[list[int]]) -> None:
    attention = torch.tensor([[0.4, 0.0], [0.2, 0.1], [0.0, 0.3], [0.2, 0.5]])  # contrasts 1.5, 0.22 and 0.5, 1.78
    found = ground_sentences(["a", ".", "b", "c"], attention, least_share=0.1, least_contrast=contrast)
    assert [sentence["boxes"] for sentence in found] == boxes
    assert [sentence["attended"] for sentence in found] == [0, 1]


def test_attended_is_what_stands_out_not_what_is_always_large() -> None:
    attention = torch.tensor([[0.6, 0.1], [0.5, 0.1], [0.5, 0.3], [0.4, 0.3]])  # contrasts 1.1, 0.5 and 0.9, 1.5
    found = ground_sentences(["a", ".", "b", "."], attention, least_share=0.05, least_contrast=0.0)
    assert found == [{"text": "a .", "boxes": [0, 1], "attended": 0}, {"text": "b .", "boxes": [0, 1], "attended": 1}]
    alone = ground_sentences(["b", "."], attention[2:], least_share=0.05, least_contrast=0.0)
    assert alone == [{"text": "b .", "boxes": [0, 1], "attended": 0}]
    unseen = ground_sentences(["a", ".", "b", "."], torch.zeros(4, 2), least_share=0.05, least_contrast=0.0)
    assert [sentence["attended"] for sentence in unseen] == [0, 0]


def test_a_cut_sentence_gets_no_boxes() -> None:
    attention = torch.tensor([[0.4], [0.2], [0.4], [0.4]])
    options = {"least_share": 0.1, "least_contrast": 0.0}
    found = ground_sentences(["a", ".", "b", "c"], attention, cut=True, **options)
    assert [sentence["boxes"] for sentence in found] == [[0], []]
    assert [sentence["attended"] for sentence in found] == [0, None]
    found = ground_sentences(["a", ".", "b", "."], attention, cut=True, **options)
    assert [sentence["boxes"] for sentence in found] == [[0], [0]]
    found = ground_sentences(["a", ".", "b", "c"], attention, cut=False, **options)
    assert [sentence["boxes"] for sentence in found] == [[0], [0]]


def test_cut_reports_are_counted(cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    """This model never ends by itself: nothing says that its reports are complete."""
    rows = generate(cohort, model, tmp_path / "test.jsonl", report_settings.generation.replaced(grounding_share=0.0))
    counts = json.loads((tmp_path / "test.run.json").read_text())["counts"]
    assert counts["cut_at_max_tokens"] == sum(len(row["hypothesis"].split()) == 12 for row in rows) > 0
    for row in rows:
        if len(row["hypothesis"].split()) == 12 and not row["hypothesis"].endswith("."):
            assert row["sentences"][-1]["boxes"] == []


def test_sampled_reports_do_not_depend_on_shards(
    cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings
) -> None:
    settings = report_settings.generation.replaced(method="sample", seed=3)
    whole = generate(cohort, model, tmp_path / "one.jsonl", settings)
    halves = [generate(cohort, model, tmp_path / f"{n}.jsonl", settings, shard=n, shards=2) for n in (1, 2)]
    assert halves[0] + halves[1] == whole
    assert generate(cohort, model, tmp_path / "again.jsonl", settings) == whole
    other = generate(cohort, model, tmp_path / "other.jsonl", settings.replaced(seed=4))
    assert [row["hypothesis"] for row in other] != [row["hypothesis"] for row in whole]
    assert json.loads((tmp_path / "one.run.json").read_text())["seeds"] == {"sampling": 3}


def test_a_report_that_loses_all_is_not_written(
    cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = report_settings.generation
    written = {line["hypothesis"] for line in generate(cohort, model, tmp_path / "1.jsonl", settings)}

    class Judge(UnsaidFindings):
        """Every report that was written loses."""

        def __call__(self, loaded: Any, encoded: Any) -> Any:
            assert self.weight == settings.unsaid_weight
            return refuse(written, loaded.tokens)

    monkeypatch.setattr("d2rnet.cxr.report_model.generate.UnsaidFindings", Judge)
    judged = {line["hypothesis"] for line in generate(cohort, model, tmp_path / "2.jsonl", settings)}
    assert judged and not judged & written


def test_bfloat16_writes_reports(cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    precise = generate(cohort, model, tmp_path / "32.jsonl", report_settings.generation)
    rough = generate(cohort, model, tmp_path / "16.jsonl", report_settings.generation.replaced(precision="bf16-true"))
    for one, other in zip(precise, rough, strict=True):
        assert other["log_prob"] == pytest.approx(one["log_prob"], rel=0.1)
        assert other["log_prob"] != one["log_prob"]


def test_the_only_sentence_needs_no_contrast() -> None:
    attention = torch.tensor([[0.4, 0.0], [0.2, 0.1]])
    assert ground_sentences(["a", "."], attention, least_share=0.1, least_contrast=2.0)[0]["boxes"] == [0]


def gather(cohort: Path, shards: list[Path], output: Path, settings: D2RNetGenerationSettings | None = None) -> None:
    generation = settings or D2RNetGenerationSettings()
    gather_reports(annotation=cohort / "annotation.json", shards=shards, output=output, settings=generation)


def write_shard(path: Path, cohort: Path, ids: list[str], shard: int) -> Path:
    path.write_text("".join(json.dumps({"id": name}) + "\n" for name in ids))
    inputs = {key: {"sha256": "0"} for key in ("model.safetensors", "vocabulary.json", "config.yaml")}
    record = {
        "command": "generate-reports-shard",
        "settings": D2RNetGenerationSettings().to_json(),
        "inputs": {**inputs, "annotation": {"sha256": sha256_file(cohort / "annotation.json")}},
        "counts": {"shard": shard, "shards": 2, "reports": len(ids)},
    }
    path.with_suffix(".run.json").write_text(json.dumps(record))
    return path


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (["test0", "test1"], ["test2", "test3"], "1 of 5 entries of split 'test'.*test4"),
        (["test0", "test1", "test2"], ["test2", "test3", "test4"], "entry test2 is in the shards twice"),
        (["test0", "train0"], [], "train0 .* not in split 'test'"),
        (["other"], [], "other is in no split"),
        ([], [], "the shards hold no report"),
    ],
)
def test_gathering_refuses(cohort: Path, tmp_path: Path, first: list[str], second: list[str], message: str) -> None:
    shards = [write_shard(tmp_path / f"{shard}.jsonl", cohort, ids, shard) for shard, ids in ((1, first), (2, second))]
    with pytest.raises(DatasetError, match=message):
        gather(cohort, shards, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("line", ["{}", '{"id": [1]}', '{"id": 3}'])
def test_a_line_without_an_id_is_named(cohort: Path, tmp_path: Path, line: str) -> None:
    shards = [write_shard(tmp_path / f"{shard}.jsonl", cohort, [], shard) for shard in (1, 2)]
    shards[1].write_text(line + "\n")
    with pytest.raises(DatasetError, match=r"2\.jsonl: record 1: got id .*; expected a text"):
        gather(cohort, shards, tmp_path / "out.jsonl")


def test_shards_of_two_models_or_cut_ones_are_not_joined(cohort: Path, tmp_path: Path) -> None:
    first = write_shard(tmp_path / "1.jsonl", cohort, ["test0", "test1", "test2"], 1)
    second = write_shard(tmp_path / "2.jsonl", cohort, ["test3", "test4"], 2)
    record = second.with_suffix(".run.json")
    whole = record.read_text()
    for old, new, complaint in (
        ('"model.safetensors": {"sha256": "0"}', '"model.safetensors": {"sha256": "1"}', "made with other model.safetensors"),
        (
            '"beam_size": 6',
            '"beam_size": 4',
            r"made with other settings .*: cxr\.report\.generation\.beam_size 4, not 6",
        ),
        ('"reports": 2', '"reports": 3', "holds 2 reports, its run record says 3"),
    ):
        assert old in whole
        record.write_text(whole.replace(old, new))
        with pytest.raises(DatasetError, match=rf"2\.jsonl: {complaint}"):
            gather(cohort, [first, second], tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    "change", [lambda t: t * float("nan"), lambda t: t.index_fill(0, torch.tensor([1]), float("inf")), torch.Tensor.int]
)
def test_weights_that_are_no_finite_numbers_are_refused(
    cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings, change: Any
) -> None:
    weights = load_file(model / "model.safetensors")
    weights["transformer.logits.weight"] = change(weights["transformer.logits.weight"])
    vocabulary = load_vocabulary(model / "vocabulary.json")
    save_file(weights, model / "model.safetensors", metadata={"vocabulary_hash": vocabulary.hash})
    with pytest.raises(
        CheckpointError, match=r"1 tensor\(s\) hold NaN, infinity or whole numbers: transformer\.logits\.weight"
    ):
        generate(cohort, model, tmp_path / "out.jsonl", report_settings.generation)


def test_a_killed_shard_leaves_no_record_of_the_run_before(
    cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a shard and its record a kill would leave the new shard beside the old record."""
    record = tmp_path / "out.run.json"
    record.write_text("{}")

    def killed(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("d2rnet.cxr.report_model.generate.write_jsonl", killed)
    with pytest.raises(KeyboardInterrupt):
        generate(cohort, model, tmp_path / "out.jsonl", report_settings.generation)
    assert not record.exists()


def test_foreign_vocabulary_is_refused(cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    build_vocabulary(
        annotation=cohort / "annotation.json", output=model, settings=report_settings.text.replaced(min_token_count=2)
    )
    with pytest.raises(CheckpointError, match="Token ids would mean other words"):
        generate(cohort, model, tmp_path / "out.jsonl", report_settings.generation)


def test_weights_of_another_network_are_refused(
    cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings
) -> None:
    weights = load_file(model / "model.safetensors")
    vocabulary = load_vocabulary(model / "vocabulary.json")
    del weights["transformer.logits.bias"]
    weights["extra"] = torch.zeros(1)
    save_file(weights, model / "model.safetensors", metadata={"vocabulary_hash": vocabulary.hash})
    with pytest.raises(CheckpointError, match=r"Missing 1: transformer\.logits\.bias; unused 1: extra"):
        generate(cohort, model, tmp_path / "out.jsonl", report_settings.generation)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("model.safetensors", "half a file", "not a readable safetensors file"),
        ("config.yaml", "text: [", "not a YAML document"),
        ("config.yaml", "format: d2rnet-report-model-1\ntext: {}", "lacks categories, model, training"),
        ("config.yaml", "format: other", "got format 'other'"),
    ],
)
def test_damaged_model_folder(
    cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings, name: str, text: str, complaint: str
) -> None:
    (model / name).write_text(text)
    with pytest.raises(CheckpointError, match=f"{name}: {complaint}"):
        generate(cohort, model, tmp_path / "out.jsonl", report_settings.generation)


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json", "config.yaml"])
def test_incomplete_model_folder(
    cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings, name: str
) -> None:
    (model / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        generate(cohort, model, tmp_path / "out.jsonl", report_settings.generation)


def test_bad_requests(cohort: Path, model: Path, tmp_path: Path, report_settings: ReportSettings) -> None:
    settings = report_settings.generation
    with pytest.raises(ConfigError, match="shard from 1 to 2"):
        generate(cohort, model, tmp_path / "out.jsonl", settings, shard=3, shards=2)
    with pytest.raises(ConfigError, match=r"runtime\.device"):
        generate(cohort, model, tmp_path / "out.jsonl", settings, device=f"cuda:{torch.cuda.device_count()}")
    (cohort / "test_3.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"test_3\.png"):
        generate(cohort, model, tmp_path / "out.jsonl", settings)
    assert not (tmp_path / "out.jsonl").exists()
