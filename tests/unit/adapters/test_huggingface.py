"""Folders of Hugging Face are read by their documents; tests/integration/test_texts.py compares answers with transformers."""

import json
import struct

import pytest

from corten.adapters.base import Source
from corten.adapters.hf_folder import Activation, Task, read_hf
from corten.adapters.huggingface import HuggingFace
from corten.errors import PolicyError, UsageError

CONFIG = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "id2label": {"0": "ham", "1": "spam"},
    "max_position_embeddings": 512,
    "transformers_version": "5.1.0",
}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


def safetensors(**tensors):
    """Bytes of a file with these tensors of zeros, by name to shape."""
    head, at = {}, 0
    for name, shape in tensors.items():
        size = 4
        for length in shape:
            size *= length
        head[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


@pytest.fixture
def folder(tmp_path):
    """Write a folder: documents as dicts, other files as bytes, None takes a file away."""

    def run(**changed):
        files = {
            "config.json": CONFIG,
            "tokenizer.json": {"version": "1.0"},
            "tokenizer_config.json": {"model_max_length": 128},
            "model.safetensors": safetensors(weight=[2, 2]),
        } | {name.replace("__", "/"): content for name, content in changed.items()}
        for name, content in files.items():
            path = tmp_path / "net" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is not None:
                path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return tmp_path / "net"

    return run


@pytest.fixture
def graph():
    """Bytes of an ONNX file with these inputs, by name to shape."""
    onnx = pytest.importorskip("onnx")

    def run(inputs=None):
        free = ["texts", "tokens"]
        inputs = inputs or dict.fromkeys(("input_ids", "attention_mask"), free)
        helper = onnx.helper
        given = [helper.make_tensor_value_info(name, onnx.TensorProto.INT64, shape) for name, shape in inputs.items()]
        out = helper.make_tensor_value_info("logits", onnx.TensorProto.INT64, free)
        node = helper.make_node("Identity", [next(iter(inputs))], ["logits"])
        made = helper.make_graph([node], "net", given, [out])
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()

    return run


def embedder(**changed):
    return {
        "config.json": CONFIG | {"architectures": ["BertModel"]},
        "modules.json": MODULES,
        "1_Pooling__config.json": {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": True},
    } | changed


def test_a_folder_is_told_by_its_documents_and_not_by_its_name(folder, tmp_path):
    assert HuggingFace().detect(Source(folder()))
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"replicas": 2}')
    assert not HuggingFace().detect(Source(other))
    (other / "config.json").write_text("no json")
    assert not HuggingFace().detect(Source(other))
    (other / "tokenizer.json").write_text("{}")  # now it is one, and its config.json is damaged
    assert HuggingFace().detect(Source(other))


def test_a_classifier_tells_its_labels_its_limits_and_its_releases(folder):
    found = HuggingFace().inspect(Source(folder()))
    assert found.notes[0] == "BertForSequenceClassification for text-classification, weights in safetensors"
    assert "2 labels: ham, spam" in found.notes
    assert "texts are cut at 128 tokens" in found.notes
    assert any(note.startswith("written by transformers 5.1.0; the newest goes") for note in found.notes)
    assert found.requirements == ("transformers>=5.1.0", "torch", "tokenizers", "numpy")
    assert [parameter.name for parameter in found.schema.parameters] == ["text", "pair", "top"]
    assert found.weights[0].name == "config.json"


def test_a_graph_in_the_folder_keeps_pytorch_out_of_the_image(folder, graph):
    found = HuggingFace().inspect(Source(folder(**{"onnx/model.onnx": graph()})))
    assert found.requirements == ("onnxruntime", "tokenizers", "numpy")
    names = [file.name for file in found.weights]
    assert "onnx/model.onnx" in names
    assert "model.safetensors" not in names
    assert found.entry == "onnx/model.onnx"


def test_of_several_graphs_the_settings_choose(folder, graph):
    made = folder(**{"onnx/model.onnx": graph(), "onnx/model_int8.onnx": graph()})
    found = HuggingFace().inspect(Source(made))
    assert found.entry == "onnx/model.onnx"
    assert any("also there: onnx/model_int8.onnx" in note for note in found.notes)
    found = HuggingFace().inspect(Source(made, extra_files=(made / "onnx" / "model_int8.onnx",)))
    assert found.entry == "onnx/model_int8.onnx"
    assert "onnx/model.onnx" not in [file.name for file in found.weights]


def test_an_embedder_pools_as_its_own_modules_say(folder):
    found = read_hf(folder(**embedder()))
    assert found.task is Task.EMBED
    assert found.pooling == ("cls", "mean")
    assert found.normalizes
    assert found.lower
    assert found.most_tokens == 128
    newer = read_hf(folder(**embedder(**{"1_Pooling__config.json": {"pooling_mode": "lasttoken"}})))
    assert newer.pooling == ("lasttoken",)


def test_prompts_of_an_embedder_become_an_argument(folder):
    settings = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}
    found = HuggingFace().inspect(Source(folder(**embedder(**{"config_sentence_transformers.json": settings}))))
    assert [parameter.name for parameter in found.schema.parameters] == ["text", "prompt"]
    assert "prompts: query" in found.notes


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Activation.SOFTMAX),
        ({"problem_type": "multi_label_classification"}, Activation.SIGMOID),
        ({"problem_type": "regression"}, Activation.NONE),
        ({"id2label": {"0": "LABEL_0"}}, Activation.SIGMOID),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, Activation.NONE),
    ],
)
def test_scores_are_made_as_transformers_makes_them(changed, expected, folder):
    assert read_hf(folder(**{"config.json": CONFIG | changed})).activation is expected


