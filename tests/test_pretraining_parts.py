"""Parts of pretraining: masks, network, targets, audio, controls."""

import golden
import numpy as np
import pytest
import soundfile
import soxr
import torch
from torch.nn import functional as F

from analysis_lib import data
from analysis_lib.errors import (
    AudioError,
    MissingDataError,
    ParameterError,
    UnknownNameError,
    WeightsError,
)
from analysis_lib.pretraining import (
    SIZES,
    AudioFolder,
    Clip,
    Corpus,
    EncodecTargets,
    KMeansTargets,
    LabelledEncoder,
    MaskedAutoencoder,
    Size,
    TeacherTargets,
    corpus,
    gap_mask,
    recipe_of,
)
from analysis_lib.pretraining import audio as audio_module
from analysis_lib.pretraining.baselines import copy_accuracy, unigram_nats
from analysis_lib.pretraining.controls import noise_like, shuffled, spectrum_of
from analysis_lib.pretraining.masking import split_frames
from analysis_lib.pretraining.network import CODEBOOK_WEIGHTS
from analysis_lib.pretraining.recipes import RECIPES, Recipe
from analysis_lib.pretraining.targets import fit_residual_kmeans, nearest_codes

TINY = Size(2, 16, 4, 24, 1)
RATE = 24_000


def masks(n, n_frames, seed=0, **options):
    rng = np.random.default_rng(seed)
    return np.stack([gap_mask(n_frames, rng, **options) for _ in range(n)])


