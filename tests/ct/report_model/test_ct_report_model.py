"""The report model of stage 2: learns, resumes exactly, two processes are one; sentences of its reports name structures."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ct_report_samples import NAMES, REPORTS, extract, generate, settings_of, train, write_structure_model
from earlier_version import begun_with, lacking
from pretend_gpu import GPU, pretend_gpu
from safetensors.torch import load_file

from d2rnet.ct.report_model import generate as generation
from d2rnet.ct.report_model import trainer
from d2rnet.ct.report_model.abnormality_losses import read_abnormalities
from d2rnet.ct.report_model.dataset import CtReportDataset, StoredFeatures
from d2rnet.ct.report_model.features import load_facts
from d2rnet.ct.report_model.front_end import CT_REPORT, features_of
from d2rnet.ct.report_model.generate import generate_ct_reports_shard
from d2rnet.ct.report_model.grounding import make_grounding
from d2rnet.ct.report_model.model import CtReportModel
from d2rnet.ct.report_model.selection import select
from d2rnet.ct.structures.table import load_table
from d2rnet.errors import CheckpointError, ConfigError, DatasetError
from d2rnet.files.documents import read_json
from d2rnet.report.decoder.attention import MultiHeadAttention
from d2rnet.report.model_files import load_model
from d2rnet.report.text.vocabulary import count_vocabulary
from d2rnet.training import task
from d2rnet.training.batches import EpochBatches
from d2rnet.training.collectives import num_processes, process_rank
from d2rnet.training.processes import run_processes
from d2rnet.training.task import TrainingTask

CPU = torch.device("cpu")
VOCABULARY = count_vocabulary(REPORTS, protocol="faithful", section="findings", min_token_count=1)
EVERYTHING = {
    "duplicates": "keep",
    "observations_twice": True,
    "positions": False,
    "token_types": False,
    "structure_projections": False,
}


def history(model: Path) -> list[dict[str, Any]]:
    """Metrics of a run without its times."""
    rows = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "train_seconds"} for row in rows]


def same_weights(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def stop_after(step: int, patch: pytest.MonkeyPatch) -> None:
    """Let SIGTERM arrive in a training step."""
    original = TrainingTask.train_step

    def interrupted(self: TrainingTask, batch: Any) -> None:
        if self.finished_steps + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, batch)

    patch.setattr(TrainingTask, "train_step", interrupted)


def dataset_of(cohort: Path, features: Path, split: str = "train", **model: Any) -> CtReportDataset:
    facts = load_facts(features)
    entries = read_json(cohort / "ct_annotation.json")[split]
    settings = settings_of(model=model).model
    stored = StoredFeatures(entries, features, facts)
    return CtReportDataset(entries, stored, facts=facts, settings=settings, vocabulary=VOCABULARY, max_tokens=30)


def model_of(features: Path, **model: Any) -> CtReportModel:
    torch.manual_seed(5)
    return CtReportModel(settings_of(model=model).model, num_tokens=len(VOCABULARY), facts=load_facts(features)).eval()


def test_the_model_folder_is_complete_and_says_what_it_was_trained_on(ct_run, ct_features):
    names = {"model.safetensors", "vocabulary.json", "config.yaml", "model_card.md", "metrics.jsonl", "run.json"}
    assert {path.name for path in (ct_run / "model").iterdir()} == names
    loaded = load_model(ct_run / "model", CPU, CT_REPORT)
    assert features_of(loaded) == load_facts(ct_features) and not loaded.model.training
    run = read_json(ct_run / "model/run.json")
    assert run["counts"] == {"train": 6, "train_without_words": 0, "val": 2, "val_without_words": 0}
    card = (ct_run / "model/model_card.md").read_text()
    assert "Stage 2 of structure observation" in card and "| model.patches_per_structure | 2 |" in card and "$" not in card
    rows = history(ct_run / "model")
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


@pytest.mark.parametrize(("step", "new"), [(2, ()), (3, ()), (9, ()), (2, ("model.llm", "model.positions"))])
def test_resume_after_sigterm_is_bit_identical(ct_cohort, ct_features, ct_run, tmp_path, monkeypatch, step, new):
    """3 steps an epoch: inside an epoch, at its end and at the very end. The stopped version may have lacked ``new``."""
    with monkeypatch.context() as patch:
        stop_after(step, patch)
        with pytest.raises(SystemExit) as stopped:
            train(ct_cohort, ct_features, tmp_path)
    assert stopped.value.code == 143 and not (tmp_path / "model").exists()
    if new:
        begun_with(tmp_path / "work", lacking(*new))
    parts = train(ct_cohort, ct_features, tmp_path)
    assert same_weights(parts, ct_run / "model") and history(parts) == history(ct_run / "model")


def test_other_features_are_another_training(ct_cohort, ct_features, ct_run, tmp_path):
    """The work folder of one extraction is not resumed by another."""
    shutil.copytree(ct_run / "work", tmp_path / "work")
    other = extract(ct_cohort, tmp_path / "features", settings_of(features={"dtype": "float32"}).features)
    train(ct_cohort, other, tmp_path)
    assert len([path for path in (tmp_path / "work").iterdir() if path.is_dir()]) == 2


def losses_and_gradients(cohort: Path, features: Path, *, parts: int = 1) -> dict[str, torch.Tensor]:
    """Of this process's part of a batch of three entries, averaged over processes; no dropout."""
    entries = dataset_of(cohort, features)
    model = model_of(features, dropout=0.0).train()
    settings = settings_of(training={"batch_size": 3, "accumulation_steps": parts})
    said = read_abnormalities(read_json(cohort / "ct_annotation.json")["train"], entries.token_ids, VOCABULARY, settings)
    torch.manual_seed(6)
    of_labels, of_words = said.losses(settings, num_structures=len(NAMES), d_model=16)
    assert of_labels is not None and of_words is not None
    losses = {"encoded_loss": of_labels, "some_tokens": of_words}
    training = trainer.report_task(model, entries, settings.training, device=CPU, lengths=said.lengths, **losses)
    order = [place for place in range(3) if num_processes() == 1 or (place == 0) == (process_rank() == 0)]
    batch = entries.collate([entries[place] for place in order])
    for part, share in training._micro_batches(batch):
        training.loss(part, share).backward()
    trained = [*model.named_parameters(), *of_labels.named_parameters()]
    return {name: parameter.grad for name, parameter in trained if parameter.grad is not None}


