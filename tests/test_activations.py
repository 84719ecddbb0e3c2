"""Stored activations, read back from a small archive in their layouts."""

import os
import pickle
import tarfile

import h5py
import numpy as np
import pytest

from analysis_lib import data, extraction, figures, models
from analysis_lib.data import activations as stored
from analysis_lib.data import fetch
from analysis_lib.errors import (
    AlignmentError,
    DataError,
    MissingDataError,
    ParameterError,
    UnknownNameError,
)

NAMES = stored.stored_sounds()
OURS, EXTERNAL = "braindnn_resnet50_word", "braindnn_vggish"


def values(model, seed=0, n_units=3):
    rng = np.random.default_rng(seed)
    layers = models.card(model).layers
    return {layer: rng.standard_normal((165, n_units)).astype("f4") for layer in layers}


@pytest.fixture
def folder(tmp_path):
    """An unpacked archive with one model of each layout, trained and permuted."""
    folder = tmp_path / "model_actv"
    for model in (OURS, EXTERNAL):
        for permuted in (False, True):
            written = values(model, seed=permuted)
            stored.write_activations(folder, model, written, NAMES, permuted)
    return folder


def sounds(names):
    return data.Sounds(names, [np.full(99, 0.1, "f4")] * len(names), None, 1000)


def test_the_18_models_of_the_paper_are_there_with_their_layers():
    ours = [name for name in stored.stored_models() if not name.endswith("_music")]
    assert len(ours) == 18
    for name in ours:
        assert list(stored._table()[name].keys) == list(models.card(name).layers)


def test_one_layer_of_the_network_trained_on_music_has_another_name():
    keys = stored._table()["braindnn_resnet50_music"].keys
    assert keys["conv1_relu1"] == "relu1" and keys["layer4"] == "layer4"


def test_sounds_are_in_the_order_of_their_numbers():
    numbers = [int(name.split("_")[0][4:]) for name in NAMES]
    assert len(NAMES) == 165 and numbers == sorted(numbers) and NAMES[0] == "stim5_alarm_clock"


@pytest.mark.parametrize("model", [OURS, EXTERNAL])
@pytest.mark.parametrize("permuted", [False, True])
def test_what_was_written_is_read_by_name(folder, model, permuted):
    written = values(model, seed=permuted)
    order = [100, 3, 50]
    found = stored.stored_activations(model, [NAMES[i] for i in order], permuted, folder=folder)
    assert list(found) == list(written)
    for layer, x in found.items():
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, written[layer][order])
    everything = stored.stored_activations(model, folder=folder)
    assert {x.shape for x in everything.values()} == {(165, 3)}


def test_layouts_are_those_of_the_archive(folder):
    with h5py.File(folder / "ResNet50word" / "natsound_activations_randnetw.h5") as file:
        assert file["layer_list"][0] == b"conv1_relu1" and file["layer1"].shape == (165, 3)
    with open(folder / "VGGish" / "stim5_alarm_clock_activations.pkl", "rb") as stream:
        vectors = pickle.load(stream)
    assert vectors["ReLU()--0"].shape == (3,)


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_features_by_the_name_of_their_source(folder, tmp_path, monkeypatch, form):
    mirror = tmp_path / "mirror" / "tuckute2023"
    mirror.mkdir(parents=True)
    if form == "folder":
        folder.rename(mirror / "model_actv")
    else:
        with tarfile.open(mirror / "model_actv.tar", "w") as tar:
            tar.add(folder, "model_actv")
    monkeypatch.setenv("BRAINBOOK_DATA", str(mirror.parent))
    heard = sounds([NAMES[7], NAMES[2]])
    trained = extraction.features(f"activations:{OURS}", heard, pooling="mean", device="cpu")
    permuted = extraction.features(f"activations:{OURS}:permuted", heard)
    assert trained.layers == models.card(OURS).layers and trained.names == heard.names
    np.testing.assert_array_equal(trained["layer2"].data, values(OURS)["layer2"][[7, 2]])
    np.testing.assert_array_equal(permuted["layer2"].data, values(OURS, 1)["layer2"][[7, 2]])
    assert len({trained.key, permuted.key}) == 2
    some = extraction.features(f"activations:{EXTERNAL}", heard, layers=["ReLU_2"])
    assert some.layers == ("ReLU_2",)
    again = extraction.features(f"activations:{OURS}", heard)
    assert again.key == trained.key


def test_requests_that_cannot_be_met(folder):
    heard = sounds([NAMES[0]])
    with pytest.raises(ParameterError, match="are means over time"):
        extraction.features(f"activations:{OURS}", heard, pooling="max")
    with pytest.raises(ParameterError, match=r"activations:<model>\[:permuted\]"):
        extraction.features(f"activations:{OURS}:shuffled", heard)
    with pytest.raises(UnknownNameError, match="stored activations 'braindnn_vgish'.*_vggish"):
        stored.stored_activations("braindnn_vgish", folder=folder)
    with pytest.raises(UnknownNameError, match="stored layer of braindnn_vggish 'ReLU_10'"):
        stored.stored_activations(EXTERNAL, layers=["ReLU_10"], folder=folder)
    with pytest.raises(ParameterError, match="no learned weights"):
        stored.stored_activations("braindnn_spectemp_filters", permuted=True, folder=folder)
    with pytest.raises(AlignmentError, match="165 natural sounds only, not for bark, meow"):
        stored.stored_activations(OURS, ["meow", NAMES[0], "bark"], folder=folder)


