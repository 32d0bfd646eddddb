"""Run by a Python that has Keras and PyTorch: train models on real digits, save them, and note what they answer.

python train_keras.py FOLDER       # with digits.npy (rows, 64 pixels and the digit) in it
"""

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
from keras import layers


def convolutions():
    net = [layers.Conv2D(8, 3, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU(),
           layers.MaxPooling2D(), layers.Flatten(), layers.Dropout(0.2), layers.Dense(10, activation="softmax")]  # fmt: skip
    return keras.Sequential([keras.Input((8, 8, 1)), *net])


def recurrent():
    net = [layers.Bidirectional(layers.GRU(16)), layers.Dense(10, activation="softmax")]
    return keras.Sequential([keras.Input((8, 8)), *net])


def ends():
    """Two inputs and two outputs, by name."""
    rows, first = keras.Input((8, 8), name="rows"), keras.Input((8,), name="first")
    seen = layers.MultiHeadAttention(2, 4)(rows, rows)
    seen = layers.LayerNormalization()(layers.Add()([seen, rows]))
    joined = layers.Concatenate()([layers.GlobalAveragePooling1D()(seen), first])
    answers = {"digit": layers.Dense(10, name="digit")(joined), "odd": layers.Dense(1, activation="sigmoid")(joined)}
    return keras.Model({"rows": rows, "first": first}, answers)


def main(folder):
    keras.utils.set_random_seed(7)
    torch.set_num_threads(1)  # networks this small only wait for each other's threads
    data = np.load(folder / "digits.npy").astype("float32")
    pixels, digits = data[:, :64] / 16, data[:, 64].astype("int64")
    for name, model, rows in (
        ("convolutions", convolutions(), pixels.reshape(-1, 8, 8, 1)),
        ("recurrent", recurrent(), pixels.reshape(-1, 8, 8)),
    ):
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
        model.fit(rows[:800], digits[:800], epochs=3, batch_size=64, verbose=0)
        answers = model.predict(rows[-100:], verbose=0)
        right = float((answers.argmax(1) == digits[-100:]).mean())
        save(folder / name, model, rows=rows[-100:].tolist(), answers=answers.tolist(), right=right)
    model = ends()
    given = {"rows": pixels[-50:].reshape(-1, 8, 8), "first": pixels[-50:, :8]}
    answers = {name: values.tolist() for name, values in model.predict(given, verbose=0).items()}
    save(folder / "ends", model, rows={name: values.tolist() for name, values in given.items()}, answers=answers)


def save(path, model, **told):
    model.save(path.with_suffix(".keras"))
    path.with_suffix(".json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
