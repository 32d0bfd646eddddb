"""A deployment whose replicas follow its requests."""

import pytest
from stories import Load, until

pytestmark = [pytest.mark.load, pytest.mark.envoy, pytest.mark.network]

# It waits, as a model does that asks a database: another replica helps, however busy the test's machine is.
MODEL = """
import time

class Slow:
    def predict(self, x: float) -> float:
        time.sleep(0.05)
        return x * 2
"""
SETTINGS = """
name = "waits"
source = "slow.py:Slow"
replicas = "1..3"
concurrency = 1
"""


def test_replicas_follow_the_requests_and_none_fails(corten, port, tmp_path):
    (tmp_path / "slow.py").write_text(MODEL)
    (tmp_path / "corten.toml").write_text(SETTINGS)
    url = corten.up(tmp_path, "--port", port)["url"]
    assert corten.deployment("waits")["wanted"] == 1
    with Load(url, {"x": 1.0}, rate_per_s=35) as load:
        until(lambda: corten.deployment("waits")["ready"] == 3, "three replicas are ready")
    assert load.report["failed"] == 0, load.report
    decisions = corten.run("why", "waits", "--json").json["decisions"]
    # A busy machine may first have kept it from growing, which is told as well.
    ups = [one["data"] for one in decisions if one["step"] == "scale" and "was" in one["data"]]
    assert ups[0]["was"] == 1
    assert ups[0]["load"] > 0.7
    # The same again is no change, and takes nothing away.
    again = corten.up(tmp_path)
    assert not again["changed"]
    assert corten.deployment("waits")["wanted"] == 3
