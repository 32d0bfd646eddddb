"""Run by a Python that has torch and transformers: train small BERTs on real text and save them as folders.

The texts are docstrings of the standard library; a text's label is the package it is from, a word's whether it is
capitalised. Beside each folder `NAME.json` holds what transformers' own pipeline answers.

    python train_texts.py FOLDER
"""

import asyncio
import email
import importlib
import inspect
import json
import pkgutil
import re
import sys
import unittest
from pathlib import Path

import torch
from tokenizers.implementations import BertWordPieceTokenizer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizerFast,
    pipeline,
)

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
LABELS = ("asyncio", "email", "unittest")


def sentences():
    """(sentence, index of its package), every third of them kept for the tests."""
    found = []
    for label, package in enumerate((asyncio, email, unittest)):
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.startswith(("windows", "__main__", "_test")):
                continue
            content = importlib.import_module(f"{package.__name__}.{module.name}")
            for _, thing in sorted(vars(content).items()):
                if getattr(thing, "__module__", "") == content.__name__ and (text := inspect.getdoc(thing)):
                    found.append((" ".join(text.split())[:120], label))
    return sorted(set(found))


def train(model, batches, steps):
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for step in range(steps):
        loss = model(**batches[step % len(batches)]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def main(folder):
    torch.manual_seed(7)
    torch.set_num_threads(1)  # networks this small only wait for each other's threads
    texts = sentences()
    words = BertWordPieceTokenizer(lowercase=False)
    words.train_from_iterator([text for text, _ in texts], vocab_size=2000, show_progress=False)
    words.save(str(folder / "words.json"))
    tokenizer = BertTokenizerFast(tokenizer_file=str(folder / "words.json"), model_max_length=48, do_lower_case=False)
    classes(folder / "classes", tokenizer, texts)
    names(folder / "names", tokenizer, texts)


def classes(place, tokenizer, texts):
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=48, id2label=dict(enumerate(LABELS)),
        label2id={name: at for at, name in enumerate(LABELS)}, **SIZES,
    )  # fmt: skip
    seen = [pair for at, pair in enumerate(texts) if at % 3]
    batches = []
    for start in range(0, len(seen), 32):
        part = seen[start : start + 32]
        given = tokenizer([text for text, _ in part], padding=True, truncation=True, return_tensors="pt")
        batches.append({**given, "labels": torch.tensor([label for _, label in part])})
    model = train(BertForSequenceClassification(config), batches, 80)
    save(place, model, tokenizer)
    unseen = [pair for at, pair in enumerate(texts) if not at % 3]
    told = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    given = [text for text, _ in unseen][:40]
    answers = told(given, truncation=True)
    right = sum(answer[0]["label"] == LABELS[label] for answer, (_, label) in zip(answers, unseen, strict=False))
    pairs = [{"text": first, "text_pair": second} for first, second in zip(given[:8], given[8:16], strict=True)]
    write(
        place, texts=given, answers=answers, right=right / len(given), pairs=pairs, paired=told(pairs, truncation=True)
    )


def names(place, tokenizer, texts):
    labels = ("O", "B-NAME", "I-NAME")
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=48, id2label=dict(enumerate(labels)),
        label2id={name: at for at, name in enumerate(labels)}, **SIZES,
    )  # fmt: skip
    batches = []
    for start in range(0, len(texts) - 32, 32):
        part = [text for text, _ in texts[start : start + 32]]
        given = tokenizer(part, padding=True, truncation=True, return_tensors="pt", return_offsets_mapping=True)
        wanted = torch.full(given["input_ids"].shape, -100)
        for row, (text, offsets) in enumerate(zip(part, given.pop("offset_mapping").tolist(), strict=True)):
            starts = {word.start() for word in re.finditer(r"\b[A-Z]\w*", text)}
            inside = {at for word in re.finditer(r"\b[A-Z]\w*", text) for at in range(*word.span())}
            for at, (begin, end) in enumerate(offsets):
                if end > begin:
                    wanted[row, at] = 1 if begin in starts else 2 if begin in inside else 0
        batches.append({**given, "labels": wanted})
    model = train(BertForTokenClassification(config), batches, 80)
    save(place, model, tokenizer)
    told = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple")
    given = [text for text, _ in texts if len(text) < 150][:40]
    answers = [
        [{**{key: one[key] for key in ("start", "end")}, "label": one["entity_group"], "score": float(one["score"])}
         for one in answer] for answer in told(given)
    ]  # fmt: skip
    write(place, texts=given, answers=answers)


def save(place, model, tokenizer):
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    graph = place.with_name(f"{place.name}-onnx")
    model.config.save_pretrained(graph)
    tokenizer.save_pretrained(graph)
    (graph / "onnx").mkdir()
    given = tokenizer(["a text", "another, longer text"], padding=True, return_tensors="pt")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "texts", 1: "tokens"} for name in names}
    outputs = {"logits": {0: "texts", 1: "tokens"} if "Token" in type(model).__name__ else {0: "texts"}}
    torch.onnx.export(
        model, tuple(given[name] for name in names), graph / "onnx" / "model.onnx", input_names=names,
        output_names=["logits"], dynamic_axes=axes | outputs, dynamo=False,
    )  # fmt: skip


def write(place, **told):
    place.with_name(f"{place.name}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
