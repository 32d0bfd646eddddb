"""Files, images and tables as they are, in and out, on the real server."""

from __future__ import annotations

import io
import json
import threading
import time

import pytest
from served import Served

pytestmark = pytest.mark.frameworks

MODELS = """
import pandas as pd
from PIL import Image


class Thumb:
    def predict(self, image: Image.Image, size: int = 8, more: list[bytes] | None = None) -> Image.Image:
        return image.convert("RGB").resize((size, size + len(more or [])))


class Table:
    def predict(self, rows: pd.DataFrame, factor: float = 2.0) -> pd.DataFrame:
        return rows.assign(y=rows["x"] * factor)


class Raw:
    def predict(self, data: bytes, times: int = 1) -> bytes:
        return data * times


class Says:
    def predict(self, text: str) -> str:
        return text
"""
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=b0"}
ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def serving():
    made = {}

    def start(name):
        if name not in made:
            spec = {"adapter": "pyclass", "entry": f"models:{name}"}
            made[name] = Served(spec, files={"models.py": MODELS})
        return made[name].until()

    yield start
    for server in made.values():
        server.__exit__()


def form(**fields):
    out = b""
    for name, contents in fields.items():
        for content in contents if isinstance(contents, list) else [contents]:
            is_file = isinstance(content, bytes)
            more = '; filename="f"\r\nContent-Type: application/octet-stream' if is_file else ""
            out += f'--b0\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
            out += (content if is_file else content.encode()) + b"\r\n"
    return out + b"--b0--\r\n"


def png():
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (20, 10), (255, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def size_of(content):
    from PIL import Image

    return Image.open(io.BytesIO(content)).size


def arrow(names=(), **columns):
    import pyarrow as pa

    table, sink = pa.table(columns), pa.BufferOutputStream()
    if names:
        table = table.rename_columns(list(names))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def nulls(rows):
    import pyarrow as pa

    return arrow(a=pa.nulls(rows), b=pa.nulls(rows))


def columns_of(content):
    import pyarrow as pa

    return pa.ipc.open_stream(content).read_all().to_pydict()


def test_an_image_comes_in_a_form_or_bare_and_goes_as_one(serving):
    server = serving("Thumb")
    body = form(image=png(), size="4", more=[b"a", b"b"])
    status, headers, answer = server.ask("POST", "/predict", body, {**BOUNDARY, "Accept": "image/png"})
    assert (status, headers["content-type"], size_of(answer)) == (200, "image/png", (4, 6))
    kinds = {"Content-Type": "image/png", "Accept": "image/*;q=0.9, */*"}
    assert size_of(server.ask("POST", "/predict?size=3", png(), kinds)[2]) == (3, 3)


@pytest.mark.parametrize(
    ("path", "body", "headers", "told"),
    [
        ("", b"no image", {"Content-Type": "image/png"}, (422, "image")),
        ("?size=x", png, {"Content-Type": "image/png"}, (422, "size")),
        ("?siz=1", png, {"Content-Type": "image/png"}, (422, "siz")),
        ("", form(size="4"), BOUNDARY, (422, "image")),
        ("", form(imag=b"x"), BOUNDARY, (422, "image")),
        ("", form(image=[b"x", b"y"]), BOUNDARY, (422, "image")),
        ("", b"--b0", BOUNDARY, (400, "")),
    ],
    ids=[
        "no image",
        "a wrong number",
        "a wrong name",
        "a missing part",
        "a part of another name",
        "a part twice",
        "cut off",
    ],
)
def test_what_does_not_fit_is_said_with_its_place(path, body, headers, told, serving):
    seen, _, answer = serving("Thumb").ask("POST", f"/predict{path}", body() if callable(body) else body, headers)
    assert (seen, json.loads(answer)["error"]["path"]) == told


def test_tables_come_and_go_as_rows_csv_and_arrow(serving):
    server = serving("Table")
    rows = json.dumps({"rows": [{"x": 1}, {"x": 2}], "factor": 3})
    assert json.loads(server.ask("POST", "/predict", rows)[2])["outputs"] == [{"x": 1, "y": 3}, {"x": 2, "y": 6}]
    csv = {"Content-Type": "text/csv", "Accept": "text/csv"}
    assert server.ask("POST", "/predict?factor=3", b"x\n1\n2\n", csv)[2] == b"x,y\r\n1,3.0\r\n2,6.0\r\n"
    kinds = {"Content-Type": ARROW, "Accept": ARROW}
    assert columns_of(server.ask("POST", "/predict", arrow(x=[1, 2]), kinds)[2]) == {"x": [1, 2], "y": [2.0, 4.0]}
    assert server.ask("POST", "/predict", b'"x\n1', csv)[0] == 422


def test_bytes_come_and_go_as_they_are(serving):
    server = serving("Raw")
    kinds = {"Content-Type": "application/pdf", "Accept": "application/octet-stream"}
    status, headers, answer = server.ask("POST", "/predict?times=2", b"\x00\xff", kinds)
    assert (status, headers["content-type"], answer) == (200, "application/octet-stream", b"\x00\xff\x00\xff")
    assert json.loads(server.ask("POST", "/predict", b'{"data": "AAE="}')[2]) == {"outputs": "AAE="}


def test_a_text_goes_bare_where_it_is_asked_for(serving):
    server = serving("Says")
    status, headers, answer = server.ask("POST", "/predict", '{"text": "né"}'.encode(), {"Accept": "text/plain"})
    assert (status, headers["content-type"], answer.decode()) == (200, "text/plain; charset=utf-8", "né")
    assert server.ask("POST", "/predict", b"%PDF", {"Content-Type": "application/pdf"})[0] == 415


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {"Content-Type": ARROW}),
        (b'{"inputs":[[1,2]]}', {"Accept": ARROW}),
        (form(table=b"").replace(b'"f"', b'"T.Arrow"'), BOUNDARY),
    ],
    ids=["taken", "given", "in-a-form"],
)
def test_others_are_answered_while_the_library_of_arrow_is_imported(body, headers, tmp_path):
    (tmp_path / "pyarrow.py").write_text("import time\ntime.sleep(1.5)\nraise ImportError\n")
    with Served({"entry": "columns:a,b"}, modules=tmp_path) as server:
        server.until()
        asked = threading.Thread(target=server.ask, args=("POST", "/predict", body, headers))
        asked.start()
        time.sleep(0.3)
        assert server.ask("GET", "/livez")[0] == 200
        assert asked.is_alive(), "it was answered before the import was done"
        asked.join()


