"""YAML in: what is read, what is refused, and where an error points."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from llmos.abi.config import Config
from llmos.abi.errors import ConfigError
from llmos.abi.limits import MAX_CONFIG_BYTES
from llmos.drivers.yamlfile import check, parse, read

ROOT = Path(__file__).resolve().parents[2]


class Anything(BaseModel):
    model_config = ConfigDict(strict=True)

    v: object = None


def test_the_committed_configuration_says_the_defaults() -> None:
    assert read(ROOT / "llmos.yaml", Config) == Config()


def test_the_commented_lines_of_the_committed_configuration_are_valid() -> None:
    text = (ROOT / "llmos.yaml").read_text(encoding="utf-8").replace("  volumes: {}\n", "")
    opened = (
        text.replace("  # volumes:\n", "  volumes:\n").replace("  #     ", "      ").replace("  #   ", "    ")
    )
    opened = opened.replace("  # state", "  state").replace("  # cache", "  cache")
    config = parse(opened, Config, file=str(ROOT / "llmos.yaml"))
    assert config.memory.volumes["handbook"].trust == "mine"
    assert config.memory.volumes["handbook"].path == ROOT / "handbook"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("0777", 777),
        ("0o17", 15),
        ("0x1f", 31),
        ("-3", -3),
        ("1_000", "1_000"),
        ("1.5e3", 1500.0),
        (".inf", math.inf),
        ("true", True),
        ("'true'", "true"),
        ("~", None),
        ("[1, [a, {b: c}]]", [1, ["a", {"b": "c"}]]),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("! x", "x"),
    ],
)
def test_scalars_follow_the_core_schema(text: str, value: object) -> None:
    found = parse(f"v: {text}", Anything).v
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ("machine:\n  devise: cpu", 2, "machine.devise", "did you mean 'device'?"),
        ("kernl: {}", 1, "kernl", "did you mean 'kernel'?"),
        ("machine:\n\n  device: gpuu", 3, "machine.device", "did you mean 'gpu'?"),
        ("machine: {threads: many}", 1, "machine.threads", "'auto' or a whole number, got a text"),
        ("machine: {threads: true}", 1, "machine.threads", "got true or false"),
        ("kernel:\n  model: 5", 2, "kernel.model", "quote it to make it a text"),
        ("kernel:\n  pool: 2Gb", 2, "kernel.pool", "2GiB, 512MiB"),
        ("kernel: {window: 12}", 1, "kernel.window", "greater than or equal to"),
        ("kernel: 3", 1, "kernel", "a mapping, got a number"),
        ("memory:\n  volumes:\n    h: {trust: mine}", 3, "memory.volumes.h.path", "missing"),
        ("memory:\n  volumes:\n    h:\n      pth: x", 4, "memory.volumes.h.pth", "did you mean 'path'?"),
        ("memory:\n  volumes:\n    a b: {path: x}", 3, "memory.volumes.a b", "letters, digits"),
        (
            "memory:\n  volumes:\n    h:\n      path: x\n      readers: [1]",
            5,
            "memory.volumes.h.readers.0",
            "a text",
        ),
        ("machine: {}\nmachine: {}", 2, "machine", "already stands on line 1"),
        ("kernel:\n\tmodel: x", 2, "", "cannot start any token"),
        ("a: b: c", 1, "", "mapping values are not allowed"),
        ("- a", 1, "", "the top level is a list"),
        ("a\x00: 1", 1, "", "not YAML"),
        ('a: "\\Uffffffff"', 0, "", "not YAML"),
        ("a: 1\n---\nb: 2", 2, "", "a second document"),
        ("? [a]\n: b", 1, "", "as a key"),
        ("!!python/object/apply:os.system [id]", 1, "", "the tag"),
        ("a: !!binary aGk=", 1, "", "the tag"),
        ("a: &x 1", 1, "", "the anchor &x"),
        ("a: *x", 1, "", "the alias *x"),
    ],
)
def test_an_error_names_file_line_and_key(text: str, line: int, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, Config, file="llmos.yaml")
    error = caught.value
    assert (error.file, error.line, error.key) == ("llmos.yaml", line, key)
    assert says in str(error)
    assert error.do


def test_a_bomb_of_aliases_is_refused() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 10))
    with pytest.raises(ConfigError, match="is not allowed"):
        parse("l0: &l0 [lol]\n" + levels, Config)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ConfigError, match="nesting deeper"):
        parse("v: " + "[" * 100_000, Config)


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "llmos.yaml"
    with pytest.raises(ConfigError, match=r"cannot be read\. No such file"):
        read(file, Config)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path, Config)
    with pytest.raises(ConfigError, match="cannot be read"):
        read("a\0b", Config)
    file.write_bytes(b"machine: {}\nkernel: {model: \xff}\n")
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        read(file, Config)
    assert caught.value.line == 2
    file.write_bytes(b"#" * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read(file, Config)
    file.write_bytes("\ufeffkernel: {model: m}".encode())
    assert read(file, Config).kernel.model == "m"


def test_relative_paths_start_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "llmos.yaml").write_text("machine: {state: here, cache: ~/there}", encoding="utf-8")
    config = read(tmp_path / "llmos.yaml", Config)
    assert config.machine.state == tmp_path / "here"
    assert config.machine.cache == Path.home() / "there"


def test_an_empty_section_is_one_with_defaults() -> None:
    assert parse("kernel:\n  # model: x\n", Config) == Config()
    assert parse("", Config) == Config()


def test_the_first_of_many_errors_is_told_and_the_others_counted() -> None:
    with pytest.raises(ConfigError, match="2 more to mend"):
        check({"kernel": {"model": 1, "window": "x"}, "wrong": 1}, Config)


@given(st.text() | st.text(alphabet="[]{}:,-&*!|>'\"%#? \n\tab01"))
def test_any_text_is_a_configuration_or_a_config_error(text: str) -> None:
    try:
        parse(text, Config)
    except ConfigError as error:
        assert error.what


@pytest.mark.slow
@given(st.binary(max_size=300))
def test_any_bytes_are_a_configuration_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_bytes(data)
    try:
        read(file, Config)
    except ConfigError as error:
        assert error.file == str(file)
