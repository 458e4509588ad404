import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from fairlead.artifacts.model_folder import check_model_folder
from fairlead.errors import ExitCode, UserError

TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b.bias": np.zeros(0, dtype=np.float16)}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "base"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "llama", "nested": [{"hidden": 1}]}))
    save_file(TENSORS, path / "model.safetensors", metadata={"format": "pt"})
    return path


def refused(folder, code, *words):
    with pytest.raises(UserError) as caught:
        check_model_folder(folder)
    assert caught.value.exit_code == code, caught.value
    for word in (*words, "\nFix: "):
        assert word in str(caught.value)


def shard(folder):
    (folder / "model.safetensors").unlink()
    save_file({"a": np.zeros(2)}, folder / "model-00001-of-00002.safetensors")
    save_file({"b": np.zeros(3)}, folder / "model-00002-of-00002.safetensors")
    places = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


def test_base_folder(folder):
    found = check_model_folder(folder)
    assert (found.kind, found.weights, found.config["model_type"]) == ("base", ("model.safetensors",), "llama")
    assert found.size_bytes == (folder / "model.safetensors").stat().st_size
    (folder / "pytorch_model.bin").touch()  # never read, so it may lie there
    assert check_model_folder(folder).weights == ("model.safetensors",)


def test_adapter_folder(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "auto_mapping": null}')
    save_file(TENSORS, tmp_path / "adapter_model.safetensors")
    found = check_model_folder(tmp_path)
    assert (found.kind, found.weights) == ("adapter", ("adapter_model.safetensors",))
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    refused(tmp_path, ExitCode.BAD_DATA, "adapter_model.bin is a pickle")


def test_shards(folder):
    places = shard(folder)
    assert check_model_folder(folder).weights == tuple(sorted(places.values()))
    (folder / places["b"]).unlink()
    refused(folder, ExitCode.MISSING_INPUT, f"{places['b']} is missing; model.safetensors.index.json names it")
    save_file({"c": np.zeros(3)}, folder / places["b"])
    refused(folder, ExitCode.BAD_DATA, "lacks b")
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, ExitCode.MISSING_INPUT, "has shards but no model.safetensors.index.json")


@pytest.mark.parametrize("index", ['{"weight_map": {"a": "../up.safetensors"}}', '{"weight_map": {"a": "w.bin"}}'])
def test_index_names_only_safetensors_of_the_folder(folder, index):
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(index)
    refused(folder, ExitCode.BAD_DATA, "want a *.safetensors file of the same folder")


@pytest.mark.parametrize("index", ["{}", "[]", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}'])
def test_broken_index(folder, index):
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(index)
    refused(folder, ExitCode.BAD_DATA, "index.json")


def test_missing_things(folder, tmp_path):
    refused(tmp_path / "absent", ExitCode.MISSING_INPUT, "there is no model at")
    refused(tmp_path, ExitCode.MISSING_INPUT, "has no config.json")
    refused(folder / "config.json", ExitCode.USAGE, "is a file; want a model folder")
    (folder / "model.safetensors").unlink()
    refused(folder, ExitCode.MISSING_INPUT, "has no weights: model.safetensors is missing")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    refused(folder, ExitCode.BAD_DATA, "pytorch_model.bin is a pickle", "want *.safetensors", "save_pretrained(")


def test_a_stage_points_to_its_model(folder, tmp_path):
    folder.rename(tmp_path / "model")
    refused(tmp_path, ExitCode.USAGE, "one folder below", f"give {tmp_path / 'model'}")


@pytest.mark.parametrize("name", ["modeling_x.py", "deep/er/x.py", "x.so"])
def test_code_in_the_folder(folder, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    refused(folder, ExitCode.BAD_DATA, f"{folder / name} is code")


@pytest.mark.parametrize(
    "extra",
    [
        {"auto_map": {"AutoModel": "evil.Model"}},
        {"text_config": {"deep": [{"auto_map": {"AutoConfig": "evil.Config"}}]}},
        {"_attn_implementation": "someone/kernel"},
        {"vision_config": {"_attn_implementation_internal": "someone/kernel"}},
        {"auto_mapping": {"base_model_class": "X", "parent_library": "evil"}},
        {"auto_mapping": {"base_model_class": "X", "parent_library": "transformers_evil"}},
    ],
)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_names_of_code(folder, name, extra):
    (folder / name).write_text(json.dumps({"model_type": "llama"} | extra))
    refused(folder, ExitCode.BAD_DATA, f"{folder / name} names code to run")


def test_harmless_keys_of_older_versions_pass(folder):
    parent = {"base_model_class": "L", "parent_library": "transformers.models.llama.modeling_llama"}
    extra = {"_attn_implementation_autoset": True, "auto_map": None, "auto_mapping": parent}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | extra))
    assert check_model_folder(folder).kind == "base"


@pytest.mark.parametrize("text", ["", "{", "[]", "NaN", "[" * 5000, '{"model_type": 7}', "{}"])
def test_broken_config(folder, text):
    (folder / "config.json").write_text(text)
    refused(folder, ExitCode.BAD_DATA, "config.json")


def test_deep_nesting_is_no_crash(folder):
    (folder / "config.json").write_text('{"model_type": "llama", "x": ' + "[" * 1000 + "]" * 1000 + "}")
    assert check_model_folder(folder).kind == "base"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer.model"])
def test_download_placeholders(folder, name):
    (folder / name).write_bytes(LFS)
    refused(folder, ExitCode.BAD_DATA, f"{folder / name} is a Git-LFS pointer", "lfs pull")
    for page in (b"<!DOCTYPE html><title>404</title>", b"\n <HTML>"):
        (folder / name).write_bytes(page)
        refused(folder, ExitCode.BAD_DATA, f"{folder / name} is a web page")


@given(st.data())
def test_any_cut_of_the_weights_is_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    raw = save(TENSORS)
    (folder / "model.safetensors").write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    refused(folder, ExitCode.BAD_DATA, "model.safetensors")


DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
DTYPES += ("float16", "float32", "float64", "complex64")
SHAPES = st.lists(st.integers(0, 3), max_size=3)


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.tuples(st.sampled_from(DTYPES), SHAPES), max_size=4))
def test_whatever_safetensors_writes_is_accepted(tmp_path_factory, tensors):
    folder = tmp_path_factory.mktemp("good")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file({name: np.zeros(shape, dtype) for name, (dtype, shape) in tensors.items()}, folder / "model.safetensors")
    assert check_model_folder(folder).weights == ("model.safetensors",)


def with_header(folder, header: bytes, data: bytes = b"\0" * 8, length: int | None = None):
    length = len(header) if length is None else length
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + header + data)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 9]},
        {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]},
        {"dtype": "X32", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        [],
    ],
)
def test_tensors_that_do_not_fit(folder, entry):
    with_header(folder, json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode())
    assert check_model_folder(folder).size_bytes > 0
    with_header(folder, json.dumps({"w": entry}).encode())
    refused(folder, ExitCode.BAD_DATA, "w does not fit")


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"\xff\xfe"])
def test_headers_that_are_no_header(folder, header):
    with_header(folder, header)
    refused(folder, ExitCode.BAD_DATA, "not safetensors")


@pytest.mark.parametrize("length", [3, 2**63, 100_000_001])
def test_header_length_that_lies(folder, length):
    with_header(folder, b"{}", data=b"", length=length)
    refused(folder, ExitCode.BAD_DATA, f"a header of {length} bytes in a file of 10")
