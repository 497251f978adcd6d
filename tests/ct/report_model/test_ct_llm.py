"""Stage 2 with a language model (a tiny random Llama): trains, resumes exactly, loads beside its base model only, writes."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ct_report_samples import NAMES, REPORTS, generate, settings_of, train
from llm_samples import NEEDS_EXTRA, write_llama
from pretend_gpu import GPU, pretend_gpu
from safetensors.torch import load_file

from d2rnet.ct.report_model import trainer
from d2rnet.ct.report_model.front_end import CT_REPORT
from d2rnet.ct.report_model.settings import CtReportSettings, TrainCtReportModelSettings
from d2rnet.ct.settings import CtSettings
from d2rnet.ct.verify_training import training_problems
from d2rnet.errors import CheckpointError, ConfigError
from d2rnet.files.documents import read_json
from d2rnet.report.decoder.beam_search import SearchOptions
from d2rnet.report.generation import load_for_generation
from d2rnet.report.llm.tokens import LlmTokens
from d2rnet.report.model_files import load_model
from d2rnet.report.validation import token_loss
from d2rnet.training.task import TrainingTask

pytestmark = NEEDS_EXTRA
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the base model."""
    return write_llama(tmp_path_factory.mktemp("llama"), REPORTS)


def llm_settings(llama: Path, model: dict[str, Any] | None = None, **changes: Any) -> CtReportSettings:
    """Section ``ct.report`` with a language model."""
    llm = {"weights": str(llama), "dtype": "float32", "lora_rank": 8, **(model or {})}
    training = {"max_report_tokens": 60, "learning_rate": 0.003} | changes
    return settings_of(model={"llm": llm}, training=training)


@pytest.fixture(scope="module")
def llm_run(ct_cohort: Path, ct_features: Path, llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted training."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("llm_run")
    train(ct_cohort, ct_features, folder, llm_settings(llama))
    return folder


def history(model: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "train_seconds"} for row in rows]


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_model_folder_holds_adapters_and_projection_and_names_its_base(llm_run, llama):
    state = load_file(llm_run / "model" / "model.safetensors")
    parts = {name.rpartition("transformer.llm.")[2].partition(".")[0] for name in state}
    assert parts == {"model", "norm", "project", "project_structures", "kinds", "structures"}
    assert all(".lora_" in name for name in state if name.startswith("transformer."))
    size = (llm_run / "model" / "model.safetensors").stat().st_size
    assert size < (llama / "model.safetensors").stat().st_size
    config = yaml.safe_load((llm_run / "model" / "config.yaml").read_text())
    run = read_json(llm_run / "model" / "run.json")
    assert run["inputs"]["base_model"] == {"file": str(llama), "sha256": config["base_model"]}
    rows = history(llm_run / "model")
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    checkpoint = torch.load(next((llm_run / "work").glob("*/last.pt")), weights_only=True)
    assert checkpoint["model"].keys() == state.keys()


def test_it_reads_as_it_was_trained(llm_run, llama, ct_cohort, ct_features, tmp_path):
    """Loaded again it writes the same; loaded beside a copy of the base model, too."""
    rows = generate(ct_cohort, ct_features, llm_run / "model", tmp_path / "one.jsonl")
    assert [list(row) for row in rows] == [["id", "reference", "hypothesis", "log_prob", "sentences"]] * 5
    assert all(sentence["structure"] in NAMES for row in rows for sentence in row["sentences"])
    assert "3.5" in rows[0]["reference"]
    moved = tmp_path / "moved"
    shutil.copytree(llama, moved)
    model = tmp_path / "model"
    shutil.copytree(llm_run / "model", model)
    text = (model / "config.yaml").read_text()
    (model / "config.yaml").write_text(text.replace(str(llama), str(moved)))
    loaded = load_model(model, CPU, CT_REPORT)
    assert isinstance(loaded.tokens, LlmTokens) and loaded.settings.model.llm.weights == str(moved)
    assert generate(ct_cohort, ct_features, model, tmp_path / "two.jsonl", beam_size=2) == rows
    generate(ct_cohort, ct_features, llm_run / "model", tmp_path / "three.jsonl", shards=3)
    assert (tmp_path / "three.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


@pytest.mark.parametrize("other", ["another", "none"])
def test_a_model_without_its_base_is_refused(llm_run, llama, tmp_path, other):
    if other == "another":
        write_llama(tmp_path / "base", REPORTS, seed=1)
    model = tmp_path / "model"
    shutil.copytree(llm_run / "model", model)
    text = (model / "config.yaml").read_text()
    (model / "config.yaml").write_text(text.replace(str(llama), str(tmp_path / "base")))
    kind, words = (CheckpointError, "is base model") if other == "another" else (FileNotFoundError, "no such folder")
    with pytest.raises(kind, match=rf"config\.yaml: model\.llm\.weights: .*base: {words}"):
        load_model(model, CPU, CT_REPORT)


@pytest.mark.parametrize("step", [2, 3])
def test_resume_after_sigterm_is_bit_identical(ct_cohort, ct_features, llama, llm_run, tmp_path, monkeypatch, step):
    """3 steps an epoch: inside an epoch and at its end; LoRA's dropout is on."""
    original = TrainingTask.train_step

    def interrupted(self: TrainingTask, batch: Any) -> None:
        if self.finished_steps + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingTask, "train_step", interrupted)
        with pytest.raises(SystemExit) as stopped:
            train(ct_cohort, ct_features, tmp_path, llm_settings(llama))
    assert stopped.value.code == 143
    parts = train(ct_cohort, ct_features, tmp_path, llm_settings(llama))
    assert same_weights(parts, llm_run / "model") and history(parts) == history(llm_run / "model")


