"""What the connection makes of answers; the cluster itself is in tests/integration/cluster."""

from dataclasses import dataclass, field

import pytest

from corten.cluster.kinds import DEPLOYMENT
from corten.cluster.lightkube_api import LightkubeApi
from corten.cluster.port import ExpiredError


@dataclass
class Gone:
    """Answers 410 to everything."""

    status_code: int = 410
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b'{"error": "the job is gone"}'

    def request(self, method, path, **_):
        del method, path
        return self


def test_a_410_of_the_model_is_passed_on_and_one_of_the_server_is_its_own():
    api = LightkubeApi(Gone(), "https://127.0.0.1:1", "team", sleep=lambda _: None)
    assert api.ask("GET", "/api/v1/namespaces/team/services/iris/proxy/jobs/1").status == 410
    with pytest.raises(ExpiredError):
        api.get(DEPLOYMENT, "iris", "team")
