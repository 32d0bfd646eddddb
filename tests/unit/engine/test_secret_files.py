"""Secrets in this machine's memory."""

import pytest

from corten.core.home import Home
from corten.engine.secret_files import SecretFiles
from corten.errors import EngineError


def test_what_is_no_file_system_of_its_own_is_not_taken_for_memory(tmp_path):
    with pytest.raises(EngineError) as caught:
        SecretFiles(Home(tmp_path), tmp_path).make("a-r1-x", {"KEY": b"value"}, nobodys=False)
    assert caught.value.code == "engine.no_memory_folder"
    assert [*tmp_path.iterdir()] == []


def test_without_secrets_none_is_asked_for(tmp_path):
    SecretFiles(Home(tmp_path), tmp_path).make("a-r1-x", {}, nobodys=False)
    assert [*tmp_path.iterdir()] == []