class TestGapMask:
    @pytest.mark.parametrize("n_frames", [30, 149, 300])
    def test_hides_an_exact_share(self, n_frames):
        assert set(masks(200, n_frames).sum(axis=1)) == {n_frames // 2}
        assert set(masks(50, n_frames, share=0.3).sum(axis=1)) == {int(n_frames * 0.3)}

    def test_hides_whole_gaps(self):
        """Where nothing was taken back, no stretch is shorter than a gap."""
        n_short = []
        for mask in masks(500, 300):
            edges = np.flatnonzero(np.diff(np.r_[0, mask, 0]))
            lengths = edges[1::2] - edges[::2]
            n_short.append((lengths < 15).sum())
        # What was taken back lies within one gap and leaves at most two shorter stretches.
        assert max(n_short) <= 2
        # It is 7 frames on average: of 500 masks some end exactly on a gap, most do not.
        assert 0.02 < np.mean(np.array(n_short) == 0) < 0.6

    def test_every_place_is_hidden_as_often(self):
        """Up to the frames that fewer gaps reach, within four standard errors."""
        share = masks(4000, 300, seed=3).mean(axis=0)
        inside = share[30:-30]
        assert abs(inside - inside.mean()).max() < 4.5 * 0.5 / np.sqrt(4000)
        # The first frame lies in one of the 286 gaps that there are, one in the middle in 15.
        assert share[0] < 0.12 and share[-1] < 0.12
        assert inside.mean() > 0.5

    def test_is_drawn_from_the_generator(self):
        assert (masks(5, 100, 1) == masks(5, 100, 1)).all()
        assert (masks(5, 100, 1) != masks(5, 100, 2)).any()

    @pytest.mark.parametrize("options", [{"gap": 31}, {"share": 0.0}, {"share": 1.0}, {"gap": 0}])
    def test_impossible(self, options):
        with pytest.raises(ParameterError, match="gaps of .* frames cannot hide"):
            gap_mask(30, np.random.default_rng(0), **options)


def a_batch(n=3, n_frames=40, n_codebooks=2, n_codes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(n, n_frames, 256, generator=generator)
    codes = torch.randint(n_codes, (n, n_frames, n_codebooks), generator=generator)
    visible, hidden = map(torch.from_numpy, split_frames(masks(n, n_frames, seed)))
    return frames, codes, visible, hidden


def a_network(**options):
    torch.manual_seed(1)
    return MaskedAutoencoder(TINY, 2, 5, **options)


class TestNetwork:
    @pytest.mark.parametrize("size", ["small", "base", "large"])
    def test_has_the_published_tensors(self, size):
        """All but the frozen EnCodec, which a run keeps once and not in every checkpoint."""
        with torch.device("meta"):
            network = MaskedAutoencoder(SIZES[size])
        published = {
            row["name"]: row["shape"]
            for row in golden.manifest("encodecmae", f"mel256-ec-{size}")
            if not row["name"].startswith("target_encoder.")
        }
        assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == published

    def test_self_training_has_the_published_tensors(self):
        with torch.device("meta"):
            network = MaskedAutoencoder(SIZES["base"], n_codebooks=1)
        published = {
            row["name"]: row["shape"]
            for row in golden.manifest("encodecmae", "mel256-ec-base_st-nopn")
        }
        assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == published

    def test_no_hidden_frame_reaches_the_encoder(self):
        network = a_network()
        frames, codes, visible, hidden = a_batch()
        frames.requires_grad_()
        loss, _, _ = network(frames, codes, visible, hidden)
        (gradient,) = torch.autograd.grad(loss, frames)
        reached = gradient.abs().sum(2) > 0
        expected = torch.zeros_like(reached).scatter(1, visible, True)
        assert (reached == expected).all()

    def test_the_encoder_sees_only_visible_frames_in_their_places(self):
        network = a_network()
        frames, _, visible, _ = a_batch()
        encoded = network.encode(frames, visible)
        assert encoded.shape == (3, visible.shape[1], 16)
        for sound in range(3):
            projected = network.wav_encoder["post_net"](frames[sound : sound + 1])
            coded = network.masker["positional_encoder"](projected)[:, visible[sound]]
            torch.testing.assert_close(network.visible_encoder(coded)[0], encoded[sound])

    def test_hidden_frames_are_told_apart_by_place_alone(self):
        """Put back as zeros: the decoder's input there is its position code."""
        network = a_network()
        frames, _, visible, hidden = a_batch(n=1)
        seen = []
        network.decoder["encoder_layers"][0].register_forward_pre_hook(
            lambda module, args: seen.append(args[0])
        )
        network.predict(frames, visible)
        code = network.decoder["positional_encoder"](torch.zeros(1, 40, 16))
        torch.testing.assert_close(seen[0][0, hidden[0]], code[0, hidden[0]])
        assert not torch.allclose(seen[0][0, visible[0]], code[0, visible[0]])

    def test_loss_written_out(self):
        network = a_network(codebook_weights=[0.7, 0.3])
        frames, codes, visible, hidden = a_batch()
        loss, weight, metrics = network(frames, codes, visible, hidden)
        logits = network.predict(frames, visible)
        expected = masked_nats = right = 0.0
        for sound in range(3):
            for share, chosen in ((0.9, hidden[sound]), (0.1, visible[sound])):
                for book, book_weight in enumerate((0.7, 0.3)):
                    nats = F.cross_entropy(logits[sound, chosen, book], codes[sound, chosen, book])
                    expected += share * book_weight * nats
            chosen = hidden[sound]
            masked_nats += F.cross_entropy(logits[sound, chosen, 0], codes[sound, chosen, 0])
            right += (logits[sound, chosen, 0].argmax(1) == codes[sound, chosen, 0]).float().mean()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(metrics["masked_nats"], masked_nats)
        torch.testing.assert_close(metrics["masked_accuracy"], right)
        assert weight == 3

    def test_codebook_weights(self):
        assert sum(CODEBOOK_WEIGHTS) == pytest.approx(1, abs=1e-6)
        assert a_network().codebook_weights.sum() == pytest.approx(1)
        with pytest.raises(ParameterError, match="3 codebook weights for 2 codebooks"):
            a_network(codebook_weights=[1, 1, 1])

    def test_starts_as_published(self):
        network = MaskedAutoencoder(TINY, 2, 5)
        layer = network.head["layer"]
        assert layer.bias.eq(0).all()
        bound = np.sqrt(6 / (16 + 10))
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert network.masker["positional_encoder"].scale == 1

    def test_labels(self):
        torch.manual_seed(1)
        network = LabelledEncoder(TINY, 4)
        frames, labels = torch.randn(5, 20, 256), torch.tensor([0, 1, 2, 3, 0])
        loss, weight, metrics = network(frames, labels)
        logits = network.head["layer"](network.encode(frames).mean(1))
        torch.testing.assert_close(loss, F.cross_entropy(logits, labels) * 5)
        assert weight == 5 and 0 <= metrics["accuracy"] <= 5

    def test_every_control_starts_with_the_same_encoder(self):
        torch.manual_seed(4)
        masked = MaskedAutoencoder(TINY, 2, 5).state_dict()
        torch.manual_seed(4)
        labelled = LabelledEncoder(TINY, 4).state_dict()
        assert masked["wav_encoder.post_net.weight"].equal(labelled["wav_encoder.post_net.weight"])


class TestKMeans:
    def vectors(self, n=600):
        rng = np.random.default_rng(0)
        coarse, fine = rng.normal(0, 10, (4, 6)), rng.normal(0, 1, (3, 6))
        return coarse[rng.integers(4, size=n)] + fine[rng.integers(3, size=n)]

    def test_is_greedy(self):
        """Each code is the nearest centroid to what is left, found one vector at a time."""
        vectors = torch.from_numpy(self.vectors(50)).float()
        codebooks = torch.randn(3, 7, 6, generator=torch.Generator().manual_seed(0))
        codes = nearest_codes(vectors.reshape(5, 10, 6), codebooks)
        for vector, found in zip(vectors, codes.reshape(50, 3), strict=True):
            left = vector
            for codebook, code in zip(codebooks, found, strict=True):
                distances = [float((left - centroid).norm()) for centroid in codebook]
                assert distances[code] <= min(distances) + 1e-5
                left = left - codebook[code]

    def test_finds_what_is_there(self):
        vectors = self.vectors()
        codebooks = fit_residual_kmeans(vectors, 2, 4, seed=0)
        left = torch.from_numpy(vectors).float()
        total = left.var()
        for codebook in codebooks:
            left = left - codebook[nearest_codes(left, codebook[None])[..., 0]]
        assert left.var() < 0.02 * total

    def test_is_decided_by_the_seed(self):
        vectors = np.random.default_rng(1).normal(size=(500, 5))
        first, again, other = (fit_residual_kmeans(vectors, 2, 8, seed) for seed in (0, 0, 1))
        assert first.equal(again) and not first.equal(other)

    def test_too_little(self):
        with pytest.raises(ParameterError, match="3 frames of audio cannot be divided into 4"):
            fit_residual_kmeans(np.ones((3, 2)), 1, 4, 0)


@pytest.fixture(scope="module")
def encodec(tmp_path_factory):
    """A tiny EnCodec with random weights, as transformers writes it."""
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    config = EncodecConfig(
        num_filters=4, hidden_size=16, codebook_size=32, codebook_dim=16, num_lstm_layers=1
    )
    model = EncodecModel(config)
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_(0, 0.05)
    folder = tmp_path_factory.mktemp("encodec")
    model.save_pretrained(folder)
    return folder, model.eval()


class TestEncodec:
    def test_codes_are_those_of_transformers(self, encodec):
        folder, model = encodec
        targets = EncodecTargets(folder, 4)
        waveforms = torch.stack([golden.chirp(RATE, 1, seed) for seed in range(2)])
        codes = targets(waveforms, torch.zeros(2, 74, 256))
        with torch.no_grad():
            expected = model.encode(waveforms[:, None], bandwidth=3.0).audio_codes[0]
        assert codes.shape == (2, 74, 4) and targets.n_codes == 32
        assert codes.equal(expected[:, :4, :74].transpose(1, 2))
        assert len(codes.unique()) > 4

    def test_missing(self, tmp_path):
        with pytest.raises(MissingDataError, match="no EnCodec in .*kmeans"):
            EncodecTargets(tmp_path)

    def test_incomplete(self, encodec, tmp_path):
        from safetensors.torch import load_file, save_file

        folder, _ = encodec
        (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
        tensors = load_file(folder / "model.safetensors")
        tensors.pop("quantizer.layers.0.codebook.embed")
        save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(WeightsError, match="lacks 1 tensors"):
            EncodecTargets(tmp_path, 4)

    def test_too_many_codebooks(self, encodec):
        with pytest.raises(ParameterError, match="codebooks, not 99"):
            EncodecTargets(encodec[0], 99)


def test_teacher_must_hear_the_same_rate():
    teacher = type("Teacher", (), {"sample_rate": 16_000, "card": recipe_of("demo")})
    teacher.card = type("Card", (), {"name": "another"})
    with pytest.raises(ParameterError, match="another hears sounds at 16000 Hz"):
        TeacherTargets(teacher, "layer_0", torch.zeros(1, 2, 3))


def ramp(n, rate=RATE):
    """Samples that tell where they come from."""
    return (np.arange(n) / n / 2).astype(np.float32), rate


def write(folder, name, samples, rate):
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / name, samples, rate, subtype="FLOAT" if name.endswith("wav") else None)
    return folder / name


def rng(*numbers):
    return np.random.default_rng(numbers)


class TestAudio:
    def test_crops_are_stretches_of_the_recording(self, tmp_path):
        samples, rate = ramp(RATE)
        write(tmp_path / "a", "long.wav", samples, rate)
        found = AudioFolder(tmp_path)
        starts = set()
        for i in range(20):
            wave, label = found.crop(1000, rng(0, i))
            start = int(np.argmin(abs(samples - wave[0])))
            np.testing.assert_array_equal(wave, samples[start : start + 1000])
            assert label == "a"
            starts.add(start)
        assert len(starts) > 15 and max(starts) <= RATE - 1000

    def test_depend_on_the_generator_alone(self, tmp_path):
        for i in range(4):
            write(tmp_path, f"{i}.wav", ramp(9000 + i)[0], 22_050)
        one, other = AudioFolder(tmp_path), AudioFolder(tmp_path)
        one.crop(2000, rng(5))  # what was read before makes no difference
        for i in range(5):
            np.testing.assert_array_equal(one.crop(2000, rng(i))[0], other.crop(2000, rng(i))[0])

    @pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100, 48_000])
    def test_reads_the_part_that_is_needed(self, tmp_path, rate, monkeypatch):
        """The same sound as when the whole file is resampled, but for rounding of places."""
        t = np.arange(4 * rate) / rate
        tone = (0.3 * np.sin(2 * np.pi * 440 * t) * (0.5 + t / 8)).astype(np.float32)
        write(tmp_path, "tone.wav", tone, rate)
        streamed = AudioFolder(tmp_path, memory_mb=0)
        whole = soxr.resample(tone, rate, RATE, quality="HQ")
        n_read = []
        read = audio_module._read_file
        monkeypatch.setattr(
            audio_module,
            "_read_file",
            lambda clip, a, b: n_read.append((b - a) / clip.sample_rate) or read(clip, a, b),
        )
        for i in range(8):
            wave, _ = streamed.crop(6000, rng(i))
            total = int(len(tone) * RATE / rate)
            draws = rng(i)
            draws.uniform()
            start = int(draws.integers(total - 6000 + 1))
            expected = whole[start : start + 6000]
            # Half a sample of misplacement of a 440 Hz tone, and the filter's edges.
            assert abs(wave - expected)[200:-200].max() < 0.3 * 2 * np.pi * 440 / RATE
            assert np.corrcoef(wave, expected)[0, 1] > 0.99
        assert max(n_read) < 0.25 + 2 * 0.02 + 0.001

    def test_small_corpora_are_read_once(self, tmp_path, monkeypatch):
        write(tmp_path, "a.wav", *ramp(48_000))
        small, large = AudioFolder(tmp_path), AudioFolder(tmp_path, memory_mb=0.1)
        n_read = []
        read = audio_module._read_file
        monkeypatch.setattr(
            audio_module, "_read_file", lambda *args: n_read.append(1) or read(*args)
        )
        for found, expected in ((small, 1), (large, 5)):
            n_read.clear()
            for i in range(5):
                found.crop(1000, rng(i))
            assert len(n_read) == expected

    def test_every_second_is_as_likely(self):
        lengths = (1000, 3000, 6000)
        clips = [
            Clip(str(n), np.full(n, i / 10, np.float32), n, RATE, str(n))
            for i, n in enumerate(lengths)
        ]
        drawn = [Corpus(clips).crop(10, rng(i))[1] for i in range(3000)]
        shares = np.array([drawn.count(str(n)) for n in lengths]) / 3000
        np.testing.assert_allclose(shares, [0.1, 0.3, 0.6], atol=4 * 0.5 / np.sqrt(3000))

    @pytest.mark.parametrize("short", ["join", "loop", "pad", "refuse"])
    def test_short_recordings(self, short):
        clips = [
            Clip(name, np.full(300, value, np.float32), 300, RATE, name)
            for name, value in (("a", 0.1), ("b", 0.2))
        ]
        found = Corpus(clips, short)
        if short == "refuse":
            with pytest.raises(AudioError, match=r"[ab] has 0.013 s, the crop 0.0416667 s"):
                found.crop(1000, rng(0))
            return
        crops = [found.crop(1000, rng(i)) for i in range(20)]
        assert {wave.shape for wave, _ in crops} == {(1000,)}
        first = [0.1 if label == "a" else 0.2 for _, label in crops]
        for (wave, _), value in zip(crops, np.float32(first), strict=True):
            assert (wave[:300] == value).all()
            if short == "pad":
                assert (wave[300:] == 0).all()
            if short == "loop":
                assert (wave == value).all()
        if short == "join":
            assert any(len(set(wave)) == 2 for wave, _ in crops)

    def test_stereo_is_averaged(self, tmp_path):
        samples = np.stack([np.full(500, 0.2), np.full(500, 0.4)], axis=1)
        write(tmp_path, "two.wav", samples, RATE)
        np.testing.assert_allclose(AudioFolder(tmp_path).crop(100, rng(0))[0], 0.3, atol=1e-6)

    def test_split(self):
        clips = [Clip(str(i), np.ones(10, np.float32), 10, RATE) for i in range(40)]
        rest, held = Corpus(clips).split(0.1, seed=1)
        assert (len(rest), len(held)) == (36, 4)
        assert {c.name for c in rest.clips} | {c.name for c in held.clips} == {
            c.name for c in clips
        }
        assert Corpus(clips).split(0.1, seed=2)[1].clips != held.clips
        with pytest.raises(ParameterError, match="1 recordings cannot be divided"):
            Corpus(clips[:1]).split(0.5)

    def test_key_names_the_content(self):
        def key(value=1.0, **options):
            return Corpus([Clip("a", np.full(9, value, np.float32), 9, RATE)], **options).key

        assert key() == key() != key(0.5) and key() != key(short="pad")

    def test_bad_input(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(AudioError, match="empty holds no audio"):
            AudioFolder(tmp_path / "empty")
        with pytest.raises(AudioError, match="name at least one folder"):
            AudioFolder()
        with pytest.raises(AudioError, match="the list of recordings is empty"):
            Corpus([])
        with pytest.raises(MissingDataError, match="no folder .*nowhere"):
            AudioFolder(tmp_path / "nowhere")
        with pytest.raises(MissingDataError, match="demo, natsound"):
            corpus(tmp_path / "nowhere")
        with pytest.raises(UnknownNameError, match="Did you mean 'loop'"):
            Corpus([Clip("a", np.ones(3), 3, RATE)], short="lop")
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "text.wav").write_text("no audio")
        with pytest.raises(AudioError, match="text.wav is not readable audio"):
            AudioFolder(tmp_path / "bad")
        write(tmp_path / "none", "none.wav", np.zeros(0), RATE)
        with pytest.raises(AudioError, match="none.wav is empty"):
            AudioFolder(tmp_path / "none")
        write(tmp_path / "nan", "nan.wav", np.full(100, np.nan), RATE)
        with pytest.raises(AudioError, match="nan.wav holds NaN"):
            AudioFolder(tmp_path / "nan").crop(10, rng(0))

    def test_truncated(self, tmp_path):
        file = write(tmp_path, "cut.wav", *ramp(5000))
        found = AudioFolder(tmp_path, memory_mb=0)
        file.write_bytes(file.read_bytes()[:4000])
        with pytest.raises(AudioError, match="cut.wav is truncated"):
            found.crop(4900, rng(0))

    def test_demo(self):
        found = corpus("demo")
        assert len(found) == 60 and len(found.labels) == 6
        assert found.crop(RATE, rng(0))[0].shape == (RATE,)

    def test_natsound_is_what_no_task_probes(self, real_data):
        found = corpus("natsound")
        speakers = {c.name.split("_")[1] for c in found.clips if c.label.startswith("digit")}
        folds = {c.name.split("-")[0] for c in found.clips if not c.label.startswith("digit")}
        assert speakers == set(data.light_tasks.ZOO_SPEAKERS) and folds == {"4", "5"}
        assert len(found.labels) == 20 and 1000 < found.seconds < 2000

    def test_never_hears_what_brains_heard(self, real_data, tmp_path):
        sounds = sorted((data.fetch.fetch("natsound165", "wav/*") / "wav").glob("*.wav"))
        copy = tmp_path / "renamed.wav"
        copy.write_bytes(sounds[3].read_bytes())
        with pytest.raises(ParameterError, match="renamed.wav is one of the 165 natural sounds"):
            AudioFolder(tmp_path)


