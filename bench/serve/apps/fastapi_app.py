"""FastAPI as its tutorial writes it."""

import model
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

run = model.load()
app = FastAPI()


class Body(BaseModel):
    inputs: list[str] if model.KIND == "embed" else list[list[float]]


@app.post("/predict")
def predict(body: Body) -> dict:
    return {"predictions": np.asarray(run(body.inputs)).tolist()}