def test_positions_that_begin_behind_the_padding_are_not_for_texts(folder):
    config = CONFIG | {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    assert read_hf(folder(**{"config.json": config, "tokenizer_config.json": None})).most_tokens == 512


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({"config.json": CONFIG | {"auto_map": {"AutoModel": "modeling_own.OwnModel"}}}, "own_code", "modeling_own.py"),
        ({"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["own.Tokens", None]}}}, "own_code", "own.py"),
        (embedder(**{"modules.json": [*MODULES[:2], {"path": "", "type": "own.Module"}]}), "own_code", "own.Module"),
        ({"model.safetensors": None, "pytorch_model.bin": b"PK"}, "pickled_weights", "pytorch_model.bin"),
        ({"model.safetensors": None}, "missing_weights", "no weights"),
        ({"model.safetensors": LFS}, "missing_weights", "git-lfs"),
        ({"model.safetensors": safetensors(weight=[9])[:-1]}, "corrupt_model", "bytes announced"),
        ({"model.safetensors": b"\x80\x04"}, "corrupt_model", "safetensors"),
        ({"config.json": b'{"model_type": "be'}, "corrupt_model", "config.json"),
        ({"tokenizer.json": b'{"version": "1.'}, "corrupt_model", "tokenizer.json"),
        ({"tokenizer.json": None, "vocab.txt": b"[PAD]"}, "missing_weights", "tokenizer.json"),
        ({"config.json": CONFIG | {"architectures": ["GPT2LMHeadModel"]}}, "unknown_task", "generates text"),
        ({"config.json": CONFIG | {"architectures": ["BertForQuestionAnswering"]}}, "unknown_task", "task"),
        ({"config.json": CONFIG | {"id2label": {"0": "a", "2": "b"}}}, "corrupt_model", "id2label"),
        ({"model.safetensors.index.json": {"weight_map": {"w": "../../w.safetensors"}}}, "unsafe_path", "outside"),
        ({"config.json": None, "adapter_config.json": {"peft_type": "LORA"}}, "not_a_model", "PEFT"),
        (embedder(**{"modules.json": [MODULES[0]]}), "contract", "no pooling"),
        (embedder(**{"modules.json": [{**MODULES[0], "path": "/etc"}, *MODULES[1:]]}), "unsafe_path", "/etc"),
        (embedder(**{"1_Pooling__config.json": {"include_prompt": False, "pooling_mode": "cls"}}), "contract", "prompt"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused_by_name(changed, code, says, folder):
    with pytest.raises((UsageError, PolicyError)) as refused:
        HuggingFace().inspect(Source(folder(**changed)))
    assert refused.value.code == f"adapter.{code}"
    assert says in f"{refused.value.what} {refused.value.where} {refused.value.why}"
    assert refused.value.hint or code in ("unsafe_path", "corrupt_model")


def test_own_code_is_no_hindrance_where_a_graph_needs_none(folder, graph):
    config = CONFIG | {"auto_map": {"AutoModel": "modeling_own.OwnModel"}}
    found = HuggingFace().inspect(
        Source(folder(**{"config.json": config, "model.onnx": graph(), "modeling_own.py": b""}))
    )
    assert "modeling_own.py" not in [file.name for file in found.weights]
    assert "modeling_own.py" in found.warnings[0]


@pytest.mark.parametrize("shape", [[1, 128], ["texts", 128]])
def test_a_graph_for_texts_of_one_length_is_refused(shape, folder, graph):
    with pytest.raises(UsageError) as refused:
        read_hf(folder(**{"model.onnx": graph({"input_ids": shape})}))
    assert refused.value.code == "adapter.contract"


def test_a_graph_that_wants_images_or_caches_is_refused(folder, graph):
    with pytest.raises(UsageError) as refused:
        read_hf(folder(**{"model.onnx": graph({"input_ids": ["a", "b"], "past_key_values": ["a", "b"]})}))
    assert "past_key_values" in refused.value.what
