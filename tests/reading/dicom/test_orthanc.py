"""Round trip through a real archive, Orthanc, over DICOMweb: image and documents in, the same out, in one study."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from dicomweb_client import DICOMwebClient
from document_samples import PATIENT, STUDY, make_reading, write, write_image
from pydicom import Dataset, dcmread

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_SECONDS = 60


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DICOMwebClient]:
    """A client of an empty Orthanc of our own, which nobody else reaches and which forgets everything afterwards."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    if program is None or not PLUGIN.is_file():
        pytest.skip("no Orthanc with DICOMweb on this machine (apt-get install orthanc orthanc-dicomweb)")
    folder = tmp_path_factory.mktemp("orthanc")
    port = free_port()
    configuration = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    address = f"http://127.0.0.1:{port}"
    words = [program, str(folder / "orthanc.json")]
    with (folder / "log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        try:
            wait_for(address, process, folder / "log")
            yield DICOMwebClient(f"{address}/dicom-web")
        finally:
            process.terminate()
            process.wait(30)


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(START_SECONDS * 10):
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            requests.get(f"{address}/dicom-web/studies", timeout=5).raise_for_status()
            return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError(f"Orthanc did not start: {log.read_text()[-3000:]}")


def without_file_meta(document: Dataset) -> Dataset:
    """The data set alone: an archive writes file meta information of its own."""
    plain = Dataset()
    plain.update(document)
    return plain


def test_documents_land_beside_their_image_and_come_back_equal(archive: DICOMwebClient, tmp_path: Path) -> None:
    image = write_image(tmp_path / "chest.dcm")
    archive.store_instances([dcmread(image)])
    files = write(make_reading(image), tmp_path / "out")
    sent = {kind: dcmread(file) for kind, file in files.items()}
    archive.store_instances(list(sent.values()))
    (study,) = archive.search_for_studies(search_filters={"StudyInstanceUID": STUDY})
    assert study["0020000D"]["Value"] == [STUDY]
    series = archive.search_for_series(STUDY)
    assert sorted(one["00080060"]["Value"][0] for one in series) == ["CR", "PR", "SR"]
    for kind, document in sent.items():
        back = archive.retrieve_instance(STUDY, document.SeriesInstanceUID, document.SOPInstanceUID)
        assert without_file_meta(back) == without_file_meta(document), kind
    back = archive.retrieve_instance(STUDY, dcmread(image).SeriesInstanceUID, dcmread(image).SOPInstanceUID)
    assert back.PixelData == dcmread(image).PixelData
    assert str(back.PatientName) == str(sent["report"].PatientName) == PATIENT["PatientName"]


def test_documents_that_are_sent_twice_are_there_once(archive: DICOMwebClient, tmp_path: Path) -> None:
    image = write_image(tmp_path / "chest.dcm", PatientID="twice", StudyInstanceUID=f"{STUDY[:50]}.2")
    files = write(make_reading(image), tmp_path / "out")
    for _ in range(2):
        archive.store_instances([dcmread(file) for file in (image, *files.values())])
    assert len(archive.search_for_instances(f"{STUDY[:50]}.2")) == 3