class TestControls:
    def test_shuffled_keeps_the_spectrum_and_loses_the_order(self):
        """A rising tone: each frequency is still there, at random times."""
        t = np.arange(2 * RATE) / RATE
        wave = (0.3 * np.sin(2 * np.pi * (500 * t + 400 * t**2))).astype(np.float32)
        mixed = shuffled(wave, rng(0))
        assert mixed.shape == wave.shape and mixed.dtype == np.float32
        assert mixed.std() == pytest.approx(wave.std(), rel=0.05)

        def octaves(x):
            power = np.abs(np.fft.rfft(x)) ** 2
            edges = np.searchsorted(np.fft.rfftfreq(len(x), 1 / RATE), [500, 900, 1300, 1700, 2100])
            return np.array([power[a:b].sum() for a, b in zip(edges, edges[1:], strict=False)])

        np.testing.assert_allclose(octaves(mixed), octaves(wave), rtol=0.1)

        def pitch(x):
            pieces = x[: len(x) // 2400 * 2400].reshape(-1, 2400)
            return np.abs(np.fft.rfft(pieces)).argmax(axis=1)

        place = np.arange(20)
        assert np.corrcoef(pitch(wave), place)[0, 1] > 0.99
        assert abs(np.corrcoef(pitch(mixed), place)[0, 1]) < 0.6

    def test_shuffled_is_decided_by_the_generator(self):
        wave = rng(1).standard_normal(5000).astype(np.float32) / 10
        np.testing.assert_array_equal(shuffled(wave, rng(0)), shuffled(wave, rng(0)))
        assert (shuffled(wave, rng(0)) != shuffled(wave, rng(2))).any()

    def test_noise_has_the_long_term_spectrum_and_the_level(self):
        t = np.arange(RATE) / RATE
        tones = 0.02 * sum(np.sin(2 * np.pi * f * t + f**2) for f in range(800, 1200, 20))
        found = Corpus([Clip("tones", tones.astype(np.float32), RATE, RATE)])
        spectrum = spectrum_of(found, 4800, seed=0)
        quiet = tones[:4800] / 10
        noise = noise_like(quiet, spectrum, rng(0))
        assert np.sqrt((noise**2).mean()) == pytest.approx(np.sqrt((quiet**2).mean()), rel=1e-3)
        power = np.abs(np.fft.rfft(noise)) ** 2
        hertz = np.fft.rfftfreq(4800, 1 / RATE)
        assert power[abs(hertz - 1000) < 230].sum() > 0.95 * power.sum()
        other = noise_like(quiet, spectrum, rng(1))
        assert abs(np.corrcoef(noise, other)[0, 1]) < 0.6
        assert abs(np.corrcoef(noise, quiet)[0, 1]) < 0.6


class TestBaselines:
    def test_unigram(self):
        heard = torch.tensor([[[0, 1]], [[0, 1]], [[1, 1]]])
        nats = unigram_nats(heard, torch.tensor([[0, 1], [1, 1]]), 2)
        expected = [-(np.log(3 / 5) + np.log(2 / 5)) / 2, -np.log(4 / 5)]
        np.testing.assert_allclose(nats, expected)

    def test_copying(self):
        codes = torch.tensor([[7, 7, 7, 1, 2, 9]])
        visible, hidden = torch.tensor([[0, 4]]), torch.tensor([[1, 2, 3, 5]])
        # Frame 2 is as near to 0 as to 4, and gets the earlier one's code.
        assert copy_accuracy(codes, visible, hidden) == 0.5


class TestRecipes:
    def test_paper(self):
        recipe = RECIPES["paper"]
        assert (recipe.size, recipe.targets, recipe.n_codebooks) == ("base", "encodec", 8)
        assert (recipe.batch_size, recipe.seconds, recipe.n_steps) == (128, 4.0, 500_000)
        assert (recipe.learning_rate, recipe.betas) == (1e-4, (0.9, 0.95))
        assert (recipe.weight_decay, recipe.mask_gap, recipe.mask_share) == (0.05, 15, 0.5)
        assert recipe.n_samples == 96_000

    def test_steps_that_are_kept(self):
        assert recipe_of("demo", n_steps=16, n_checkpoints=5).checkpoint_steps == [
            0,
            1,
            2,
            4,
            8,
            16,
        ]

    @pytest.mark.parametrize("schedule, last", [("constant", 1.0), ("cosine", 0.0)])
    def test_learning_rate(self, schedule, last):
        recipe = Recipe(schedule=schedule, warmup=10, n_steps=50, learning_rate=2.0)
        optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], recipe.learning_rate)
        scheduler = recipe.learning_rate_schedule(optimiser)
        rates = []
        for _ in range(50):
            rates.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            scheduler.step()
        np.testing.assert_allclose(rates[:10], np.linspace(0.2, 2.0, 11)[:10], rtol=1e-6)
        assert max(rates) == pytest.approx(2.0)
        assert optimiser.param_groups[0]["lr"] == pytest.approx(2 * last, abs=1e-6)

    def test_bad_settings(self):
        with pytest.raises(UnknownNameError, match="Did you mean 'natsound'"):
            recipe_of("natsounds")
        with pytest.raises(UnknownNameError, match="Did you mean 'n_steps'"):
            recipe_of("demo", n_step=3)
        with pytest.raises(UnknownNameError, match="size of network"):
            recipe_of("demo", size="huge")
        with pytest.raises(UnknownNameError, match="schedule"):
            Recipe(schedule="linear")
        with pytest.raises(ParameterError, match="n_steps must be positive"):
            Recipe(n_steps=0)
        with pytest.raises(ParameterError, match="held_out must lie between"):
            Recipe(held_out=0)


def test_kmeans_targets_are_frame_by_frame():
    codebooks = torch.randn(2, 5, 256, generator=torch.Generator().manual_seed(0))
    targets = KMeansTargets(codebooks)
    frames = torch.randn(3, 7, 256)
    codes = targets(torch.zeros(3, 2000), frames)
    assert codes.shape == (3, 7, 2)
    assert codes[1, 4].equal(nearest_codes(frames[1, 4], codebooks))
