import pytest
from planner_world import Behaviour, World, memory_state


@pytest.fixture
def make_world():
    return World


@pytest.fixture
def make_behaviour():
    return Behaviour


@pytest.fixture
def make_state():
    return memory_state