def test_models_of_rows_take_columns_of_arrow_and_a_file_in_a_form():
    with Served({"entry": "columns:a,b"}) as server:
        server.until()
        body = arrow(b=[1.0, 2.0], a=[3, 4])
        # The library is imported with the first one, and compiled: the tests write no bytecode.
        first = server.ask("POST", "/predict", body, {"Content-Type": ARROW}, timeout_s=60)[2]
        assert json.loads(first) == {"outputs": [[3, 1], [4, 2]]}
        answer = server.ask("POST", "/predict", body, {"Content-Type": ARROW, "Accept": ARROW})[2]
        assert columns_of(answer) == {"y_0": [3.0, 4.0], "y_1": [1.0, 2.0]}
        csv = form(table=b"b,a\n1,2\n").replace(b'"f"', b'"t.csv"')
        assert json.loads(server.ask("POST", "/predict", csv, BOUNDARY)[2]) == {"outputs": [[2, 1]]}
        for wrong, status in ((b"junk", 400), (body[:40], 400), (arrow(a=[1]), 422), (arrow(a=["x"], b=["y"]), 422)):
            assert server.ask("POST", "/predict", wrong, {"Content-Type": ARROW})[0] == status
        for wrong in (arrow(a=[1], b=[None]), arrow(a=[[1]], b=[1]), arrow(a=[1], b=[b"y"])):
            assert server.ask("POST", "/predict", wrong, {"Content-Type": ARROW})[0] == 422
        status, _, answer = server.ask("POST", "/predict", arrow(a=[1], c=[2], names="aa"), {"Content-Type": ARROW})
        assert (status, json.loads(answer)["error"]["message"]) == (422, "the same column twice")
        # 300 bytes that say there are two billion rows.
        status, _, answer = server.ask("POST", "/predict", nulls((1 << 31) - 1), {"Content-Type": ARROW}, timeout_s=5)
        assert (status, b"take more than" in answer) == (400, True)


def test_a_class_is_given_no_table_that_is_larger_than_it_looks(serving):
    status, _, answer = serving("Table").ask("POST", "/predict", nulls((1 << 31) - 1), {"Content-Type": ARROW})
    assert (status, json.loads(answer)["error"]["path"]) == (422, "rows")