@pytest.mark.parametrize("grouped", [True, False])
def test_batches_are_of_like_length_where_wanted(ct_cohort, ct_features, tmp_path, monkeypatch, grouped):
    seen = []

    class Noted(EpochBatches):
        def __init__(self, count: int, **options):
            seen.append(options["lengths"])
            super().__init__(count, **options)

    monkeypatch.setattr(task, "EpochBatches", Noted)
    train(ct_cohort, ct_features, tmp_path, settings_of(training={"group_by_length": grouped, "epochs": 1}))
    expected = dataset_of(ct_cohort, ct_features).token_ids.lengths
    assert len(seen) == 1 and (np.array_equal(seen[0], expected) if grouped else seen[0] is None)


def test_lengths_are_not_forgotten(ct_cohort, ct_features):
    settings = settings_of(training={"group_by_length": True}).training
    with pytest.raises(ValueError, match="expected the lengths of the reports"):
        trainer.report_task(model_of(ct_features), dataset_of(ct_cohort, ct_features), settings, device=CPU)


@pytest.mark.parametrize(("of_attention", "drops"), [(None, 0.2), (0.0, 0.0), (0.3, 0.3)])
def test_dropout_of_attention_reaches_the_transformer(ct_features, of_attention, drops):
    transformer = model_of(ct_features, dropout=0.2, attention_dropout=of_attention).transformer
    layers = [*transformer.encoder, *transformer.decoder]
    assert {part.dropout for layer in layers for part in layer.modules() if isinstance(part, MultiHeadAttention)} == {drops}


def save_gradients(cohort: Path, features: Path, output: Path) -> None:
    found = losses_and_gradients(cohort, features)
    if process_rank() == 0:
        torch.save(found, output)


def test_two_processes_make_the_step_of_one(ct_cohort, ct_features, tmp_path):
    run_processes(save_gradients, ct_cohort, ct_features, tmp_path / "two.pt", processes=2, device=CPU)
    alone = losses_and_gradients(ct_cohort, ct_features)
    both = torch.load(tmp_path / "two.pt", weights_only=True)
    assert alone.keys() == both.keys() and len(alone) > 20
    for name, gradient in alone.items():
        torch.testing.assert_close(both[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_micro_batches_make_the_step_of_one(ct_cohort, ct_features):
    """Reports of other lengths, with other weights of their tokens, and their labels."""
    whole, parts = (losses_and_gradients(ct_cohort, ct_features, parts=parts) for parts in (1, 3))
    assert whole.keys() == parts.keys() and "classify.weight" in whole
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("training", "expected"),
    [({}, {"abnormality_loss", "abnormality_words_loss"}), ({"abnormality_loss": 0.0, "abnormality_weight": 1.0}, set())],
)
def test_labels_and_sentences_are_taught(ct_cohort, ct_features, tmp_path, training, expected):
    """Beside the cross entropy of all tokens, which the history keeps apart."""
    parts = train(ct_cohort, ct_features, tmp_path, settings_of(training={"epochs": 2} | training))
    rows = history(parts)
    assert all({key for key in row if key.startswith("abnormality")} == expected for row in rows)
    assert all(rows[1][key] < rows[0][key] for key in expected)


@pytest.mark.slow
def test_training_in_two_processes_is_that_of_one(ct_cohort, ct_features, tmp_path):
    """Batches of 5 of 6 entries: of the last one a process has none. Dropout is drawn by each for itself, so there is none."""
    settings = settings_of(model={"dropout": 0.0}, training={"batch_size": 5, "epochs": 2})
    one, two = (train(ct_cohort, ct_features, tmp_path / str(n), settings, processes=n) for n in (1, 2))
    first, second = (load_file(folder / "model.safetensors") for folder in (one, two))
    for name, value in first.items():
        if not name.endswith("key.bias"):  # attention does not depend on it: its gradient is rounding error
            torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-4, msg=name)
    assert history(one)[-1]["val_loss"] == pytest.approx(history(two)[-1]["val_loss"], rel=1e-3)


