import numpy as np
import soundfile

from analysis_lib import data
from analysis_lib.named_files import named_files


def test_names_of_the_zoo_and_other_values_name_no_file(tmp_path):
    (tmp_path / "demo").mkdir()  # a folder that is called as a profile is not meant
    values = {"profile": "demo", "models": ["log-mel", "hf:facebook/hubert"], "n": 3, "layer": None}
    assert named_files(values, tmp_path) == {}


def test_a_model_a_folder_and_weights(tmp_path):
    (tmp_path / "model.py").write_text("one")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "config.json").write_text("{}")
    model, folder = "model.py:network", f"hf:{tmp_path}/saved"
    values = {"models": [model, folder]}
    before = named_files(values, tmp_path)
    assert [file for file, *_ in before[model]] == [str(tmp_path / "model.py")]
    assert str(tmp_path / "saved" / "config.json") in [file for file, *_ in before[folder]]
    assert named_files(values, tmp_path) == before
    (tmp_path / "saved" / "weights.bin").write_text("new")
    after = named_files(values, tmp_path)
    assert after[model] == before[model] and after[folder] != before[folder]


def test_data_bring_their_audio_along(tmp_path):
    audio = tmp_path / "audio"
    audio.mkdir()
    for name in ("a", "b"):
        soundfile.write(audio / f"{name}.wav", np.full(800, 0.1), 8000)
    path = data.write_responses(
        data.own_responses(np.ones((2, 1)), ["a", "b"]), tmp_path / "mine.nc", audio
    )
    before = named_files({"dataset": str(path)}, tmp_path)
    soundfile.write(audio / "a.wav", np.full(900, 0.1), 8000)
    assert len(before[str(path)]) == 3
    assert named_files({"dataset": str(path)}, tmp_path) != before
