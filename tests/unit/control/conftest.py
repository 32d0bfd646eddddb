import pytest
from controller_bench import Bench
from planner_world import Behaviour, World, memory_state

from corten.control.vault import Vault


@pytest.fixture
def make_world():
    return World


@pytest.fixture
def make_behaviour():
    return Behaviour


@pytest.fixture
def make_state():
    return memory_state


@pytest.fixture
def bench(make_state, tmp_path):
    return Bench(make_state(), Vault(tmp_path / "secrets"))
