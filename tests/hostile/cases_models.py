"""Malformed weights and model folders: torch files, pickles, safetensors, configurations of models."""

import io
import json
import pickle
import struct
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import good_files as good
import numpy as np
import torch
from case_files import damaged_cases, no_files, put
from hostile_case import READ, REFUSED, Case, Make
from mutate import DAMAGES, damaged

from d2rnet.cxr.report_model.front_end import facts_of
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.settings import TrainReportModelSettings
from d2rnet.report.model_files import CONFIG, VOCABULARY, WEIGHTS, save_model
from d2rnet.report.text.vocabulary import count_vocabulary

SMALL_MODEL = {
    "input_size_px": 32, "backbone_stages": 2, "patch_channels": 8, "lesion_roi_size": 2, "d_model": 16, "d_ff": 16,
    "num_heads": 2, "num_layers": 1, "memory_heads": 2,
}  # fmt: skip


class Touch:
    """An object whose unpickling makes a file."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.place),)


def trap(name: str, key: str, write: Callable[[Any], bytes]) -> Make:
    """A file whose loading makes another one beside the inputs, where the battery sees it."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(write({key: Touch(str(folder.parent / "touched"))}))
        return folder / name

    return make


def saved(value: Any) -> bytes:
    """What torch.save makes of a value."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def compressed() -> bytes:
    """A torch file of 64 MB of zeros whose parts are deflated."""
    source, buffer = zipfile.ZipFile(io.BytesIO(saved({"model": {"weight": torch.zeros(16 << 20)}}))), io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target:
        for item in source.infolist():
            target.writestr(item.filename, source.read(item))
    return buffer.getvalue()


def torch_cases() -> list[Case]:
    """Checkpoints and pretrained weights."""
    name = "weights.pth"
    loop: list[Any] = []
    loop.append(loop)
    endless = torch.zeros(1).expand(1 << 20, 1 << 20)
    found = {
        "a whole module": saved(torch.nn.Linear(2, 2)),
        "a list": saved([torch.zeros(2)]),
        "a tensor alone": saved(torch.zeros(2)),
        "a number": saved(7),
        "a tensor of 4 TiB with 4 bytes stored": saved({"model": {"weight": endless}}),
        "a zip archive of something else": b"PK\x05\x06" + bytes(18),
        "a safetensors file": struct.pack("<Q", 2) + b"{}",
        "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    }
    cases = [Case("weights (.pth)", what, put(name, data)) for what, data in found.items()]
    cases += [
        Case("weights (.pth)", "deflated parts, 0.3 MB for 64 MB", put(name, compressed), record="compressed"),
        Case("weights (.pth)", "an object that makes a file when loaded", trap(name, "model", saved)),
        Case("weights (.pth)", "a plain pickle that makes a file", trap(name, "model", pickle.dumps)),
    ]
    cases += no_files("weights (.pth)", name)
    cases.append(
        Case("weights (.pth)", "a list that contains itself", put(name, saved({"a": loop})), expected=(READ, REFUSED))
    )
    cases += damaged_cases("weights (.pth)", name, good.weights(), seed=51, what="zip: ")
    cases += damaged_cases("weights (.pth)", name, good.weights(zipped=False), seed=52, what="before torch 1.6: ")
    return cases


def pickle_cases() -> list[Case]:
    """Caffe2's pickles; the network at hand fits none of them."""
    name = "weights.pkl"
    array = np.arange(4)
    found = {
        "a call of eval": b'cbuiltins\neval\n(S\'open("touched", "w")\'\ntR.',
        "an array of objects": pickle.dumps({"blobs": {"w": np.array([{}, None], dtype=object)}}),
        "an array of 10^12 bytes": b"cnumpy\nndarray\n((I1000000000000\ntI1\nS'b'\ntR.",
        "a string of 10^15 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 10**15) + b"x.",
        "weights that are a list": pickle.dumps({"blobs": [array]}),
        "names that are numbers": pickle.dumps({"blobs": {3: array}}),
        "an array of text": pickle.dumps({"blobs": {"w": np.array(["a", "b"])}}),
        "a list": pickle.dumps([array], protocol=2),
        "10,000 tuples deep": b"(" * 10_000 + b"t" * 10_000 + b".",
    }
    cases = [Case("weights (.pkl)", what, put(name, data)) for what, data in found.items()]
    cases.append(Case("weights (.pkl)", "an object that makes a file when loaded", trap(name, "blobs", pickle.dumps)))
    cases += [*no_files("weights (.pkl)", name), *damaged_cases("weights (.pkl)", name, good.pickled(), seed=53)]
    more = {
        "a state dict of texts": saved({"state_dict": {"encoder_decoder.a": "b"}}),
        "a state dict of another model": saved({"state_dict": {"w": torch.zeros(2)}}),
        "keys that are numbers": saved({3: torch.zeros(2)}),
    }
    cases += [Case("R2Gen checkpoint", what, put("r2gen.pth", data)) for what, data in more.items()]
    return [
        *cases,
        Case("R2Gen checkpoint", "an object that makes a file when loaded", trap("r2gen.pth", "state_dict", saved)),
    ]