@pytest.mark.parametrize("selection", ["attention", "mean", "none"])
@pytest.mark.parametrize("switches", [{}, EVERYTHING], ids=["repaired", "released"])
def test_an_entry_of_a_batch_is_the_entry_alone(ct_cohort, ct_features, selection, switches):
    """Padding changes nothing: entries have 12 or 6 patches that may be seen."""
    entries = dataset_of(ct_cohort, ct_features, selection=selection, **switches)
    model = model_of(ct_features, selection=selection, **switches)
    samples = [entries[place] for place in range(4)]
    together = entries.collate(samples)
    with torch.no_grad():
        logits = model(together)
        for row, sample in enumerate(samples):
            alone = model(entries.collate([sample]))
            torch.testing.assert_close(logits[row : row + 1, : alone.shape[1]], alone, rtol=1e-4, atol=1e-5)
    if selection == "attention" and not switches:
        assert not together.mask.all()


def test_the_order_of_tokens_is_irrelevant_and_what_they_are_is_not(ct_cohort, ct_features):
    entries = dataset_of(ct_cohort, ct_features)
    model = model_of(ct_features)
    batch = entries.collate([entries[0]])
    order = torch.randperm(batch.vectors.shape[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        usual = model(batch)
        for name in ("vectors", "kinds", "structures", "places", "mask"):
            setattr(batch, name, getattr(batch, name)[:, order])
        torch.testing.assert_close(model(batch), usual, rtol=1e-4, atol=1e-5)
        for name in ("kinds", "structures", "places"):
            changed = entries.collate([entries[0]])
            setattr(changed, name, getattr(changed, name).roll(1, dims=1))
            assert not torch.allclose(model(changed), usual, atol=1e-4), name


def test_no_entries_make_a_batch(ct_cohort, ct_features):
    entries = dataset_of(ct_cohort, ct_features)
    empty = entries.collate([])
    assert len(empty) == 0 and model_of(ct_features).look(empty).tokens.shape == (0, 1, 16)


def test_reports_name_structures_and_where_they_looked(ct_cohort, ct_features, ct_run, tmp_path):
    rows = generate(ct_cohort, ct_features, ct_run / "model", tmp_path / "test.jsonl")
    entries = read_json(ct_cohort / "ct_annotation.json")["test"]
    assert [row["id"] for row in rows] == [entry["id"] for entry in entries]
    stored = StoredFeatures(entries, ct_features, load_facts(ct_features))
    for place, row in enumerate(rows):
        assert list(row) == ["id", "reference", "hypothesis", "log_prob", "sentences"]
        assert " ".join(sentence["text"] for sentence in row["sentences"]) == row["hypothesis"]
        for sentence in row["sentences"]:
            assert sentence["structure"] == sentence["structures"][0] and set(sentence["structures"]) <= set(NAMES)
            number = NAMES.index(sentence["structure"])
            looked = stored[place]
            assert [one["patch"] for one in sentence["patches"]] == looked.top[number, :2].tolist()
            shares = [one["attention"] for one in sentence["patches"]]
            assert shares == pytest.approx(looked.top_attention[number, :2].tolist(), abs=1e-6)
    assert "3.5" in rows[0]["reference"]
    tokens = [len(select(stored[place], settings_of().model).vectors) for place in range(len(rows))]
    assert len(set(tokens)) > 1 and read_json(tmp_path / "test_1.run.json")["counts"]["visual_tokens"] == sum(tokens)
    record = read_json(tmp_path / "run.json")
    assert record["command"] == "generate-ct-reports" and record["counts"] == {"split": "test", "reports": 5, "shards": 1}


def test_shards_together_are_the_whole(ct_cohort, ct_features, ct_run, tmp_path):
    generate(ct_cohort, ct_features, ct_run / "model", tmp_path / "one.jsonl")
    generate(ct_cohort, ct_features, ct_run / "model", tmp_path / "three.jsonl", shards=3)
    assert (tmp_path / "three.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()


def test_features_of_another_stage_1_are_refused(ct_cohort, ct_run, tmp_path):
    other = extract(ct_cohort, tmp_path / "features", structures=write_structure_model(tmp_path / "other", seed=1))
    with pytest.raises(DatasetError, match=r"features\.json: features of extraction .*; the model of .* was trained on"):
        generate(ct_cohort, other, ct_run / "model", tmp_path / "test.jsonl")


def test_a_table_of_other_structures_is_refused(ct_cohort, ct_features, ct_run, tmp_path):
    assert make_grounding(load_table("ten"), NAMES, count=2).count == 2
    with pytest.raises(ConfigError, match=r"ct\.structures\.table: 'fvlm' has structures lung, .*; stage 1 was trained on"):
        generate_ct_reports_shard(
            annotation=ct_cohort / "ct_annotation.json",
            features=ct_features,
            model=ct_run / "model",
            shard=1,
            shards=1,
            output=tmp_path / "test.jsonl",
            device="cpu",
            settings=settings_of().generation,
            table="fvlm",
        )


def test_sentences_of_two_structures_and_of_none():
    ground = make_grounding(load_table("ten"), tuple(reversed(NAMES)), count=1)
    top = [[number] for number in range(10)]
    attention = [[number / 10] for number in range(10)]
    place = list(reversed(NAMES)).index("lung")
    found = ground._sentence("The lungs are clear .", ("lung", "pleura"), top, attention)
    patches = [{"patch": place, "attention": place / 10}]
    assert found == {
        "text": "The lungs are clear .",
        "structures": ["lung", "pleura"],
        "structure": "lung",
        "patches": patches,
    }
    assert ground._sentence("x", ("lung",), [[-1]] * 10, attention)["patches"] == []


def test_a_changed_fact_of_a_model_folder_is_refused(ct_run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(ct_run / "model", folder)
    text = (folder / "config.yaml").read_text()
    for old, new, words in (("width: 12", "width: -3", "sizes of features"), ("width: 12", "width: 13", "of another shape")):
        (folder / "config.yaml").write_text(text.replace(old, new))
        with pytest.raises(CheckpointError, match=words):
            load_model(folder, CPU, CT_REPORT)


def test_a_vocabulary_of_another_protocol_is_refused(ct_cohort, ct_features, tmp_path, monkeypatch):
    train(ct_cohort, ct_features, tmp_path, settings_of(training={"epochs": 1}))
    monkeypatch.setattr("ct_report_samples.build_ct_vocabulary", lambda **_: None)
    with pytest.raises(ConfigError, match=r"but ct\.report\.text\.protocol is 'r2gen'.*set ct\.report\.text as it was"):
        train(ct_cohort, ct_features, tmp_path, settings_of(text={"protocol": "r2gen"}))
    with pytest.raises(ConfigError, match=r"--processes 3: expected 1 to ct\.report\.training\.batch_size \(2\)"):
        train(ct_cohort, ct_features, tmp_path, processes=3)


def test_missing_features_stop_the_training_with_their_name(ct_cohort, ct_features, tmp_path):
    folder = tmp_path / "features"
    shutil.copytree(ct_features, folder)
    next((folder / "features").rglob("train_3.safetensors")).unlink()
    with pytest.raises(FileNotFoundError, match=r"train_3\.safetensors: no such file; .*extract-ct-features-shard"):
        train(ct_cohort, folder, tmp_path)


def test_nothing_is_left_behind_on_the_cpu(ct_cohort, ct_features, ct_run, tmp_path, monkeypatch):
    """What is on a GPU and what is not may not meet; the same weights come out as on the CPU."""
    monkeypatch.setattr(trainer, "resolve_device", lambda name: GPU)
    with pretend_gpu():
        on_gpu = train(ct_cohort, ct_features, tmp_path)
    assert same_weights(on_gpu, ct_run / "model") and history(on_gpu) == history(ct_run / "model")


def test_reports_written_on_a_gpu_are_those_of_the_cpu(ct_cohort, ct_features, ct_run, tmp_path, monkeypatch):
    wanted = generate(ct_cohort, ct_features, ct_run / "model", tmp_path / "cpu.jsonl")
    monkeypatch.setattr(generation, "resolve_device", lambda name: GPU)
    with pretend_gpu():
        assert generate(ct_cohort, ct_features, ct_run / "model", tmp_path / "gpu.jsonl") == wanted


def test_mixed_precision_learns(ct_cohort, ct_features, ct_run, tmp_path):
    mixed = train(ct_cohort, ct_features, tmp_path, settings_of(training={"precision": "bf16-mixed"}))
    exact, rough = (history(folder)[-1]["val_loss"] for folder in (ct_run / "model", mixed))
    assert rough != exact and rough == pytest.approx(exact, rel=0.1)
