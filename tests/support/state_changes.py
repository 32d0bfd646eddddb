"""The changes most tests of the state begin with."""

from corten.core.deployment import Settings
from corten.core.digest import Digest

IMAGE, OTHER = Digest.of(b"one"), Digest.of(b"other")


def deploy(state, image=IMAGE, generation=None, now_s=1.0, **settings):
    return state.deploy("m", image, Settings(**settings), generation=generation, now_s=now_s)


def serving(state, image, now_s=1.0, **settings):
    accepted = deploy(state, image, now_s=now_s, **settings)
    state.finish_rollout("m", now_s=now_s + 1)
    return accepted
