from __future__ import annotations

import dataclasses
import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.adapters.base import InputError
from corten.errors import UsageError
from corten.serve.calls import CallsRunner
from corten.serve.job import ModelOutputError, Reply, RequestError
from corten.serve.threaded import ThreadedRunner
from corten.serve.values import to_json, to_json_lines


@dataclasses.dataclass
class Label:
    name: str
    score: float


class Reading:
    def model_dump(self, mode):
        return {"mode": mode}


def test_arguments_go_in_by_name_and_any_value_comes_out(calls_model):
    runner = CallsRunner(calls_model(lambda text: [Label(text, 0.5)], text="string"))
    outcome = runner.run([runner.decode(b'{"text":"a"}'), runner.decode(b'{"text":"b"}')])
    assert [json.loads(result) for result in outcome.results] == [
        {"outputs": [{"name": "a", "score": 0.5}]},
        {"outputs": [{"name": "b", "score": 0.5}]},
    ]


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [(b"", 422, "text"), (b"{}", 422, "text"), (b'{"text":1,"tex":2}', 422, "tex"), (b"[]", 422, ""), (b"{", 400, "")],
)
def test_missing_and_unknown_parameters_are_named(calls_model, body, status, path):
    runner = CallsRunner(calls_model(lambda text: text, text="string"))
    with pytest.raises(RequestError) as caught:
        runner.decode(body)
    assert (caught.value.status, caught.value.path) == (status, path)


def test_a_model_without_parameters_takes_an_empty_body(calls_model):
    runner = CallsRunner(calls_model(lambda: 7))
    assert runner.run([runner.decode(b"")]).results == [b'{"outputs":7}']


def test_one_call_that_raises_fails_alone(calls_model):
    runner = CallsRunner(calls_model(lambda x: 1 / x, x="number"))
    results = runner.run([runner.decode(b'{"x":%d}' % x) for x in (1, 0, 2)]).results
    assert [type(result) for result in results] == [bytes, ZeroDivisionError, bytes]


def test_a_batch_that_raises_as_a_whole_is_done_again_one_by_one(calls_model):
    model = calls_model(lambda x: x, x="number")
    inner = model.call
    model.call = lambda calls: inner(calls) if len(calls) == 1 else 1 / 0
    runner = CallsRunner(model)
    assert runner.run([runner.decode(b'{"x":1}'), runner.decode(b'{"x":2}')]).results == [
        b'{"outputs":1}',
        b'{"outputs":2}',
    ]


def test_calls_that_each_raise_are_not_done_twice(calls_model):
    model = calls_model(lambda x: 1 / 0, x="number")
    runner = CallsRunner(model)
    runner.run([runner.decode(b'{"x":1}'), runner.decode(b'{"x":2}')])
    assert model.calls == [2]


def test_a_model_that_answers_one_after_the_other_gets_one_call_at_a_time(calls_model):
    model = calls_model(lambda: 1)
    assert CallsRunner(model).joinable
    model.joinable = False
    assert not CallsRunner(model).joinable


def test_streams_are_for_models_that_answer_one_after_the_other(calls_model):
    model = calls_model(lambda: 1)
    with pytest.raises(UsageError) as refused:
        ThreadedRunner(model, 4)
    assert refused.value.code == "adapter.contract"
    assert "joined" in refused.value.why
    model.joinable = False
    runner = ThreadedRunner(model, 4)
    assert runner.loop is None, "so that workers can be forked"
    runner.start()
    assert runner.loop.run_until_complete(runner.answer(runner.decode(b""))) == b'{"outputs":1}'
    runner.loop.close()


def test_even_an_exit_in_the_model_is_only_its_answer(calls_model):
    model = calls_model(lambda: None)

    def leave(calls):
        raise SystemExit(3)

    model.call = leave
    assert isinstance(CallsRunner(model).run([CallsRunner(model).decode(b"")]).results[0], SystemExit)


