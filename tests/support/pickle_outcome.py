"""How a read of a pickle ends, for tests that damage them."""

from corten.adapters.pickles import read_pickle
from corten.adapters.standins import everything
from corten.errors import UsageError

OUTCOMES = {"read", "adapter.corrupt_model", "adapter.compression"}


def outcome(path):
    """The code of the error a file gives, or `read`. All of what was read is visited."""
    try:
        contents = read_pickle(path, max_opcodes=100_000)
    except UsageError as error:
        return error.code
    return "read" if sum(1 for _ in everything(contents.root)) else "nothing"
