"""The source that is written: names and texts of files stay data, sizes are checked, memory is kept, compilers have nothing to say."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import converter
from adapters.c.names import KEYWORDS, Names, cleaned, comment, quoted
from adapters.c.planning import _placed
from adapters.c.program import program_of
from adapters.c.session import CSession, compiler
from adapters.c.views import Buffer
from converter.cli.main import cli
from converter.errors import ConverterError, RunError, UnsupportedError
from converter.format import model_digest
from converter.ir import DType, Model

FIXTURES = Path(__file__).parent.parent.parent / "fixtures"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")


def doubled(name: str = "net", value: str = "x", size: str = "time") -> Model:
    """y = relu(2 · x + weight), x: [size, 3]."""
    builder = converter.GraphBuilder(name)
    x = builder.input(value, "float32", [size, 3])
    weight = builder.parameter("weight", "float32", [3])
    builder.output("y", builder.op("relu", builder.op("add", builder.op("multiply", x, 2.0), weight)))
    return Model(builder.graph(), converter.InMemoryParameters({"weight": np.asarray([1.0, -2.0, 0.5], np.float32)}))


def built(folder: Path, code: str, *flags: str, name: str = "m") -> subprocess.CompletedProcess[str]:
    """Compiles `folder/m.c` with a main function beside it, and runs it."""
    (folder / "main.c").write_text(f'#include <stdio.h>\n#include "{name}.h"\n{code}\n', encoding="ascii")
    subprocess.run([compiler(), *(flags or STRICT), f"{name}.c", "main.c", "-o", "run", "-lm"], cwd=folder, check=True)
    return subprocess.run([str(folder / "run")], capture_output=True, text=True, check=False, timeout=60, cwd=folder)


@pytest.mark.parametrize(
    "text",
    [
        "int",
        "exp",
        "NULL",
        "INT_MAX",
        "x; system(0)",
        "*/ int a; /*",
        "äö",
        "",
        "9lives",
        "a b",
        "i1",
        "\n#include",
        "linux",
        "x" * 500,
        "__file__",
        "main",
    ],
)
def test_names_are_identifiers(text: str) -> None:
    name = cleaned(text)
    assert name.isascii()
    assert name.isidentifier()
    assert name not in KEYWORDS
    assert not name.isupper()
    assert len(name) < 60


def test_clashing_names_stay_apart() -> None:
    names = Names()
    found = [names.fresh(text) for text in ("a.b", "a_b", "A_b", "a b", "int", "int_", "exp", "i1", "i1")]
    assert len({name.lower() for name in found}) == len(found)


def test_texts_end_neither_comments_nor_strings() -> None:
    for text in ("*/ evil(); /* \\\n??/", "*\\ evil(); \\*", "*\\/", "**\\\\*"):
        assert "*/" not in comment(text)
        assert "/*" not in comment(text)
    assert "\n" not in comment("a\nb")
    assert quoted('a"b\\c\n??/é') == '"a\\042b\\134c\\012\\077\\077/\\303\\251"'


@pytest.mark.parametrize(
    ("name", "value", "size"),
    [("*/ evil(); /*", "int", "INT_MAX"), ("*\\ = ; \\*", "*\\ = ; \\*", "i0"), ("exp", "x[0]; exit(1);", "exp"), ("a\\", "main", "i0")],
)
def test_hostile_names_never_become_code(tmp_path: Path, name: str, value: str, size: str) -> None:
    converter.save(doubled(name, value, size), tmp_path / "m.c", max=f"{size}=4")
    text = (tmp_path / "m.c").read_text(encoding="ascii")
    assert "evil();" not in text.replace("/* * / evil(); / *, written", "")
    assert "exit(1)" not in text.replace(": x[0]; exit(1);", "")
    subprocess.run([compiler(), *STRICT, "-c", "m.c"], cwd=tmp_path, check=True)


def test_sizes_are_checked_and_nothing_is_written_beyond(tmp_path: Path) -> None:
    converter.save(doubled(), tmp_path / "m.c", max="time=4")
    main = """
