"""What an error of decoding repeats: a decoder's own words, never those of a library about values of the header."""

import pytest
from dicom_samples import WINDOW, chest, data_set, write

from d2rnet.cxr.images import dicom_file
from d2rnet.cxr.images.reader import read_radiograph
from d2rnet.errors import DatasetError


@pytest.mark.parametrize(("kind", "is_repeated"), [(RuntimeError, True), (ValueError, False), (KeyError, False)])
def test_only_a_decoder_is_quoted(tmp_path, monkeypatch, kind, is_repeated):
    def refuse(*_):
        raise kind("Doe^John, born 1950")

    monkeypatch.setattr(dicom_file, "_decode", refuse)
    with pytest.raises(DatasetError) as caught:
        read_radiograph(write(tmp_path / "image.dcm", data_set(chest(), **WINDOW)))
    assert ("Doe^John" in str(caught.value)) == is_repeated
    assert kind.__name__ in str(caught.value)