@cache
def model_folder() -> dict[str, bytes]:
    """The files of a small report model that fits together."""
    settings = TrainReportModelSettings.read({"model": SMALL_MODEL})
    words = count_vocabulary(["heart large .", "no effusion ."], protocol="r2gen", section="findings", min_token_count=1)
    model = D2RNet(settings.model, num_tokens=len(words), num_categories=3)
    with tempfile.TemporaryDirectory() as name:
        save_model(Path(name), model.state_dict(), settings=settings, vocabulary=words, facts=facts_of(("a", "b", "c")),
                   selected={"epoch": 0})  # fmt: skip
        return {file: (Path(name) / file).read_bytes() for file in (WEIGHTS, VOCABULARY, CONFIG)}


def model_with(file: str, change: Callable[[bytes], bytes]) -> Make:
    """That model with one file changed."""

    def make(folder: Path) -> Path:
        for name, data in model_folder().items():
            (folder / name).write_bytes(change(data) if name == file else data)
        return folder / file

    return make


def safetensors(header: object, body: bytes = b"") -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def model_cases() -> list[Case]:
    """The folder of train_report_model and the configuration of train_detector."""
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    weights = {
        "a header of 2^60 bytes": struct.pack("<Q", 1 << 60) + b"{}",
        "a header of no JSON": safetensors(b"{"),
        "a tensor outside the file": safetensors({"w": tensor | {"data_offsets": [0, 1 << 40]}}),
        "a tensor of another length": safetensors({"w": tensor | {"shape": [1 << 40]}}, bytes(8)),
        "a negative shape": safetensors({"w": tensor | {"shape": [-2]}}, bytes(8)),
        "an unknown type of number": safetensors({"w": tensor | {"dtype": "F33"}}, bytes(8)),
        "tensors of another model": safetensors({"w": tensor}, bytes(8)),
        "no tensor": safetensors({}),
        "an empty file": b"",
        "a torch file": good.weights(),
    }
    settings = {
        "a billion laughs through aliases": "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)),
        "a tag that calls a function": "format: !!python/object/apply:os.system [ls]\n",
        "another format": ("d2rnet-report-model-1", "other"),
        "categories that are a text": ("categories:\n- a\n- b\n- c", "categories: abc"),
        "categories that are lists": ("- a\n- b\n- c", "- [a]\n- [b]\n- [c]"),
        "a width of 20 million": ("d_ff: 16", "d_ff: 20000000"),
        "a width of 10^12": ("d_model: 16", "d_model: 1000000000000"),
        "10^9 layers": ("num_layers: 1", "num_layers: 1000000000"),
        "a width of NaN": ("d_model: 16", "d_model: .nan"),
        "a section that is a text": "format: d2rnet-report-model-1\ntext: a\nmodel: b\ntraining: c\ncategories: [a]\n",
        "bytes that are no text": "\x00",
    }
    cases = [
        Case("report model", f"weights: {what}", model_with(WEIGHTS, lambda _, data=data: data))
        for what, data in weights.items()
    ]
    cases += [Case("report model", f"settings: {what}", model_with(CONFIG, exchange(text))) for what, text in settings.items()]
    others = model_with(VOCABULARY, lambda data: other_words())
    cases.append(Case("report model", "vocabulary of other weights", others, record=WEIGHTS[:5]))
    cases += [
        Case("report model", f"weights: {damage.__name__.replace('_', ' ')} (seed 54)",
             model_with(WEIGHTS, lambda data, damage=damage: damaged(data, damage, 54)), expected=(READ, REFUSED))
        for damage in DAMAGES
    ]  # fmt: skip
    detector = {
        "a tag that calls a function": b"MODEL: !!python/object/apply:os.system ['touch touched']\n",
        "a base file to fetch": b"_BASE_: https://localhost:1/base.yaml\n",
        "an unknown key": b"MODEL: {NO_SUCH: 1}\n",
        "a list": b"- 1\n",
        "a value of another type": b"MODEL: {ROI_HEADS: {NUM_CLASSES: many}}\n",
        "other classes": b"MODEL: {D2RNET: {CLASS_NAMES: [Lung]}}\n",
        "classes that are a number": b"MODEL: {D2RNET: {CLASS_NAMES: 3}}\n",
        "an empty file": b"",
        "bytes that are no text": b"\xff\xfe\x00",
    }
    return cases + [Case("detector config", what, put("config.yaml", data)) for what, data in detector.items()]


def exchange(text: str | tuple[str, str]) -> Callable[[bytes], bytes]:
    """A change of config.yaml: another text, or one part for another that is there once."""

    def change(data: bytes) -> bytes:
        if isinstance(text, str):
            return text.encode()
        assert data.count(text[0].encode()) == 1, text
        return data.replace(text[0].encode(), text[1].encode())

    return change


def other_words() -> bytes:
    """A good vocabulary.json of other words."""
    words = count_vocabulary(["lungs clear ."], protocol="r2gen", section="findings", min_token_count=1)
    with tempfile.TemporaryDirectory() as name:
        words.save(Path(name) / VOCABULARY)
        return (Path(name) / VOCABULARY).read_bytes()


def cases() -> list[Case]:
    """All of them."""
    return [*torch_cases(), *pickle_cases(), *model_cases()]