int main(void) {
  static float x[30], y[30];
  int k, bad = 0;
  for (k = 0; k < 30; ++k) { x[k] = (float)k; y[k] = -7.0f; }
  printf("%d %d %d ", net(x, y, 5), net(x, y, 0), net(x, y, -1));
  for (k = 0; k < 30; ++k) { bad += y[k] != -7.0f; }
  printf("%d ", net(x, y, 4));
  for (k = 12; k < 30; ++k) { bad += y[k] != -7.0f; }
  printf("%d %g %g %g", bad, (double)y[0], (double)y[1], (double)y[11]);
  return 0;
}"""
    assert built(tmp_path, main).stdout == "1 1 1 0 0 1 0 22.5"


def test_an_index_outside_its_axis_ends_the_run() -> None:
    builder = converter.GraphBuilder("look")
    table, ids = builder.parameter("table", "float32", [5, 2]), builder.input("ids", "int64", ["n"])
    builder.output("y", builder.op("take", table, ids, axis=0))
    session = CSession(Model(builder.graph(), converter.InMemoryParameters({"table": np.arange(10, dtype=np.float32).reshape(5, 2)})))
    assert session.run({"ids": np.asarray([4, -1])})["y"].tolist() == [[8, 9], [8, 9]]
    with pytest.raises(RunError, match="an index outside its axis"):
        session.run({"ids": np.asarray([5])})


def test_sizes_that_are_taken_to_be_equal_are_checked() -> None:
    builder = converter.GraphBuilder("pair")
    x, y = builder.input("x", "float32", ["a", 2]), builder.input("y", "float32", ["b", 2])
    builder.output("z", builder.op("add", x, y))
    session = CSession(Model(builder.graph(), converter.InMemoryParameters({})))
    same = np.ones((3, 2), np.float32)
    assert session.run({"x": same, "y": same})["z"].tolist() == [[2, 2]] * 3
    with pytest.raises(RunError, match="sizes that do not fit"):
        session.run({"x": same, "y": same[:2]})


def test_what_does_not_fit_is_refused_with_the_layers(tmp_path: Path) -> None:
    model = converter.load(FIXTURES / "mlp_digits" / "model.json")
    with pytest.raises(ConverterError, match="more flash") as caught:
        converter.save(model, tmp_path / "m.c", max="batch=1", flash="8K")
    assert "linear 8192" in str(caught.value)
    with pytest.raises(ConverterError, match="more RAM"):
        converter.save(model, tmp_path / "m.c", max="batch=1000", ram="64K")
    assert list(tmp_path.iterdir()) == []
    converter.save(model, tmp_path / "m.c", max={"batch": 1}, flash=10 << 10, ram="1K")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "how large 'time' may be"),
        ({"max": "tiem=4"}, "no free size 'tiem'"),
        ({"max": "time=-4"}, "not a list"),
        ({"max": "time=0"}, "less than the graph takes"),
        ({"max": "time=4", "ram": "much"}, "not a number of bytes"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConverterError, match=message):
        converter.save(doubled(), tmp_path / "m.c", **options)
    assert list(tmp_path.iterdir()) == []


def test_what_c_lacks_is_listed() -> None:
    builder = converter.GraphBuilder("lacking")
    x = builder.input("x", "float32", [3, 3])
    values = builder.op("eig", x)
    for place, value in enumerate(values if isinstance(values, tuple) else (values,)):
        builder.output(f"y{place}", builder.op("real", value))
    with pytest.raises(UnsupportedError, match="no code in C") as caught:
        CSession(Model(builder.graph(), converter.InMemoryParameters({})))
    assert {item["operator"] for item in caught.value.items} >= {"eig"}


@pytest.mark.parametrize("name", ["mlp_digits", "conv_digits", "lstm_classifier"])
def test_compilers_and_sanitizers_have_nothing_to_say(tmp_path: Path, name: str) -> None:
    model = converter.load(FIXTURES / name / "model.json")
    example = model.examples[0]
    sizes: dict[str, int] = {}
    for port in model.graph.inputs:
        sizes.update(
            {
                size.symbol: found
                for size, found in zip(port.spec.shape, example.inputs[port.name].shape, strict=True)
                if not isinstance(size, int) and size.symbol
            }
        )
    converter.save(model, tmp_path / "m.c", max=sizes)
    program = program_of(model, sizes)
    arguments, declared = [], []
    for port in model.graph.inputs:
        array = example.inputs[port.name]
        kind = "float" if array.dtype == np.float32 else f"{array.dtype}_t"
        declared.append(f"static const {kind} in_{port.name}[] = {{{', '.join(map(repr, array.ravel().tolist()))}}};")
        arguments.append(f"in_{port.name}")
    for out in model.graph.outputs:
        kind = "float" if out.spec.dtype is DType.FLOAT32 else f"{out.spec.dtype}_t"
        declared.append(f"static {kind} out_{out.name}[{example.outputs[out.name].size}];")
        arguments.append(f"out_{out.name}")
    arguments += [str(sizes[item]) for item in program.sizes]
    first = model.graph.outputs[0].name
    main = (
        "\n".join(declared)
        + f"""
