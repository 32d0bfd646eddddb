"""Questions and answers of OpenAI's completions, without a server."""

from __future__ import annotations

import json

import pytest

from corten.adapters.py_call import PyModel
from corten.serve.calls import CallsRunner
from corten.serve.job import ModelOutputError, RequestError
from corten.serve.openai_chat import Chunks, Kind, inputs, parse


class Chats:
    def chat(self, messages: list, max_tokens: int = 5, temperature: float = 1.0):
        yield from (message["content"] for message in messages)
        yield {"finish_reason": "length", "usage": {"prompt_tokens": 1, "completion_tokens": max_tokens}}

    def complete(self, prompt: str, **more):
        return f"{prompt} {sorted(more.items())}"


class Nothing:
    def predict(self, x: int) -> int:
        return x


HI = [{"role": "user", "content": "hi"}]


def question(**keys):
    return parse(json.dumps({"model": "m", **keys}).encode())


def ask(model=Chats, *, chats=True, **keys):
    runner = CallsRunner(PyModel(model()))
    asked = inputs(runner, question(**keys), Kind(chats=chats), None)
    (result,) = runner.run([asked]).results
    if isinstance(result, BaseException):
        raise result
    return json.loads(result.body)


def test_what_a_model_yields_is_one_message():
    answer = ask(messages=HI)
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hi"}
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"] == {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6}


def test_a_list_of_texts_is_their_text():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert ask(messages=[{"role": "user", "content": parts}])["choices"][0]["message"]["content"] == "ab"


def test_the_newer_name_of_an_option_is_understood():
    assert ask(messages=HI, max_completion_tokens=9)["usage"]["completion_tokens"] == 9


@pytest.mark.parametrize(
    ("keys", "status", "code", "path"),
    [
        ({}, 422, "request.invalid", "messages"),
        ({"messages": [{"content": "no role"}]}, 422, "request.invalid", "messages[0]"),
        ({"messages": HI, "n": 2}, 400, "unsupported_parameter", "n"),
        ({"messages": HI, "response_format": {"type": "json_object"}}, 400, "unsupported_parameter", "response_format"),
        ({"messages": HI, "tempratur": 1}, 400, "unknown_parameter", "tempratur"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(keys, status, code, path):
    with pytest.raises(RequestError) as refused:
        ask(**keys)
    assert (refused.value.status, refused.value.code, refused.value.path) == (status, code, path)


def test_wishes_and_what_changes_nothing_are_passed_over():
    assert ask(messages=HI, seed=3, user="me", n=1, response_format={"type": "text"}, tools=[], top_p=None)


def test_a_method_that_takes_anything_gets_all_options():
    answer = ask(chats=False, prompt=["x"], seed=3, odd=True)
    assert answer["choices"][0]["text"] == "x [('odd', True), ('seed', 3)]"
    assert (answer["object"], answer["usage"]) == ("text_completion", None)


def test_a_model_without_chat_says_what_is_missing():
    with pytest.raises(RequestError, match="its class has no `chat`") as refused:
        ask(Nothing, messages=HI)
    assert refused.value.status == 404


def test_pieces_are_events_with_the_role_first_and_the_reason_last():
    chunks = Chunks(question(messages=HI, stream_options={"include_usage": True}), Kind(chats=True))
    text = chunks.piece("a") + chunks.piece({"content": "b", "finish_reason": "length"})
    text += chunks.piece({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}) + chunks.last()
    *events, done, nothing = text.decode().split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    seen = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [one["choices"][0]["delta"] for one in seen[:-1]] == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
        {},
    ]
    assert seen[-2]["choices"][0]["finish_reason"] == "length"
    assert (seen[-1]["choices"], seen[-1]["usage"]["total_tokens"]) == ([], 3)


@pytest.mark.parametrize("piece", [3, ["a"], {"content": 3}, {"usage": 3}])
def test_what_is_no_piece_of_a_message_is_the_models_fault(piece):
    with pytest.raises(ModelOutputError):
        Chunks(question(messages=HI), Kind(chats=True)).piece(piece)
