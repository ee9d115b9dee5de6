"""Folders as a whole: what is refused and how it is said, names that vary, the command line, and no torch anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import converter
from adapters.architectures.huggingface.families import MODULES, family_of
from converter import reference
from converter.cli.main import cli
from converter.errors import FormatError, ParameterError, UnsupportedError
from converter.ir import DType
from tests.huggingface import test_huggingface_decoders as decoders
from tests.huggingface.test_huggingface_encoders import VOCABULARY, made
from tests.huggingface_support import change_config, close, compare, forget, from_folder, run_module, save, tokens


def rename(folder: Path, *pairs: tuple[str, str], add: dict[str, torch.Tensor] | None = None) -> None:
    """Rewrites the names of a saved folder's tensors."""
    file = folder / "model.safetensors"
    found = {}
    for name, tensor in load_file(file).items():
        for old, new in pairs:
            name = name.replace(old, new)
        found[name] = tensor
    save_file({**found, **(add or {})}, file)


# Names -------------------------------------------------------------------------------------------------------------------


def test_names_with_and_without_the_base_models_own(tmp_path: Path) -> None:
    """A base model under its prefix; a head over a base without one; and TensorFlow's names of norms. All names stay."""
    module = made("Bert", "Model")
    inputs = {**tokens(2, 5, VOCABULARY), "token_type_ids": np.zeros((2, 5), np.int64)}
    rename(save(module, tmp_path / "a"), ("embeddings.", "bert.embeddings."), ("word_bert.", "word_"), ("position_bert.", "position_"),
           ("token_type_bert.", "token_type_"), ("encoder.", "bert.encoder."), ("pooler.", "bert.pooler."))
    model = from_folder(tmp_path / "a")
    assert "bert.pooler.dense.weight" in model.parameters
    compare(model, module, inputs)
    module = made("Bert", "ForMaskedLM")
    rename(save(module, tmp_path / "b"), ("bert.", ""), ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
    model = from_folder(tmp_path / "b")
    assert "embeddings.LayerNorm.gamma" in model.parameters
    compare(model, module, inputs)


@pytest.mark.parametrize("named", [
    {"AutoConfig": "configuration_bert.BertConfig", "AutoModelForMaskedLM": "modeling_bert.BertForMaskedLM"},
    {"AutoModel": "someone/bert--modeling_bert.BertModel", "AutoTokenizer": ["tokenization.Mine", None]}])
def test_code_beside_known_weights_is_not_run_and_the_note_says_so(tmp_path: Path, named: dict[str, Any]) -> None:
    module = made("Bert", "ForMaskedLM")
    save(module, tmp_path)
    change_config(tmp_path, auto_map=named)
    (tmp_path / "modeling_bert.py").write_text("raise SystemExit('this is never run')")
    model = from_folder(tmp_path)
    assert "is not run: it is taken for transformers' own BertForMaskedLM" in json.dumps(model.metadata["notes"])
    compare(model, module, {**tokens(2, 5, VOCABULARY), "token_type_ids": np.zeros((2, 5), np.int64)})


@pytest.mark.parametrize(("changes", "said"), [
    ({"auto_map": {"AutoModel": "modeling.MyBertModel"}}, "MyBertModel"),
    ({"auto_map": {"AutoModel": ["modeling.MyBertModel", None]}}, "MyBertModel"),
    ({"auto_map": {"AutoModel": 3}}, "auto_map"),
    ({"auto_map": "modeling.Mine"}, "Mine"),
    ({"auto_map": {"AutoModelForMaskedLM": "modeling_bert.BertForMaskedLM"}, "my_new_gate": True}, "my_new_gate"),
    ({"auto_map": {"AutoModelForMaskedLM": "modeling_bert.BertForMaskedLM"}, "model_type": "my_bert"}, "code lies beside"),
])
def test_code_that_may_compute_something_else_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    save(made("Bert", "ForMaskedLM"), tmp_path)
    change_config(tmp_path, **changes)
    with pytest.raises(UnsupportedError) as caught:
        from_folder(tmp_path)
    assert said in str(caught.value)


def test_leftovers_are_kept_and_said(tmp_path: Path) -> None:
    module = made("Bert", "ForMaskedLM")
    more = {"bert.pooler.dense.weight": torch.ones(16, 16), "bert.pooler.dense.bias": torch.ones(16),
            "bert.embeddings.position_ids": torch.arange(34)[None], "cls.seq_relationship.weight": torch.ones(2, 16)}
    rename(save(module, tmp_path), add=more)
    model = from_folder(tmp_path)
    assert set(more) <= set(model.parameters.names())
    assert any("4 tensors kept that the graph does not use" in note for note in model.metadata["notes"])
    embedding = from_folder(tmp_path, task="feature-extraction")
    assert embedding.graph.name == "BertModel"
    assert [port.name for port in embedding.graph.outputs] == ["last_hidden_state", "pooler_output"]


def test_missing_extra_and_misshapen_tensors_are_listed_together(tmp_path: Path) -> None:
    save(made("Bert", "ForMaskedLM"), tmp_path)
    rename(tmp_path, ("attention.self.query.bias", "attention.self.query.offset"))
    change_config(tmp_path, intermediate_size=20)
    with pytest.raises(ParameterError) as caught:
        from_folder(tmp_path)
    text = str(caught.value)
    assert "missing: 'bert.encoder.layer.0.attention.self.query.bias' float32[16]" in text
    assert "extra: 'bert.encoder.layer.1.attention.self.query.offset' float32[16]" in text
    assert "'bert.encoder.layer.0.output.dense.weight': expected float32[16, 20], received float32[16, 24]" in text


def test_tied_weights_that_differ_are_refused(tmp_path: Path) -> None:
    module = decoders.made("llama", "ForCausalLM")
    save(module, tmp_path, tie_word_embeddings=True)
    with pytest.raises(ParameterError, match=r"tied to 'model\.embed_tokens\.weight'"):
        from_folder(tmp_path)


def test_shards(tmp_path: Path) -> None:
    module = made("Bert", "Model")
    module.save_pretrained(tmp_path, max_shard_size="8KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    model = from_folder(tmp_path)
    assert len(model.metadata["source"]["files"]) > 1
    compare(model, module, {**tokens(2, 5, VOCABULARY), "token_type_ids": np.zeros((2, 5), np.int64)})


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_neox"])
def test_smaller_floats_are_the_graphs_too(name: str, tmp_path: Path) -> None:
    """Angles stay float32; all else is of the checkpoint's dtype, and rounds as it does."""
    module = decoders.made(name, "ForCausalLM").to(torch.bfloat16)
    model = from_folder(save(module, tmp_path))
    assert {port.spec.dtype for port in model.graph.outputs} == {DType.BFLOAT16}
    inputs = tokens(2, 9, VOCABULARY)
    with torch.no_grad():
        theirs = module(**{key: torch.from_numpy(value) for key, value in inputs.items()}).logits.double().numpy()
    ours = reference.run(model, inputs)["logits"].astype(np.float64)
    exact = reference.run(model, inputs, float_dtype="float64")["logits"]
    assert np.abs(ours - exact).max() < 3 * np.abs(theirs - exact).max()


def test_pytorchs_own_format_with_tied_weights(tmp_path: Path) -> None:
    module = decoders.made("gpt2", "ForCausalLM")
    save(module, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(module.state_dict(), tmp_path / "pytorch_model.bin")
    model = from_folder(tmp_path)
    assert model.parameters.alias_of("lm_head.weight") == "transformer.wte.weight"
    compare(model, module, tokens(2, 5, VOCABULARY))


def test_a_sentence_encoder_on_a_decoder(tmp_path: Path) -> None:
    """The last word of a language model, as in newer embedding models."""
    module = decoders.made("qwen3", "Model")
    save(module, tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 16, "pooling_mode": "lasttoken"}))
    (tmp_path / "modules.json").write_text(json.dumps([
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate((("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")))]))
    given = tokens(3, 7, VOCABULARY, padding="right")
    words = run_module(module, given, ("last_hidden_state",))["last_hidden_state"]
    last = words[np.arange(3), given["attention_mask"].sum(1) - 1]
    found = reference.run(from_folder(tmp_path), given, float_dtype="float64")["sentence_embedding"]
    close(found, last / np.linalg.norm(last, axis=-1, keepdims=True), "embedding")


def test_the_documentation_names_every_family() -> None:
    text = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text(encoding="utf-8")
    for model_type in MODULES:
        assert f"`{model_type}`" in text
        for task in family_of(model_type).tasks:
            assert task in text, (model_type, task)


# Inputs, runtimes, the command line --------------------------------------------------------------------------------------


def test_inputs_are_chosen(tmp_path: Path) -> None:
    module = made("Bert", "Model")
    model = from_folder(save(module, tmp_path), take="input_ids, position_ids")
    given = {"input_ids": tokens(2, 5, VOCABULARY)["input_ids"], "position_ids": np.array([[4, 3, 2, 1, 0], [0, 1, 2, 3, 9]])}
    compare(model, module, given)


@pytest.mark.parametrize("runtime", ["numpy", "onnxruntime"])
@pytest.mark.parametrize(("name", "cache"), [("llama", True), ("gemma2", True), ("qwen2_moe by layer", True), ("gpt2", False),
                                             ("falcon with biases by place", True), ("mpt", True), ("codegen", False), ("gpt_neo", True),
                                             ("phi3 long", False), ("llama dynamic", True)])
def test_runtimes(name: str, cache: bool, runtime: str, tmp_path: Path) -> None:
    module = decoders.made(name, "ForCausalLM")
    model = from_folder(save(module, tmp_path), cache=cache)
    inputs: dict[str, Any] = tokens(2, 11, VOCABULARY)
    truth = run_module(module, inputs, ("logits",))["logits"]
    for port in model.graph.inputs:
        if port.name.startswith("past"):
            inputs[port.name] = np.zeros((2, int(port.spec.shape[1]), 0, int(port.spec.shape[3])), np.float32)  # type: ignore[arg-type]
    found = converter.session(model, runtime).run(inputs)["logits"]
    assert np.abs(found - truth).max() < 1e-4 * np.abs(truth).max()


def test_the_command_line(tmp_path: Path) -> None:
    module = made("DistilBert", "ForMaskedLM")
    save(module, tmp_path / "model")
    run = CliRunner()
    for target in ("model.json", "model.h5", "model.onnx"):
        kind = {"json": "json", "h5": "hdf5", "onnx": "onnx"}[target.partition(".")[2]]
        done = run.invoke(cli, [f"torch-to-{kind}", str(tmp_path / "model"), "-o", str(tmp_path / target)])
        assert done.exit_code == 0, done.output
    given = tokens(2, 6, VOCABULARY)
    truth = run_module(module, given, ("logits",))["logits"]
    for target in ("model.json", "model.h5", "model.onnx"):
        loaded = converter.load(tmp_path / target)
        close(reference.run(loaded, given, float_dtype="float64")["logits"], truth, target)
    done = run.invoke(cli, ["torch-to-json", str(tmp_path / "model"), "-o", str(tmp_path / "graph.json"), "--graph-only",
                             "--task", "feature-extraction"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "graph.json").stat().st_size < (tmp_path / "model.json").stat().st_size
    done = run.invoke(cli, ["inspect", str(tmp_path / "model")])
    assert done.exit_code == 0
    assert "Recognised as DistilBertForMaskedLM (fill-mask)" in done.output
    assert json.loads(run.invoke(cli, ["inspect", str(tmp_path / "model"), "--json"]).output)["recognised"]["inputs"]
    done = run.invoke(cli, ["torch-to-json", str(tmp_path / "model"), "-o", str(tmp_path / "x.json"), "--cache"])
    assert done.exit_code == 2
    assert not (tmp_path / "x.json").exists()
    done = run.invoke(cli, ["torch-to-json", str(tmp_path / "model"), "-o", str(tmp_path / "x.json"), "--module", "a:b", "--task", "x"])
    assert done.exit_code == 2
    assert "--task is for" in done.output
    change_config(tmp_path / "model", dim=32)
    done = run.invoke(cli, ["inspect", str(tmp_path / "model")])
    assert "Not recognised" in done.output
    assert "does not belong" in done.output
    change_config(tmp_path / "model", dim=16, activation="sine")
    done = run.invoke(cli, ["inspect", str(tmp_path / "model")])
    assert done.exit_code == 0
    assert "Not recognised" in done.output
    assert "'activation'" in done.output
    done = run.invoke(cli, ["torch-to-json", str(tmp_path / "model" / "model.safetensors"), "-o", str(tmp_path / "x.json")])
    assert done.exit_code == 2
    assert "give the folder" in done.output


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "safetensors", "sentence_transformers", "tokenizers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import numpy as np
import converter
from converter.cli.main import cli

folder, output = sys.argv[1:]
cli(["torch-to-json", folder, "-o", output, "--quiet"], standalone_mode=False)
found = converter.session(converter.load(output)).run({"input_ids": np.array([[3, 4, 5]]), "attention_mask": np.array([[1, 1, 1]])})
np.save(output + ".npy", found["logits"])
"""


def test_neither_torch_nor_transformers_is_needed(tmp_path: Path) -> None:
    module = decoders.made("qwen3", "ForCausalLM")
    save(module, tmp_path / "model")
    output = tmp_path / "model.json"
    command = [sys.executable, "-c", BLOCKED, str(tmp_path / "model"), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    truth = run_module(module, {"input_ids": np.array([[3, 4, 5]])}, ("logits",))["logits"]
    assert np.abs(np.load(f"{output}.npy") - truth).max() < 1e-4 * np.abs(truth).max()


# Folders of graphs -------------------------------------------------------------------------------------------------------


def test_a_folder_of_graphs(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()
    other = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)).eval()
    twin = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).eval()
    graphs = tmp_path / "graphs"
    graphs.mkdir()
    run = CliRunner()
    for name, item in (("small", module), ("large", other), ("twin", twin)):
        (tmp_path / f"build_{name}.py").write_text(
            "import torch\ndef build():\n    return torch.nn.Sequential(torch.nn.Linear(3, {0}), torch.nn.{1}(), torch.nn.Linear({0}, 2))\n"
            .format(item[0].out_features, type(item[1]).__name__))
        target = (tmp_path if name == "twin" else graphs) / f"{name}.json"
        done = run.invoke(cli, ["torch-to-json", "--module", f"{tmp_path / f'build_{name}.py'}:build", "--input", "input:float32[batch,3]",
                                 "-o", str(target), "--graph-only", "--no-examples"])
        assert done.exit_code == 0, done.output
    (graphs / "broken.json").write_text("{")
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    model = converter.from_checkpoint(tmp_path / "weights.pt", graphs=graphs)
    x = np.ones((2, 3), np.float32)
    (found,) = converter.session(model).run({model.graph.inputs[0].name: x}).values()
    assert np.allclose(found, module(torch.from_numpy(x)).detach().numpy(), atol=1e-6)
    done = run.invoke(cli, ["torch-to-json", str(tmp_path / "weights.pt"), "-o", str(tmp_path / "m.json"), "--graphs", str(graphs)])
    assert done.exit_code == 0, done.output
    (tmp_path / "twin.json").rename(graphs / "twin.json")
    with pytest.raises(FormatError, match=r"2 graphs have the checkpoint's names and shapes") as caught:
        converter.from_checkpoint(tmp_path / "weights.pt", graphs=graphs)
    assert "small.json" in str(caught.value)
    assert "twin.json" in str(caught.value)
    torch.save(torch.nn.Linear(3, 9).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(FormatError, match="is the nearest"):
        converter.from_checkpoint(tmp_path / "weights.pt", graphs=graphs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="no graph"):
        converter.from_checkpoint(tmp_path / "weights.pt", graphs=tmp_path / "empty")
    with pytest.raises(FormatError, match="no such folder"):
        converter.from_checkpoint(tmp_path / "weights.pt", graphs=tmp_path / "nowhere")


# Configs and dtypes of every age ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "head", "task"), [
    ("Bert", "ForSequenceClassification", "text-classification"), ("Roberta", "ForMaskedLM", "fill-mask"),
    ("Electra", "ForTokenClassification", "token-classification"), ("DistilBert", "ForMaskedLM", "fill-mask")])
def test_a_config_without_a_model_type(kind: str, head: str, task: str, tmp_path: Path) -> None:
    module = made(kind, head)
    folder, inputs = save(module, tmp_path), {**tokens(2, 5, VOCABULARY), "token_type_ids": np.zeros((2, 5), np.int64)}
    forget(folder, "model_type")
    by_class = from_folder(folder)
    assert any("no model_type" in note for note in by_class.metadata["notes"])
    forget(folder, "architectures")
    for model in (by_class, from_folder(folder, task=task), from_folder(folder, task=task, model_type=module.config.model_type)):
        compare(model, module, {name: value for name, value in inputs.items() if name in {port.name for port in model.graph.inputs}})
    line = CliRunner().invoke(cli, ["torch-to-json", str(folder), "--task", task, "--model-type", module.config.model_type, "-o",
                                    str(tmp_path / "m.json")])
    assert line.exit_code == 0, line.output


def test_a_model_type_that_names_do_not_decide(tmp_path: Path) -> None:
    folder = save(made("Bert", "Model"), tmp_path)
    with pytest.raises(FormatError, match="of another type"):
        from_folder(folder, model_type="roberta")
    forget(folder, "model_type", "architectures")
    with pytest.raises(FormatError, match=r"those of several types.*--model-type bert"):
        from_folder(folder, task="feature-extraction")
    compare(from_folder(folder, task="feature-extraction", model_type="bert", take="input_ids,attention_mask"), made("Bert", "Model"),
            tokens(2, 5, VOCABULARY))


def test_labels_that_nobody_named(tmp_path: Path) -> None:
    module = made("Bert", "ForSequenceClassification", num_labels=5)
    folder = save(module, tmp_path)
    for labels in ({"0": "LABEL_0", "1": "LABEL_1"}, {str(index): f"LABEL_{index}" for index in range(5)}):
        change_config(folder, id2label=labels, num_labels=5)
        assert from_folder(folder).graph.outputs[0].spec.shape[-1] == 5
    change_config(folder, id2label={"0": "good", "1": "bad"}, num_labels=5)
    with pytest.raises(UnsupportedError, match="leave out the one"):
        from_folder(folder)


def test_names_of_training_runs_in_a_folder(tmp_path: Path) -> None:
    module = made("Bert", "ForSequenceClassification")
    folder, inputs = save(module, tmp_path), tokens(2, 5, VOCABULARY)
    state = load_file(folder / "model.safetensors")
    for names in ({f"module.{name}": value for name, value in state.items()},
                  {f"_orig_mod.module.{name}": value for name, value in state.items()},
                  {**{f"module.{name}": value for name, value in state.items()}, "n_averaged": torch.tensor(3)},
                  {**state, "criterion.weight": torch.ones(2), "val_metrics.tp": torch.ones(1)}):
        save_file(names, folder / "model.safetensors")
        model = from_folder(folder)
        compare(model, module, {**inputs, "token_type_ids": np.zeros((2, 5), np.int64)})
        assert any("left out" in note or "read without" in note for note in model.metadata["source"]["notes"])
    save_file({**state, "adapter.weight": torch.ones(2)}, folder / "model.safetensors")
    with pytest.raises(ParameterError, match="--allow-extra"):
        from_folder(folder)
    assert "adapter.weight" not in from_folder(folder, allow_extra=True).parameters


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_floats_of_several_dtypes(narrow: torch.dtype, tmp_path: Path) -> None:
    module = made("Bert", "ForSequenceClassification")
    folder = save(module, tmp_path)
    state = {name: value if "LayerNorm" in name else value.to(narrow) for name, value in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors")
    module.load_state_dict(state)
    model = from_folder(folder)
    assert {str(model.parameters.spec(name).dtype) for name in model.parameters} == {"float32"}
    assert any("several dtypes" in note for note in model.metadata["notes"])
    compare(model, module, {**tokens(2, 5, VOCABULARY), "token_type_ids": np.zeros((2, 5), np.int64)})
    line = CliRunner().invoke(cli, ["torch-to-json", str(folder), "--dtype", "bfloat16", "-o", str(tmp_path / "m.json")])
    assert line.exit_code == 0, line.output
    assert {converter.load(tmp_path / "m.json").parameters.spec(name).dtype for name in state} == {DType.BFLOAT16}
