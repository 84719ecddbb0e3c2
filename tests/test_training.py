import json
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from torch import nn

from analysis_lib import training
from analysis_lib.errors import ParameterError, TrainingError, WeightsError


class Regression(nn.Module):
    """Two layers with dropout between, taught by squared errors."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(3)
        self.network = nn.Sequential(
            nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 1)
        )

    def forward(self, inputs, targets):
        errors = (self.network(inputs) - targets).square()
        return errors.sum(), torch.tensor(float(errors.numel())), {"largest": errors.max()}


def batch_of(step, part, n_parts, size=12):
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(size, 4, generator=generator)
    targets = inputs.sum(dim=1, keepdim=True)
    rows = slice(part * size // n_parts, (part + 1) * size // n_parts)
    return inputs[rows], targets[rows]


def fit(folder, n_steps=12, dropout=0.3, objective=None, **options):
    objective = objective or Regression(dropout)
    optimiser = torch.optim.AdamW(objective.parameters(), 0.01)
    options.setdefault("schedule", torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 12))
    options.setdefault("batch_of", batch_of)
    run = training.fit(
        objective,
        optimiser=optimiser,
        folder=folder,
        n_steps=n_steps,
        device="cpu",
        progress=False,
        **options,
    )
    return run, objective.state_dict()


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_equals_a_loop_written_out(tmp_path):
    torch.manual_seed(0)
    run, weights = fit(tmp_path, dropout=0.0, schedule=None)
    plain = Regression(0.0)
    optimiser = torch.optim.AdamW(plain.parameters(), 0.01)
    losses = []
    for step in range(12):
        inputs, targets = batch_of(step, 0, 1)
        loss = nn.functional.mse_loss(plain.network(inputs), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    np.testing.assert_allclose(run.history["loss"].dropna(), losses, rtol=1e-6)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("killed_at", [1, 5, 11])
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path, killed_at):
    whole, weights = fit(tmp_path / "whole", checkpoint_steps=range(13))

    def interrupted(step, part, n_parts):
        if step == killed_at:
            raise KeyboardInterrupt
        return batch_of(step, part, n_parts)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "parts", batch_of=interrupted, save_every=2)
    run, resumed = fit(tmp_path / "parts", save_every=2)
    assert same(weights, resumed)
    shown = ["step", "loss", "gradient_norm", "learning_rate"]
    assert run.history[shown].equals(whole.history[shown])
    assert list(run.checkpoints) == [12]  # the others only guarded against a kill


def test_goes_on_from_any_checkpoint(tmp_path):
    run, weights = fit(tmp_path, checkpoint_steps=training.log_spaced_steps(12, 5))
    assert list(run.checkpoints) == [0, 1, 2, 3, 6, 12]
    again, resumed = fit(tmp_path, checkpoint_steps=range(13), resume_from=3)
    assert same(weights, resumed) and len(again.history) == 13
    with pytest.raises(ParameterError, match="no checkpoint of step 99 in .*there are"):
        fit(tmp_path, resume_from=99)


def test_a_killed_process_goes_on(tmp_path):
    """SIGKILL in the middle of the run, wherever that is."""
    program = textwrap.dedent("""
        import sys, time
        sys.path.insert(0, sys.argv[2])
        import test_training as t
        def slow(step, part, n_parts):
            time.sleep(0.05)
            return t.batch_of(step, part, n_parts)
        t.fit(sys.argv[1], batch_of=slow, save_every=3)
    """)
    folder = tmp_path / "run"
    here = __file__.rsplit("/", 1)[0]
    process = subprocess.Popen([sys.executable, "-c", program, str(folder), here])
    while not training.checkpoints(folder):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert max(training.checkpoints(folder)) < 12
    with (folder / "history.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')  # what a kill in the middle of a line leaves
    run, resumed = fit(folder, save_every=3)
    assert same(fit(tmp_path / "whole")[1], resumed)
    assert run.history["step"].tolist() == list(range(13))


def test_seeds(tmp_path):
    first = fit(tmp_path / "a", seed=1)[1]
    assert same(first, fit(tmp_path / "b", seed=1)[1])
    assert not same(first, fit(tmp_path / "c", seed=2)[1])
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fit(tmp_path / "d", seed=1)
    # Regression() reseeds on its own; the loop itself leaves the caller's generator alone.
    torch.manual_seed(5)
    assert torch.equal(before, torch.get_rng_state())


def test_parts_add_up_to_the_whole_batch(tmp_path):
    whole = fit(tmp_path / "whole", dropout=0.0)[0].history
    parts = fit(tmp_path / "parts", dropout=0.0, accumulate=3)[0].history
    np.testing.assert_allclose(parts["loss"], whole["loss"], rtol=1e-5)
    np.testing.assert_allclose(parts["gradient_norm"], whole["gradient_norm"], rtol=1e-4)


def test_two_processes_do_what_one_does(tmp_path):
    """DistributedDataParallel over gloo against one process with all of the batch."""
    program = tmp_path / "program.py"
    here = __file__.rsplit("/", 1)[0]
    program.write_text(
        f"import sys; sys.path.insert(0, {here!r})\n"
        "import test_training as t\n"
        "t.fit(sys.argv[1], dropout=0.0, evaluate=lambda step: {'loss': 1.0}, evaluate_every=4)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", str(program), str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    one = fit(tmp_path / "one", dropout=0.0)[0].history
    lines = (tmp_path / "two" / "history.jsonl").read_text().splitlines()
    two = [json.loads(line) for line in lines]
    assert [row["step"] for row in two] == list(range(13))
    np.testing.assert_allclose([row["loss"] for row in two[1:]], one["loss"][1:], rtol=1e-5)
    assert sum("validation_loss" in row for row in two) == 4


def test_early_stopping_survives_a_kill(tmp_path):
    def evaluate(step):
        return {"loss": abs(step - 4)}

    def stop(history):
        losses = history["validation_loss"].dropna()
        return len(losses) - 1 - int(losses.argmin()) >= 2

    options = {"evaluate": evaluate, "evaluate_every": 2, "stop": stop, "n_steps": 40}
    run, weights = fit(tmp_path / "whole", **options)
    assert run.history["step"].max() == 8 and list(run.checkpoints) == [8]
    fit(tmp_path / "parts", **options | {"n_steps": 6}, checkpoint_steps=[3])
    again, resumed = fit(tmp_path / "parts", **options)
    assert same(weights, resumed) and again.history["step"].max() == 8
    finished = fit(tmp_path / "parts", **options)[0]
    assert len(finished.history) == len(again.history)


def test_a_plateau_lowers_the_rate(tmp_path):
    objective = Regression()
    optimiser = torch.optim.SGD(objective.parameters(), 0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, patience=0)
    run = training.fit(
        objective, batch_of, optimiser, tmp_path, n_steps=6, schedule=plateau,
        evaluate=lambda step: {"loss": 1.0}, evaluate_every=2, device="cpu", progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(
        run.history["learning_rate"].dropna(), [0.1, 0.1, 0.1, 0.1, 0.01, 0.01]
    )


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_stops_when_not_finite(tmp_path, where):
    class Failing(Regression):
        def forward(self, inputs, targets):
            loss_sum, weight, metrics = super().forward(inputs, targets)
            if inputs[0, 0] == 0:
                broken = loss_sum * float("nan")
                hidden = self.network[0].weight.sum()
                # The second has a finite value, and a slope without end.
                loss_sum = broken if where == "loss" else loss_sum + (hidden - hidden).sqrt()
            return loss_sum, weight, metrics

    def broken(step, part, n_parts):
        inputs, targets = batch_of(step, part, n_parts)
        return (inputs * (step != 7), targets)

    with pytest.raises(TrainingError, match=r"at step 8; nothing.*step-00000006.safetensors"):
        fit(tmp_path, objective=Failing(), batch_of=broken, save_every=3)
    assert max(training.checkpoints(tmp_path)) == 6
    assert all(torch.isfinite(t).all() for t in fit(tmp_path, n_steps=6)[1].values())


def test_refuses_a_folder_of_another_run(tmp_path):
    fit(tmp_path, n_steps=1, about={"size": "tiny"})
    with pytest.raises(ParameterError, match=r"other settings \(size: tiny there, large here\)"):
        fit(tmp_path, n_steps=2, about={"size": "large"})
    with pytest.raises(ParameterError, match="seed: 0 there, 4 here"):
        fit(tmp_path, n_steps=2, about={"size": "tiny"}, seed=4)


def test_names_a_broken_checkpoint(tmp_path):
    run, _ = fit(tmp_path, n_steps=2)
    run.checkpoints[2].write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=r"step-00000002.safetensors cannot be read"):
        fit(tmp_path, n_steps=4)


def test_bfloat16_is_near_float32(tmp_path):
    exact = fit(tmp_path / "a", dropout=0.0)[0].history
    mixed = fit(tmp_path / "b", dropout=0.0, precision="bfloat16")[0].history
    np.testing.assert_allclose(mixed["loss"].dropna(), exact["loss"].dropna(), rtol=0.05)
    with pytest.raises(ParameterError, match="float32, bfloat16"):
        fit(tmp_path / "c", precision="half")


def test_clips_the_gradient(tmp_path):
    objective = Regression()
    optimiser = torch.optim.SGD(objective.parameters(), 1.0)
    before = {name: t.clone() for name, t in objective.state_dict().items()}
    run = training.fit(
        objective, batch_of, optimiser, tmp_path, n_steps=1, clip_norm=0.01, device="cpu",
        progress=False,
    )  # fmt: skip
    moved = sum((objective.state_dict()[n] - t).square().sum() for n, t in before.items()) ** 0.5
    assert float(moved) == pytest.approx(0.01, rel=1e-3)
    assert run.history["gradient_norm"].iloc[-1] > 0.01


def test_log_spaced_steps():
    steps = training.log_spaced_steps(1000, 7)
    assert steps == [0, 1, 3, 10, 32, 100, 316, 1000]
    with pytest.raises(ParameterError, match="need 1 <= first <= last"):
        training.log_spaced_steps(10, 3, first=11)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_follows_the_cpu(tmp_path):
    on_cpu = fit(tmp_path / "cpu", dropout=0.0)[0].history
    objective = Regression(0.0)
    optimiser = torch.optim.AdamW(objective.parameters(), 0.01)
    run = training.fit(
        objective, batch_of, optimiser, tmp_path / "cuda", n_steps=12, device="cuda",
        schedule=torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 12), progress=False,
    )  # fmt: skip
    np.testing.assert_allclose(run.history["loss"].dropna(), on_cpu["loss"].dropna(), rtol=1e-4)
