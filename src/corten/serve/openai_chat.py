"""OpenAI's chat and text completions, for models with a method `chat` or `complete`.

https://platform.openai.com/docs/api-reference/chat, .../completions (the older one, of plain texts)
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from corten.serve.calls import CallsRunner
from corten.serve.decoding import decode
from corten.serve.job import Inputs, ModelOutputError, Reply, RequestError, Runner, invalid
from corten.serve.sink import Sink
from corten.serve.values import to_json

# What clients send along and a model may do without: nothing but its choice of words depends on it.
_WISHES = frozenset({
    "best_of", "frequency_penalty", "logit_bias", "max_completion_tokens", "max_tokens", "metadata",
    "parallel_tool_calls", "presence_penalty", "prompt_cache_key", "reasoning_effort", "safety_identifier", "seed",
    "service_tier", "stop", "store", "temperature", "top_p", "user", "verbosity",
})  # fmt: skip
# What would make the answer another one, and the values that do not.
_NEUTRAL: Mapping[str, Sequence[Any]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "logprobs": (False, 0),
    "modalities": (["text"],),
    "echo": (False,),
    "suffix": ("",),
}
_SAME = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}
_OWN = frozenset({"model", "messages", "prompt", "stream", "stream_options"})


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class Question(msgspec.Struct):
    """What both kinds of completion are asked with; `options` is all the rest."""

    model: str
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[str] | None = None
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    options: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(Question)
_keys = msgspec.json.Decoder(dict[str, Any])


def parse(body: bytes | bytearray) -> Question:
    """Read a request; raises RequestError."""
    question = decode(_decoder, body)
    options = {name: value for name, value in decode(_keys, body).items() if name not in _OWN and value is not None}
    return msgspec.structs.replace(question, options=options)


class Kind:
    """Chat, or the older completion of a text."""

    def __init__(self, *, chats: bool) -> None:
        self.chats = chats
        self.verb = "chat" if chats else "complete"
        self.id = ("chatcmpl-" if chats else "cmpl-") + os.urandom(12).hex()
        self.created = int(time.time())

    def head(self, model: str, *, piece: bool) -> dict[str, Any]:
        """What every answer, and every piece of one, begins with."""
        object_ = ("chat.completion.chunk" if piece else "chat.completion") if self.chats else "text_completion"
        return {"id": self.id, "object": object_, "created": self.created, "model": model}

    def choice(self, said: Mapping[str, Any], finish_reason: str | None, *, piece: bool) -> dict[str, Any]:
        """The one choice, or a piece of it."""
        if not self.chats:
            found = {"text": said.get("content") or "", "index": 0}
        else:
            found = {"index": 0, ("delta" if piece else "message"): said}
        return {**found, "logprobs": None, "finish_reason": finish_reason}


def inputs(runner: Runner, question: Question, kind: Kind, sink: Sink | None) -> Inputs:
    """The call of the model; raises RequestError for what it does not do."""
    if not isinstance(runner, CallsRunner) or kind.verb not in runner.verbs:
        what = "chat" if kind.chats else "complete texts"
        raise RequestError(404, "request.no_route", f"this model does not {what}: its class has no `{kind.verb}`")
    arguments = {**_asked(question, kind), **_options(question.options, runner.verbs[kind.verb])}
    if sink is not None:
        return runner.speak(kind.verb, arguments, sink=sink)

    def form(value: Any) -> Reply:
        said = _Said()
        deltas = [said.add(piece) for piece in (value if isinstance(value, list) else [value])]
        message = {"role": "assistant", "content": "", **_joined(deltas)}
        choice = kind.choice(message, said.finish_reason, piece=False)
        answer = {**kind.head(question.model, piece=False), "choices": [choice], "usage": said.usage}
        return Reply(to_json(answer), "application/json")

    return runner.speak(kind.verb, arguments, form=form)


def _asked(question: Question, kind: Kind) -> dict[str, Any]:
    if kind.chats:
        if not question.messages:
            raise invalid("expected at least one message", "messages")
        return {"messages": [_message(message, f"messages[{i}]") for i, message in enumerate(question.messages)]}
    prompts = [question.prompt] if isinstance(question.prompt, str) else question.prompt or []
    if len(prompts) != 1:
        raise invalid(f"expected one text, got {len(prompts)}", "prompt")
    return {"prompt": prompts[0]}


def _message(message: dict[str, Any], path: str) -> dict[str, Any]:
    """A message whose content, where it is a list of texts, is their text."""
    if not isinstance(message.get("role"), str):
        raise invalid("expected a message with a `role`", path)
    content = message.get("content")
    if not isinstance(content, list):
        return message
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    if len(texts) != len(content) or not all(isinstance(text, str) for text in texts):
        return message  # for the model to judge: it may see images
    return {**message, "content": "".join(str(text) for text in texts)}


def _options(given: Mapping[str, Any], verb: Any) -> dict[str, Any]:
    """What of the options the method takes; what it may not overlook is refused."""
    taken: dict[str, Any] = {}
    for name, value in given.items():
        same = _SAME.get(name, "")
        if name in verb.fields:
            taken[name] = value
        elif same in verb.fields:
            taken.setdefault(same, value)
        elif name in _WISHES:
            if verb.is_open:
                taken[name] = value
        elif name in _NEUTRAL:
            if value not in _NEUTRAL[name]:
                raise RequestError(400, "unsupported_parameter", f"this model does not do `{name}`", path=name)
        elif verb.is_open:
            taken[name] = value
        else:
            known = ", ".join(field for field in verb.fields if field not in {"messages", "prompt"}) or "none"
            raise RequestError(400, "unknown_parameter", f"unknown option `{name[:100]}`; known: {known}", path=name)
    return taken


class _Said:
    """What a model said so far. Pieces are texts, or objects of `content` and what the API has beside it."""

    def __init__(self) -> None:
        self.finish_reason = "stop"
        self.usage: dict[str, int] | None = None

    def add(self, piece: Any) -> dict[str, Any]:
        """Take in a piece; returns what it adds to the message. Raises ModelOutputError."""
        said = {"content": piece} if isinstance(piece, str) else piece
        if not isinstance(said, Mapping) or not isinstance(said.get("content", ""), str | None):
            raise ModelOutputError(f"the model said something that is neither a text nor an object: {type(piece)}")
        delta = {key: value for key, value in said.items() if key not in {"finish_reason", "usage"}}
        if (reason := said.get("finish_reason")) is not None:
            self.finish_reason = str(reason)
        if (usage := said.get("usage")) is not None:
            self.usage = _usage(usage)
        return delta


def _joined(deltas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All of a message: texts and lists one after the other, of anything else the last."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for delta in deltas for key in delta):
        values = [delta[key] for delta in deltas if delta.get(key) is not None]
        if all(isinstance(value, str) for value in values):
            found[key] = "".join(values)
        elif all(isinstance(value, list) for value in values):
            found[key] = [item for value in values for item in value]
        else:
            found[key] = values[-1]
    return found


def _usage(given: Any) -> dict[str, int]:
    try:
        prompt, completion = int(given.get("prompt_tokens", 0)), int(given.get("completion_tokens", 0))
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelOutputError(f"`usage` has no `prompt_tokens`, `completion_tokens`: {error}") from error
    return {**given, "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class Chunks:
    """Pieces as OpenAI streams them: events without a name, `[DONE]` at the end."""

    content_type = "text/event-stream"
    ping = b": still working\n\n"

    def __init__(self, question: Question, kind: Kind) -> None:
        self._question = question
        self._kind = kind
        self._head = kind.head(question.model, piece=True)
        self._said = _Said()
        self._first = kind.chats
        self._counts = question.stream_options is not None and question.stream_options.include_usage

    def piece(self, value: Any) -> bytes:
        """See Framing."""
        delta = self._said.add(value)
        if self._first:
            self._first = False
            delta = {"role": "assistant", "content": "", **delta}
        return self._event([self._kind.choice(delta, None, piece=True)]) if delta else b""

    def last(self) -> bytes:
        """See Framing."""
        ended = self._event([self._kind.choice({}, self._said.finish_reason, piece=True)])
        counted = self._event([], self._said.usage) if self._counts and self._said.usage else b""
        return ended + counted + b"data: [DONE]\n\n"

    def error(self, code: str, message: str, path: str) -> bytes:
        """See Framing."""
        error = {"message": message, "type": "server_error", "param": path or None, "code": code}
        return b"data: %b\n\n" % to_json({"error": error})

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
        counted = {"usage": usage} if self._counts else {}
        return b"data: %b\n\n" % to_json({**self._head, "choices": choices, **counted})
