import warnings

import numpy as np
import pytest
import soundfile

from analysis_lib import data
from analysis_lib.data import Sounds, fetch, read_audio
from analysis_lib.errors import AlignmentError, AudioError, AudioNotice, UnknownNameError

RATE = 16_000
TONE = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)


@pytest.fixture
def write(tmp_path):
    """Write a WAV file and give its path."""

    def wav(samples, rate=RATE, name="tone", subtype="FLOAT"):
        file = tmp_path / f"{name}.wav"
        soundfile.write(file, samples, rate, subtype)
        return file

    return wav


def test_a_good_file_comes_back_as_it_is_and_without_a_notice(write):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        waveform = read_audio(write(TONE))
    assert waveform.dtype == np.float32 and waveform.shape == (RATE,)
    np.testing.assert_array_equal(waveform, TONE)


def test_a_corrupted_file_is_refused_by_name(tmp_path):
    file = tmp_path / "stim5_alarm_clock.wav"
    file.write_bytes(b"RIFF" + bytes(200))
    expected = rf"sound 'stim5_alarm_clock': {file} is not readable audio \(.*\). Replace the file"
    with pytest.raises(AudioError, match=expected):
        read_audio(file)


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_truncated_file_is_refused_by_name(write, subtype):
    file = write(TONE, subtype=subtype)
    file.write_bytes(file.read_bytes()[:10_000])
    with pytest.raises(AudioError, match=r"'tone': .* is truncated \(its header promises more"):
        read_audio(file)


def test_a_missing_file_is_refused_by_name(tmp_path):
    sounds = Sounds(["tone"], [tmp_path / "tone.wav"])
    for ask in (sounds.waveform, sounds.content_hash):
        with pytest.raises(AudioError, match=f"sound 'tone': no file {tmp_path / 'tone.wav'}"):
            ask("tone")


def test_stereo_is_averaged_with_a_notice(write):
    file = write(np.stack([TONE, 0.5 * TONE], axis=1))
    with pytest.warns(AudioNotice, match="sound 'tone': 2 channels averaged to mono"):
        waveform = read_audio(file)
    np.testing.assert_allclose(waveform, 0.75 * TONE, atol=1e-7)


def test_8_khz_is_raised_with_a_notice(write):
    file = write(TONE[::2], rate=8_000)
    expected = "recorded at 8000 Hz, resampled to 16000 Hz; nothing is there above 4000 Hz"
    with pytest.warns(AudioNotice, match=expected):
        waveform = read_audio(file, RATE)
    assert waveform.shape == (RATE,)
    inner = slice(800, -800)  # away from the resampling filter's ends
    np.testing.assert_allclose(waveform[inner], TONE[inner], atol=2e-3)