int main(void) {{
  size_t k;
  int error = {program.name}({", ".join(arguments)});
  for (k = 0; k < sizeof out_{first} / sizeof *out_{first}; ++k) {{ printf("%.9g ", (double)out_{first}[k]); }}
  return error;
}}"""
    )
    subprocess.run([compiler(), *STRICT, "-c", "m.c"], cwd=tmp_path, check=True)
    result = built(tmp_path, main, "-std=c99", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    assert (result.returncode, result.stderr) == (0, "")
    wanted: Any = example.outputs[first]
    np.testing.assert_allclose(np.asarray(result.stdout.split(), np.float64), np.ravel(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp_digits", "conv_digits", "lstm_classifier", "gru_classifier", "elman", "classifier"])
def test_the_arena_is_hardly_larger_than_what_lives_at_one_time(name: str) -> None:
    model = converter.load(FIXTURES / name / "model.json")
    found = program_of(
        model, {item: 8 if model.graph.dims[item].max is None else model.graph.dims[item].max or 8 for item in model.graph.dims}
    ).plan
    assert found.live <= found.arena <= 1.05 * found.live


def test_no_two_buffers_share_bytes_while_both_are_needed() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        items = []
        for number in range(40):
            first = int(generator.integers(0, 60))
            items.append(Buffer(f"b{number}", DType.FLOAT32, 1, first=first, last=first + int(generator.integers(0, 12))))
        sizes = {id(item): int(generator.integers(1, 64)) * 8 for item in items}
        places, whole = _placed(sorted(items, key=lambda item: -sizes[id(item)]), sizes)
        for a in items:
            assert places[id(a)] + sizes[id(a)] <= whole
            for b in items:
                together = a is not b and a.first <= b.last and b.first <= a.last
                assert not together or places[id(a)] >= places[id(b)] + sizes[id(b)] or places[id(b)] >= places[id(a)] + sizes[id(a)]


def test_the_proof_travels_with_the_source(tmp_path: Path) -> None:
    model = converter.load(FIXTURES / "mlp_digits" / "model.json")
    converter.save(model, tmp_path / "m.c", max="batch=1")
    code = 'int main(void) { printf("%d", digits_mlp_selftest()); return 0; }'
    assert built(tmp_path, code).stdout == "0"
    text = (tmp_path / "m.c").read_text(encoding="ascii")
    assert model_digest(model) in text
    weight = text.index("static const float layers_3_bias")
    first = text.index("\n  ", weight) + 3
    (tmp_path / "m.c").write_text(f"{text[:first]}-3.5f{text[text.index(',', first) :]}", encoding="ascii")
    assert int(built(tmp_path, code).stdout) > 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "uint8"])
def test_the_self_test_draws_what_python_draws(tmp_path: Path, dtype: str) -> None:
    """A model that gives what it is given: equal to the bit, but for what a result may stray."""
    builder = converter.GraphBuilder("same")
    builder.output("y", builder.op("reshape", builder.input("x", dtype, [3, 5]), shape=(15,)))
    converter.save(Model(builder.graph(), converter.InMemoryParameters({})), tmp_path / "m.c")
    assert built(tmp_path, 'int main(void) { printf("%d", same_selftest()); return 0; }').stdout == "0"


def test_the_command_says_what_the_model_takes(tmp_path: Path) -> None:
    source = FIXTURES / "mlp_digits" / "model.json"
    result = CliRunner().invoke(cli, ["json-to-c", str(source), "-o", str(tmp_path / "m.c"), "--max", "batch=1"])
    assert result.exit_code == 0, result.output
    assert "linear          8192         128           2048" in result.output
    refused = CliRunner().invoke(cli, ["json-to-c", str(source), "-o", str(tmp_path / "n.c"), "--max", "batch=1", "--flash", "1K"])
    assert refused.exit_code == 2
    assert not (tmp_path / "n.c").exists()
    assert "linear_1 1320" in refused.output.replace("\n", " ")


def test_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    model = converter.load(FIXTURES / "mlp_digits" / "model.json")
    files = converter.save(model, tmp_path / "m.c", max={"batch": 2}, weights=tmp_path / "m.bin")
    assert [path.name for path in files] == ["m.c", "m.h", "m.bin"]
    code = """
int main(int count, char **arguments) {
  static union { double alignment; unsigned char bytes[16384]; } block;
  FILE *file = fopen("m.bin", "rb");
  (void)count; (void)arguments;
  if (!file || !fread(block.bytes, 1, sizeof block, file)) { return 1; }
  digits_mlp_weights(&block);
  printf("%d", digits_mlp_selftest());
  return 0;
}"""
    assert built(tmp_path, code).stdout == "0"