def test_too_few_results_are_the_models_fault(calls_model):
    model = calls_model(lambda: 1)
    model.call = lambda calls: []
    runner = CallsRunner(model)
    assert isinstance(runner.run([runner.decode(b"")]).results[0], ModelOutputError)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("nan"), b"null"),
        ([float("inf"), -float("inf")], b"[null,null]"),
        ([np.float64("nan")], b"[null]"),
        (np.float32(0.5), b"0.5"),
        (np.int8(3), b"3"),
        (np.bool_(1), b"true"),
        (np.str_("x"), b'"x"'),
        (np.array([[1, 2]]), b"[[1,2]]"),
        ({"a": np.arange(2)}, b'{"a":[0,1]}'),
        ({np.int64(1): np.float32(2)}, b'{"1":2.0}'),
        ({np.bool_(1): 1, 2.5: 3}, b'{"true":1,"2.5":3}'),
        (Reading(), b'{"mode":"json"}'),
        ({"b": {1, 2}}, b'{"b":[1,2]}'),
        (np.array([b"x"]), b'["x"]'),
        (None, b"null"),
    ],
)
def test_results_are_written_as_strict_json(value, text):
    assert to_json(value) == text


@given(values=st.lists(st.text(max_size=3) | st.lists(st.floats() | st.none(), max_size=3), max_size=4))
def test_many_values_in_one_go_are_what_they_are_one_by_one(values):
    assert list(to_json_lines(values)) == [to_json(value) for value in values]


def test_json_that_a_model_brings_ready_made_may_have_lines():
    values = [msgspec.Raw(b"[1,\n2]"), {1.5: "a key that needs a hand"}, "c"]
    assert list(to_json_lines(values)) == [to_json(value) for value in values]
    assert list(to_json_lines(values[:1])) == [b"[1,\n2]"]


@pytest.mark.parametrize("value", [object(), 1j, {(1, 2): 3}, lambda: 1])
def test_what_has_no_form_in_json_is_refused(value):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        to_json(value)


def test_a_result_that_contains_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises((ValueError, RecursionError)):
        to_json(loop)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_plain_value_is_strict_json(value):
    def refuse(text):
        raise AssertionError(text)

    try:
        text = to_json(value)
    except UnicodeEncodeError:
        return  # a lone surrogate, which UTF-8 has no form for
    assert json.loads(text, parse_constant=refuse) == without_infinities(value)


def without_infinities(value):
    """What JSON has a form for; null stands for the others."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case list():
            return [without_infinities(each) for each in value]
        case dict():
            return {key: without_infinities(each) for key, each in value.items()}
    return value


def joined(values):
    return Reply(json.dumps(values).encode(), "application/json")


def test_several_calls_of_one_request_are_answered_together(calls_model):
    model = calls_model(lambda x: x * 2, x="number")
    runner = CallsRunner(model)
    alone = runner.decode(b'{"x": 5}')
    results = runner.run([alone, runner.many([{"x": 1}, {"x": 2}], joined, "rows")]).results
    assert results == [b'{"outputs":10}', Reply(b"[2, 4]", "application/json")]
    assert model.calls == [3]


def test_one_of_several_calls_that_does_not_fit_is_named(calls_model):
    def picky(x):
        if x == 2:
            raise InputError("not two", path="x")
        return x

    runner = CallsRunner(calls_model(picky, x="number"))
    (result,) = runner.run([runner.many([{"x": 1}, {"x": 2}], joined, "rows")]).results
    assert (result.message, result.path) == ("not two", "rows[1].x")
    for calls, path in (([{"x": 1}, {}], "rows[1].x"), ([{"z": 1, "x": 1}], "rows[0].z"), ([], "rows")):
        with pytest.raises(RequestError) as caught:
            runner.many(calls, joined, "rows")
        assert caught.value.path == path


def test_texts_to_embed_are_joined_with_each_other_only(calls_model):
    model = calls_model(lambda x: x, x="number")
    runner = CallsRunner(model)
    texts = runner.embed(["a", "bc"], joined)
    assert texts.shape_key != runner.decode(b'{"x": 5}').shape_key
    results = runner.run([texts, runner.embed(["def"], joined)]).results
    assert [json.loads(result.body) for result in results] == [[[1, 0.5], [2, 0.5]], [[3, 0.5]]]
    assert model.calls == [3]