def test_a_higher_rate_is_lowered_without_a_notice(write):
    file = write(TONE, rate=44_100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert abs(len(read_audio(file, 22_050)) - RATE / 2) <= 1


def test_silence_is_refused_or_noted(write):
    file = write(np.zeros(RATE))
    with pytest.raises(
        AudioError, match=r"'tone' is silent \(peak 0.0e\+00\).*leave out the sound"
    ):
        read_audio(file)
    with pytest.warns(AudioNotice, match="silent"):
        assert not read_audio(file, on_silence="warn").any()
    with pytest.warns(AudioNotice, match="silent"):
        assert not Sounds(["s"], [np.zeros(9)], None, RATE, "warn")["s"].waveform("s").any()


def test_the_quietest_16_bit_sound_is_not_silent(write):
    quiet = np.zeros(100, dtype=np.int16)
    quiet[50] = 1
    assert read_audio(write(quiet, subtype="PCM_16")).max() == pytest.approx(2**-15)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(write, value):
    samples = TONE.copy()
    samples[7] = value
    with pytest.raises(AudioError, match="'tone' holds NaN or infinite samples"):
        read_audio(write(samples))


def test_an_empty_file_is_refused(write):
    with pytest.raises(AudioError, match=r"'tone' is empty \(0 samples\)"):
        read_audio(write(np.zeros(0)))


def test_what_is_above_full_scale_is_clipped_with_a_notice(write):
    with pytest.warns(AudioNotice, match="peak 2.00 is above full scale, clipped to 1"):
        waveform = read_audio(write(4 * TONE))
    np.testing.assert_allclose(waveform, np.clip(4 * TONE, -1, 1), atol=1e-6)


NAMES = ["stim5_a", "stim28_b", "stim7_c", "stim99_d"]


@pytest.fixture
def four():
    waves = [TONE * (i + 1) / 10 for i in range(4)]
    return Sounds(NAMES, waves, ["music", "speech", "music", "nature"], RATE)


def test_a_set_of_sounds_is_named_and_ordered(four):
    assert list(four) == NAMES and len(four) == 4
    assert repr(four) == "Sounds(4 sounds in 3 categories)"
    np.testing.assert_array_equal(four.waveform("stim7_c"), TONE * 3 / 10)


@pytest.mark.parametrize(
    "selection, expected",
    [
        (["stim99_d", "stim5_a"], [3, 0]),
        ("stim28_b", [1]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        (np.array([True, False, False, True]), [0, 3]),
        ([True, False, False, True], [0, 3]),
        (np.array([2, 0]), [2, 0]),
        ([2, 0], [2, 0]),
    ],
    ids=["names", "name", "slice", "backwards", "mask", "list mask", "array", "integers"],
)
def test_subsets_keep_order_categories_and_content(four, selection, expected):
    subset = four[selection]
    assert list(subset) == [NAMES[i] for i in expected]
    assert list(subset.categories) == [four.categories[i] for i in expected]
    for name in subset:
        assert subset.content_hash(name) == four.content_hash(name)


def test_a_renamed_sound_is_not_found_and_the_nearest_is_named(four):
    for ask in (four.waveform, lambda name: four[[name]]):
        with pytest.raises(UnknownNameError, match="'stim28_bb'. Did you mean 'stim28_b'"):
            ask("stim28_bb")


def test_names_given_twice_are_refused():
    with pytest.raises(AlignmentError, match="must be unique; given twice: a, c"):
        Sounds(["a", "b", "c", "a", "c"], [TONE] * 5, None, RATE)


def test_a_number_of_categories_that_does_not_fit_is_refused():
    with pytest.raises(AlignmentError, match="2 names but 1 categories"):
        Sounds(["a", "b"], [TONE, TONE], ["music"], RATE)


def test_content_hash_covers_samples_and_rate(write):
    def of(samples, rate=RATE):
        return Sounds(["x"], [samples], None, rate).content_hash("x")

    louder = TONE.copy()
    louder[3] = np.nextafter(louder[3], 1)
    hashes = {of(TONE), of(louder), of(TONE, 8_000), of(TONE[:-1]), of(TONE.astype(float))}
    assert len(hashes) == 5 and of(TONE.copy()) in hashes
    one, other = write(TONE, name="one"), write(louder, name="other")
    pair = Sounds(["one", "other"], [one, other])
    assert pair.content_hash("one") != pair.content_hash("other")


def test_the_165_natural_sounds(real_data):
    sounds = data.natural_sounds()
    assert len(sounds) == 165 and len(set(sounds.categories)) == 11
    numbers = [int(name.removeprefix("stim").split("_")[0]) for name in sounds]
    assert numbers == sorted(numbers) and (numbers[0], numbers[-1]) == (5, 527)
    for name in (sounds.names[0], sounds.names[100], sounds.names[-1]):
        waveform = sounds.waveform(name)
        assert waveform.shape == (88_200,)  # 2 s at 44.1 kHz
        assert np.sqrt((waveform.astype(float) ** 2).mean()) == pytest.approx(0.01, rel=0.02)
        assert sounds.waveform(name, 16_000).shape == (32_000,)


def test_a_natural_sound_renamed_in_the_mirror_is_missed_by_name(real_data, tmp_path, monkeypatch):
    (tmp_path / "mirror" / "natsound165").mkdir(parents=True)
    source = fetch.fetch("natsound165", "wav/stim5_*")
    mirror = tmp_path / "mirror" / "natsound165" / "wav"
    mirror.mkdir()
    (mirror / "stim5_renamed.wav").symlink_to(source / "wav" / "stim5_alarm_clock.wav")
    monkeypatch.setenv("BRAINBOOK_DATA", str(tmp_path / "mirror"))
    monkeypatch.setattr(fetch, "download", lambda url, *_: pytest.fail(f"asked for {url}"))
    with pytest.raises(pytest.fail.Exception, match="asked for .*wav/stim5_alarm_clock.wav"):
        fetch.path("natsound165", "wav/stim5_alarm_clock.wav")
