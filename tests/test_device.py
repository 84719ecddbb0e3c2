import psutil
import pytest
import torch

from analysis_lib.device import available_memory, require_memory, resolve_device
from analysis_lib.errors import MemoryBudgetError, ParameterError

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    """A machine with the given accelerators."""

    def pretend(cuda=0, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    "cuda, mps, float64, expected",
    [
        (0, False, False, "cpu"),
        (2, False, False, "cuda"),
        (1, True, False, "cuda"),
        (0, True, False, "mps"),
        (0, True, True, "cpu"),
    ],
)
def test_auto_takes_the_best_that_is_there(machine, cuda, mps, float64, expected):
    machine(cuda, mps)
    assert resolve_device("auto", float64).type == expected


def test_devices_asked_for_by_name(machine):
    machine(cuda=2, mps=True)
    assert resolve_device("cpu") == CPU
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device(torch.device("cuda")) == torch.device("cuda")
    assert resolve_device("mps") == torch.device("mps")


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_that_is_not_there(machine, device):
    machine()
    message = rf"device '{device}' was asked for, but this machine shows 0 CUDA device\(s\)"
    with pytest.raises(ParameterError, match=message):
        resolve_device(device)


def test_a_cuda_number_too_high(machine):
    machine(cuda=2)
    with pytest.raises(ParameterError, match=r"'cuda:2'.*shows 2 CUDA"):
        resolve_device("cuda:2")


def test_mps_that_is_not_there(machine):
    machine()
    with pytest.raises(ParameterError, match="'mps' was asked for, but it is not available"):
        resolve_device("mps")


def test_float64_on_mps_goes_to_the_cpu_with_a_warning(machine):
    machine(mps=True)
    with pytest.warns(UserWarning, match="MPS has no float64"):
        assert resolve_device("mps", float64=True) == CPU


@pytest.mark.parametrize("device", ["gpu", "", 3.5, None])
def test_what_is_no_device(machine, device):
    machine()
    with pytest.raises(ParameterError, match="use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'"):
        resolve_device(device)


def test_memory_of_the_cpu_is_what_the_system_has_left():
    assert 0 < available_memory(CPU) <= psutil.virtual_memory().total


def test_memory_budget():
    free = available_memory(CPU)
    require_memory(0.5 * free, CPU, "a small thing", "never said")
    with pytest.raises(
        MemoryBudgetError, match=r"a thing needs about .* GB on cpu, and .* Buy more"
    ):
        require_memory(2 * free, CPU, "a thing", "Buy more.")