def test_missing_files_and_sounds_are_named(folder):
    (folder / "VGGish" / f"{NAMES[4]}_activations.pkl").unlink()
    with pytest.raises(AlignmentError, match=f"lacks 1 sounds: {NAMES[4]}_activations.pkl"):
        stored.stored_activations(EXTERNAL, folder=folder)
    assert stored.stored_activations(EXTERNAL, NAMES[:4], folder=folder)
    with pytest.raises(MissingDataError, match=r"stim5_.*nor one of another.*model_actv.tar"):
        stored.stored_activations("braindnn_s2t", folder=folder)
    with pytest.raises(MissingDataError, match=r"Kell2018word/natsound_activations.h5.*2.7 GB"):
        stored.stored_activations("braindnn_kell2018_word", folder=folder)


def rewrite(folder, model, change, permuted=False):
    layers = values(model)
    change(layers)
    stored.write_activations(folder, model, layers, NAMES, permuted)


def test_layers_that_are_missing_or_not_finite_are_named(folder):
    rewrite(folder, OURS, lambda layers: layers.pop("layer3"))
    with pytest.raises(DataError, match=r"lacks layer 'layer3'; it lists conv1_relu1, maxpool1"):
        stored.stored_activations(OURS, folder=folder)
    rewrite(folder, EXTERNAL, lambda layers: layers.pop("ReLU_9"))
    with pytest.raises(DataError, match=r"stim5_\S* lacks layer 'ReLU\(\)--8'; it holds ReLU\(\)"):
        stored.stored_activations(EXTERNAL, folder=folder)
    for model, layer in ((OURS, "layer4"), (EXTERNAL, "MaxPool2d_4")):

        def spoil(layers, layer=layer):
            layers[layer][9, 1] = np.nan

        rewrite(folder, model, spoil)
        with pytest.raises(DataError, match=f"'{layer}' is not finite for '{NAMES[9]}'"):
            stored.stored_activations(model, folder=folder)


def test_arrays_of_another_shape_are_refused(folder):
    stored.write_activations(folder, OURS, {k: x[:160] for k, x in values(OURS).items()}, NAMES)
    with pytest.raises(DataError, match=r"has shape \(160, 3\), expected \(165, n_units\)"):
        stored.stored_activations(OURS, folder=folder)
    path = folder / "VGGish" / f"{NAMES[1]}_activations.pkl"
    vectors = pickle.loads(path.read_bytes())
    for wrong in (np.ones((3, 2), "f4"), np.ones(4, "f4"), np.array(["a", "b", "c"])):
        path.write_bytes(pickle.dumps(vectors | {"ReLU()--0": wrong}))
        with pytest.raises(DataError, match=r"'ReLU\(\)--0' is .*expected numbers of shape \(3,\)"):
            stored.stored_activations(EXTERNAL, folder=folder)


class Command:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_code_in_a_pickle_is_refused_and_never_runs(folder, tmp_path):
    path = folder / "VGGish" / f"{NAMES[1]}_activations.pkl"
    path.write_bytes(pickle.dumps({"ReLU()--0": Command(tmp_path / "marker")}))
    with pytest.raises(DataError, match="is a pickle that would run 'posix.system'"):
        stored.stored_activations(EXTERNAL, folder=folder)
    assert not (tmp_path / "marker").exists()


def test_damaged_files_are_refused(folder):
    path = folder / "VGGish" / f"{NAMES[1]}_activations.pkl"
    for content in (path.read_bytes()[:40], b"", pickle.dumps([1, 2])):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{NAMES[1]}.*(not a readable|holds list)"):
            stored.stored_activations(EXTERNAL, folder=folder)
    path = folder / "ResNet50word" / "natsound_activations.h5"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="not a readable HDF5 file"):
        stored.stored_activations(OURS, folder=folder)


def test_an_archive_without_the_right_folders_is_refused(tmp_path, monkeypatch):
    mirror = tmp_path / "tuckute2023"
    mirror.mkdir()
    (tmp_path / "note.txt").write_text("")
    with tarfile.open(mirror / "model_actv.tar", "w") as tar:
        tar.add(tmp_path / "note.txt", "note.txt")
    monkeypatch.setenv("BRAINBOOK_DATA", str(tmp_path))
    with pytest.raises(DataError, match="does not hold one folder with a folder per model"):
        stored.stored_activations(OURS)
    assert fetch.find("tuckute2023", "model_actv") is None


def test_figures_say_where_the_features_come_from():
    assert figures.label(f"activations:{EXTERNAL}") == "VGGish (stored)"
    assert figures.label(f"activations:{EXTERNAL}:permuted") == "VGGish (stored, permuted)"
