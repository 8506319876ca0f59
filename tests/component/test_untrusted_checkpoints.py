"""Who can write to the database cannot run code in the server: a checkpoint is read as data."""

from __future__ import annotations

import dataclasses
import enum
import pickle
import sys
import uuid
from collections import deque, namedtuple
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import ormsgpack
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde import jsonplus
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel, SecretStr

from run_kit import ended, opened
from runlane.checkpoints.serializer import LedgerSerializer
from runlane.errors import CheckpointUnreadable
from runlane.lifecycle import RunStatus
from runlane.store.drivers.memory import MemoryDriver
from runlane.store.migrate import apply_scripts
from runlane.store.statements import Transaction, statement

PLANT = statement("test.plant", "UPDATE checkpoint_blobs SET type = :type, value = :value")
Point = namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = "red"


class Model(BaseModel):
    name: str
    key: SecretStr = SecretStr("x")


@dataclasses.dataclass
class Data:
    when: datetime
    where: Path


class Tags(set[str]):
    """A set of somebody's own."""


#: What stands for pydantic-settings, which reads files and the environment when a value is made.
BaseSettings = type("BaseSettings", (BaseModel,), {"__module__": "pydantic_settings.main"})


class Settings(BaseSettings):  # type: ignore[misc, valid-type]
    a: str = ""


class Touch:
    """Pickles to a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def _plant(kind: str, value: bytes) -> Transaction[None]:
    yield PLANT(type=kind, value=value)


def _call(module: str, name: str, *args: Any) -> bytes:
    """Return what LangGraph takes for an object that *name* of *module* makes of *args*."""
    packed = ormsgpack.packb((module, name, args))
    return ormsgpack.packb(ormsgpack.Ext(jsonplus.EXT_CONSTRUCTOR_POS_ARGS, packed))


def _graph() -> Any:
    builder = StateGraph(dict)
    builder.add_node("node", lambda state: {"n": 1})
    return builder.add_edge(START, "node").add_edge("node", END)


@pytest.mark.parametrize("kind", ["pickle", "json", "exec"])
async def test_a_planted_pickle_is_not_read_and_the_run_says_why(kind: str, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    driver = MemoryDriver()
    apply_scripts(driver)
    async with opened(driver, graphs={"g": _graph()}) as runtime:
        request = {"graph_id": "g", "input": {"a": 1}}
        await ended(runtime, await runtime.runs.create_or_reject("t", kwargs=request))
        await driver.write(_plant(kind, pickle.dumps(Touch(bomb))))
        run = await ended(runtime, await runtime.runs.create_or_reject("t", kwargs=request))
        assert run.status is RunStatus.ERROR
        assert run.error is not None
        assert run.error.error == "CheckpointUnreadable"
        assert repr(kind) in run.error.message
    assert not bomb.exists()


def test_a_pickle_is_refused_even_where_langgraph_would_read_one() -> None:
    serializer = LedgerSerializer()
    serializer.pickle_fallback = True
    with pytest.raises(CheckpointUnreadable):
        serializer.loads_typed(("pickle", pickle.dumps(1)))


@pytest.mark.parametrize(
    ("module", "name", "args"),
    [
        ("os", "system", "touch {bomb}"),
        ("subprocess", "Popen", "touch {bomb}"),
        ("builtins", "eval", "open({bomb!r}, 'w')"),
        ("builtins", "open", "{bomb}"),
        ("pathlib", "Path.touch", "{bomb}"),
        ("shutil", "copy", "/etc/hostname"),
        ("importlib", "import_module", "antigravity"),
        ("no_such_module", "x", ""),
        ("", "", ""),
    ],
)
def test_a_planted_call_is_not_made(module: str, name: str, args: str, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    more = ("w",) if name == "open" else (True,) * 12 if name == "Popen" else ()
    given = [args.format(bomb=str(bomb)), *more]
    found = LedgerSerializer().loads_typed(("msgpack", _call(module, name, *given)))
    assert found == given, "the data, as it is"
    inner = ormsgpack.packb({"a": [ormsgpack.Ext(jsonplus.EXT_DELTA_SNAPSHOT, _call(module, name, *given))]})
    LedgerSerializer().loads_typed(("msgpack", inner))
    assert not bomb.exists()


def test_no_module_is_imported_for_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted_module.py").write_text("import pathlib; pathlib.Path('imported').touch()\nclass Data: ...")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for module in ("planted_module", "antigravity", "idlelib.run"):
        assert module not in sys.modules
        assert LedgerSerializer().loads_typed(("msgpack", _call(module, "Data", "a"))) == ["a"]
        assert module not in sys.modules
    assert not (tmp_path / "imported").exists()


def test_a_module_is_not_asked_for_a_name_that_it_would_make() -> None:
    asked: list[str] = []
    lazy = ModuleType("lazy_module")
    lazy.__getattr__ = asked.append  # type: ignore[method-assign]
    sys.modules["lazy_module"] = lazy
    try:
        assert LedgerSerializer().loads_typed(("msgpack", _call("lazy_module", "Data", "a"))) == ["a"]
    finally:
        del sys.modules["lazy_module"]
    assert asked == []


class HasDict:
    """Says that it can be written, as many a class does that holds more than data."""

    made: ClassVar[list[object]] = []

    def __init__(self, *_: Any, **__: Any) -> None:
        HasDict.made.append(self)

    dict = model_dump = _asdict = get_secret_value = lambda self: {}


class Opens(tzinfo):
    """A value by its base class, whose making does something."""

    __init__ = HasDict.__init__


class Child(Data):
    """No dataclass itself, though its base is."""

    __init__ = HasDict.__init__


@pytest.mark.parametrize("cls", [HasDict, Opens, Child, FakeListChatModel, Settings])
def test_only_kinds_of_types_that_hold_data_are_made(cls: type) -> None:
    fields = {"responses": ["a"], "a": "b"}
    packed = ormsgpack.packb((cls.__module__, cls.__name__, fields, "model_validate_json"))
    for code in (jsonplus.EXT_CONSTRUCTOR_KW_ARGS, jsonplus.EXT_PYDANTIC_V1, jsonplus.EXT_PYDANTIC_V2):
        data = ormsgpack.packb(ormsgpack.Ext(code, packed))
        assert LedgerSerializer().loads_typed(("msgpack", data)) == fields, "the data, as it is"
    assert HasDict.made == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"bytes",
        Tags({"a"}),
        Model(name="a"),
        Data(when=datetime(2026, 1, 1, tzinfo=UTC), where=Path("/a")),
        Point(1, 2),
        Colour.RED,
        [HumanMessage("a", id="1"), AIMessage("b", id="2", tool_calls=[{"name": "t", "args": {}, "id": "3"}])],
        {"a": {1, 2}, "b": deque([1]), "c": uuid.UUID(int=1), "d": timedelta(1), "e": Path("a")},
        SecretStr("a"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_all_that_graphs_keep_comes_back_as_it_was(value: Any) -> None:
    serializer = LedgerSerializer()
    assert serializer.loads_typed(serializer.dumps_typed(value)) == value
