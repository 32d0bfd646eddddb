"""Secrets go when the revisions that have them cannot be gone back to any more."""

from corten.control.state import State
from corten.control.vault import Vault
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.home import Home
from corten.ops.gc import gc


def test_a_secret_goes_with_the_last_revision_that_has_it(tmp_path):
    home = Home(tmp_path)
    home.state.mkdir()
    vault, state, before = Vault(home.secrets), State.open(home.state / "corten.db"), {}
    for number, value in enumerate((b"one", b"two", b"two"), start=1):
        before = vault.keep({"KEY": value}, before)
        settings = Settings(secret_ids=before, env={"NUMBER": str(number)})
        state.deploy("m", Digest("1" * 64), settings, generation=None, now_s=float(number))
        state.finish_rollout("m", now_s=float(number))

    def left():
        return sorted(path.read_bytes() for path in home.secrets.iterdir())

    gc(home=home, keep=1, dry_run=True, now_s=9.0)
    gc(home=home, keep=3, now_s=9.0)
    assert left() == [b"one", b"two"]
    gc(home=home, keep=2, now_s=9.0)
    assert left() == [b"two"]
    state.close()
