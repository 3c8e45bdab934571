"""What holds for every test: one thread, a fixed random state, no network."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests first, the whole chain at their head: workers that begin with the long ones end alike."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("full_size")}
    chain = Path(__file__).with_name("test_flow.py")
    items.sort(key=lambda item: (item.path != chain, item.path not in slow))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of one file share its costly fixtures in one worker, and all of quantization goes to one: AIMET takes ten
    seconds to import."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFixtures(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = "tests/quantization/"
            return folder if nodeid.startswith(folder) else super()._split_scope(nodeid)

    return ByFixtures(config, log)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Test processes run side by side (pytest -n); more threads each would only make them wait for one another."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """A test that draws without a generator of its own is still the same every time."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connecting anywhere but to this machine fails at once, with the address."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        local = self.family == socket.AF_UNIX or (isinstance(address, tuple) and address[0] in ("127.0.0.1", "::1"))
        if not local:
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
