import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from featherweight.report.card import model_card
from tests.report.fake_study import info, study

EVIL = "x</h1><script>alert(1)</script>\n# heading | `code` [a](http://b)"


def card(entry=None, **other):
    found = study()
    front = found.front_json()
    return model_card(front, {**(entry or front["best"]), **other}, found.info(), found.config)


def code(text):
    return re.search(r"```python\n(.*?)```", text, re.S)[1]


def test_numbers_with_intervals_and_n():
    text = card()
    assert "Certified: on 360 test samples" in text and "n = 360" in text and "95 % interval" in text
    assert "sha256" in text and "meets all of them: the floor by its certificate, the others as they were" in text
    assert "The licence of this model is that of the model and the data" in text


def test_an_infeasible_entry_is_not_praised():
    front = study().front_json()
    broken = next(e for e in front["baselines"] if e["label"] == "random cutting")
    text = card(broken)
    assert "does **not** meet" in text and "Certified" not in text
    assert re.search(r"on the validation split: .*is allowed", text)  # it says which, and by how much


def test_user_text_is_escaped():
    found = study()
    front = {**found.front_json(), "task": EVIL}
    text = model_card(front, {**front["best"], "label": EVIL}, {**found.info(), "splits": {EVIL: EVIL}}, found.config)
    assert not re.search(r"(?<!\\)<(script|/h1)", text)
    assert "\n# heading" not in text
    assert sum(line.startswith("# ") for line in text.splitlines()) == 1


def test_table_rows_have_three_cells():
    rows = [line for line in card().splitlines() if line.startswith("|")]
    assert len(rows) >= 9
    assert {len(re.findall(r"(?<!\\)\|", r)) for r in rows} == {4}


def onnx_model(folder):
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["output"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 64])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(folder / "model.onnx")
    )


@pytest.mark.parametrize("target", ["onnxruntime", "onnxruntime:threads=2:batch=3"])
def test_the_onnxruntime_snippet_runs(target, tmp_path, monkeypatch, capsys):
    onnx_model(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(code(card(target=target)), "card", "exec"), {})
    assert capsys.readouterr().out.strip() == ("(3, 64)" if "batch=3" in target else "(1, 64)")


def test_the_openvino_snippet_runs(tmp_path, monkeypatch, capsys):
    ov = pytest.importorskip("openvino")
    onnx_model(tmp_path)
    ov.save_model(ov.convert_model(tmp_path / "model.onnx"), tmp_path / "model.xml")
    monkeypatch.chdir(tmp_path)
    exec(compile(code(card(target="openvino:batch=2")), "card", "exec"), {})
    assert capsys.readouterr().out.strip() == "(2, 64)"


def test_input_names_and_dtypes_cannot_inject_code():
    found = study()
    facts = {**info(), "inputs": {"a'] = 1\nimport os": {"shape": ["batch", 2], "dtype": "float32)\nimport os"}}}
    front = found.front_json()
    source = code(model_card(front, front["best"], facts, found.config))
    assert not any(line.startswith("import os") for line in source.splitlines())
    scope = {"np": np}
    exec(source[source.index("inputs = {") : source.index("output =")], scope)
    assert scope["inputs"]["a'] = 1\nimport os"].shape == (1, 2)


def test_a_torch_artifact_has_a_snippet_that_runs(tmp_path):
    torch = pytest.importorskip("torch")
    program = torch.export.export(
        torch.nn.Flatten(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    torch.export.save(program, tmp_path / "model.pt2")
    text = code(card(target="torch"))
    assert "compile" not in text and "torch.compile(model)" in code(card(target="torch:compile"))
    exec(
        text.replace("model.pt2", str(tmp_path / "model.pt2")).replace(
            "print(output.shape)", "assert output.shape[0] == 1"
        ),
        {},
    )


def test_what_runs_in_integers_is_said():
    layers = {"int8": 7, "float (as planned)": 1}
    text = card(coverage={"quantized": {"QLinearConv": 7}, "float": {"Gemm": 1}, "layers": layers})
    assert "integers: 7 QLinearConv. In floating point: 1 Gemm." in text and "- 1 layers: float (as planned)" in text
    assert "compute with integers" not in card()


def test_how_inputs_are_made_stands_before_the_lines_that_run_it():
    found = study()
    told = {**found.info(), "prepared": "Each image is divided by 255."}
    text = model_card(found.front_json(), found.front_json()["best"], told, found.config)
    assert text.index("How to run it") < text.index("Each image is divided by 255.") < text.index("```python")


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("not certifiable", "meets them as far as the validation split tells; that it keeps the floor is not proven"),
        (None, "This model meets all of them on the validation split."),
    ],
)
def test_a_floor_that_is_not_proven_is_not_said_to_be_met(verdict, words):
    found = study()
    front, best = found.front_json(), found.best.entry.to_json()
    best["certificate"] = None if verdict is None else best["certificate"] | {"verdict": verdict}
    assert words in model_card(front, best, found.info(), found.config)