def test_another_base_model_is_another_training(ct_cohort, ct_features, llama, tmp_path):
    """A base model of other weights in the same folder does not resume what was trained in the first."""
    settings = llm_settings(tmp_path / "base", epochs=1)
    for seed in (0, 1):
        write_llama(tmp_path / "base", REPORTS, seed=seed)
        train(ct_cohort, ct_features, tmp_path, settings)
    assert len([path for path in (tmp_path / "work").iterdir() if path.is_dir()]) == 2


@pytest.mark.slow
def test_training_in_two_processes_is_that_of_one(ct_cohort, ct_features, llama, tmp_path):
    """Batches of 4 of 6 entries; dropout is drawn by each process for itself, so there is none."""
    settings = llm_settings(llama, {"lora_dropout": 0.0}, batch_size=4, epochs=2)
    settings = settings.replaced(model={"dropout": 0.0})
    one, two = (train(ct_cohort, ct_features, tmp_path / str(n), settings, processes=n) for n in (1, 2))
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_it_is_tried_before_anything_costly_runs(llama, tmp_path):
    """Without its weights being read: a folder that is missing, and layers that the model lacks."""

    def problems(**llm: Any) -> list[str]:
        settings = CtSettings().replaced(report={"model": {"llm": llm}})
        return list(training_problems(settings, device=None, processes=1))

    assert problems(weights=str(llama)) == []
    (missing,) = problems(weights=str(tmp_path / "gone"))
    (layers,) = problems(weights=str(llama), lora_targets=["W_pack"])
    assert missing.startswith(f"ct.report.model.llm.weights: {tmp_path / 'gone'}: no such folder")
    assert layers.startswith("ct.report.model.llm.lora_targets: W_pack: no such layer in")


def test_sampling_is_refused(llm_run, ct_cohort, ct_features, tmp_path):
    with pytest.raises(ConfigError, match=r"ct\.report\.generation\.method: got 'sample'; expected 'beam'"):
        generate(ct_cohort, ct_features, llm_run / "model", tmp_path / "test.jsonl", method="sample")


def test_bfloat16_says_nearly_the_same(llm_run):
    losses = []
    visual = torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 4, dtype=torch.bool)
    for precision in ("32-true", "bf16-true"):
        settings = settings_of(generation={"precision": precision}).generation
        loaded = load_for_generation(llm_run / "model", CPU, settings, CT_REPORT)
        assert {parameter.dtype for parameter in loaded.model.transformer.parameters()} == {
            torch.float32 if precision == "32-true" else torch.bfloat16
        }
        token_ids = torch.tensor([loaded.tokens.encode(REPORTS[0], max_tokens=60)])
        with torch.no_grad():
            logits = loaded.model.transformer(loaded.model.transformer.encode(visual, mask), mask, token_ids[:, :-1])
        loss, count = token_loss(logits, token_ids)
        losses.append(float(loss / count))
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.02)


def test_nothing_is_left_behind_on_the_cpu(ct_cohort, ct_features, llama, llm_run, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "resolve_device", lambda name: GPU)
    with pretend_gpu():
        on_gpu = train(ct_cohort, ct_features, tmp_path, llm_settings(llama))
    assert same_weights(on_gpu, llm_run / "model") and history(on_gpu) == history(llm_run / "model")


def test_writing_leaves_nothing_on_the_cpu(llm_run, ct_cohort, ct_features):
    with pretend_gpu():
        loaded = load_model(llm_run / "model", GPU, CT_REPORT)
        visual = torch.randn(2, 3, 32).to(GPU)
        found = loaded.model.transformer.search(visual, torch.ones(2, 3).bool().to(GPU), SearchOptions(max_tokens=4))
    assert found.token_ids.shape == (2, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"weights": "r2gen.pth", "llm": {"weights": "llama"}}}, r"model\.weights: expected null where"),
        ({"model": {"llm": {"weights": "llama"}}, "training": {"label_smoothing": 0.1}}, r"label_smoothing: expected 0 where"),
    ],
)
def test_settings_that_contradict_a_language_model_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        TrainCtReportModelSettings.read(changes)
