"""A weight file beyond 8 GiB: more than ustar can say, more than memory, and on the disk once."""

from __future__ import annotations

import resource
import shutil
import tarfile
import time

import pytest

from corten.builder.entry import Entry
from corten.builder.layer import LayerCache, cache_key, write_layer
from corten.core.image import Compression, LayerKind
from corten.store.layout import Layout
from corten.store.untar import opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SIZE_BYTES = (8 << 30) + 5
MB = 1 << 20


@pytest.fixture
def source(tmp_path):
    """Zeros that take no place, with something at the end to tell them by."""
    if shutil.disk_usage(tmp_path).free < 10 << 30:
        pytest.skip("less than 10 GiB free")
    path = tmp_path / "weights.bin"
    with path.open("wb") as stream:
        stream.seek(SIZE_BYTES - 5)
        stream.write(b"ends.")
    assert path.stat().st_blocks * 512 < MB
    yield path
    path.unlink()


def on_disk(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def test_it_becomes_one_plain_blob_with_a_pax_header_in_bounded_memory_and_time(tmp_path, source):
    layout = Layout(tmp_path / "store")
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began_s = time.process_time()
    entry = Entry("models/weights.bin", data=source)
    layer = write_layer([entry], layout, kind=LayerKind.WEIGHTS, title="weights", compression=Compression.NONE)
    spent_s = time.process_time() - began_s
    try:
        assert layer.digest == layer.diff_id
        assert SIZE_BYTES < layer.size_bytes < SIZE_BYTES + 8192
        # The processor's own time, which a busy machine does not stretch much: hashing and copying 8 GiB.
        assert spent_s < 120
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 100 << 10
        assert on_disk(layout.root) < SIZE_BYTES + 64 * MB
        path = layout.path(layer.digest)
        with tarfile.open(path) as archive:
            names = [archive.next(), archive.next()]
            assert [(one.name, one.size) for one in names] == [("models", 0), ("models/weights.bin", SIZE_BYTES)]
            assert archive.next() is None
        with opened(path, layer) as tar:
            members = tar.members()
            assert [next(members).size_bytes, next(members).size_bytes] == [0, SIZE_BYTES]
        # The next build neither reads nor writes it.
        cache = LayerCache(tmp_path / "layers", layout)
        cache.put(cache_key("weights"), layer)
        assert cache.get(cache_key("weights")) == layer
    finally:
        shutil.rmtree(layout.root)
