"""Pickles as data: what a file says is written down, and nothing that it asks for is done.

Protocol 2 only, which is what PyTorch writes whatever the version of either. Classes and functions stay names, objects
stay what was said of them; only Python's plain containers, and the dictionaries that PyTorch uses, become such.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_MOST_STEPS = 300_000
"""A module takes some twenty for each parameter; without a bound a small file could fill the memory."""

_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict")
_CALLED_PACKAGES = ("torch", "collections", "numpy", "_codecs")
_CALLED = tuple(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("set", "getattr"))
"""What modules of PyTorch ask to be called. A file that asks for anything else means harm, even if nobody listens."""
_PLAIN_KEYS = (str, int, float, bytes, type(None))


@dataclass(frozen=True)
class Name:
    """A class or function."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Made:
    """An object: its class or the function that would make it, of what, and what it would be told afterwards."""

    maker: Name
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, eq=False)
class Outside:
    """Something that does not lie in the pickle, by its persistent id."""

    id: tuple[Any, ...]


@dataclass
class Pickle:
    """What one pickle says."""

    content: Any = None
    outside: list[Outside] = field(default_factory=list)
    """Everything in it that lies elsewhere."""


def read_pickle(file: BinaryIO) -> Pickle:
    """The next pickle of a file, which then stands behind it.

    Raises:
        ValueError: it is none, asks for code to be run, or takes absurdly many steps.
    """
    reader = _Reader()
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
            if count > _MOST_STEPS:
                raise ValueError(f"its pickle takes more than {_MOST_STEPS} steps")
            reader.step(operation.name, argument)
    except (IndexError, KeyError) as error:
        raise ValueError(f"its pickle takes what it has not put there ({error})") from error
    return reader.pickle


class _Reader:
    """The stack that a pickle is written for."""

    def __init__(self) -> None:
        self.pickle = Pickle()
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._noted: dict[int, Any] = {}

    def step(self, operation: str, argument: Any) -> None:
        """Do one operation.

        Raises:
            ValueError: nothing that modules need.
            IndexError: the stack does not hold what it takes.
            KeyError: nothing was noted under that number.
        """
        if operation in _ARGUMENTS:
            self._stack.append(argument)
        elif operation in _CONSTANTS:
            self._stack.append(_CONSTANTS[operation]())
        elif operation in _SIZES:
            size = _SIZES[operation]
            items = [self._stack.pop() for _ in range(size)]
            self._stack.append(tuple(reversed(items)))
        elif operation in _STEPS:
            _STEPS[operation](self, argument)
        else:
            raise ValueError(f"its pickle has the operation {operation}, which PyTorch does not write")

    def nothing(self, _argument: Any) -> None:
        """PROTO: the version says nothing that the operations do not."""

    def stop(self, _argument: Any) -> None:
        self.pickle.content = self._stack.pop()

    def mark(self, _argument: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def pop_mark(self, _argument: Any) -> None:
        self._since_mark()

    def pop(self, _argument: Any) -> None:
        self._stack.pop()

    def note(self, number: int) -> None:
        self._noted[number] = self._stack[-1]

    def recall(self, number: int) -> None:
        self._stack.append(self._noted[number])

    def name(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self._stack.append(Name(module, name))

    def tuple(self, _argument: Any) -> None:
        items = tuple(self._since_mark())
        self._stack.append(items)

    def append(self, _argument: Any) -> None:
        item = self._stack.pop()
        _extend(self._stack[-1], [item])

    def appends(self, _argument: Any) -> None:
        items = self._since_mark()
        _extend(self._stack[-1], items)

    def set_item(self, _argument: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        _update(self._stack[-1], [(key, value)])

    def set_items(self, _argument: Any) -> None:
        items = self._since_mark()
        _update(self._stack[-1], zip(items[::2], items[1::2], strict=True))

    def call(self, _argument: Any) -> None:
        arguments, maker = self._stack.pop(), self._stack.pop()
        made = _made(maker, arguments)
        if str(maker) not in _CALLED and made.maker.module.partition(".")[0] not in _CALLED_PACKAGES:
            raise ValueError(f"it asks for {maker} to be run")
        self._stack.append(_dictionary(arguments) if str(maker) in _DICTIONARIES else made)

    def new(self, _argument: Any) -> None:
        arguments, maker = self._stack.pop(), self._stack.pop()
        self._stack.append(_made(maker, arguments))

    def build(self, _argument: Any) -> None:
        state = self._stack.pop()
        if isinstance(self._stack[-1], Made):
            self._stack[-1].state = state
        elif not isinstance(self._stack[-1], dict):  # an OrderedDict can have attributes; nothing here needs them
            raise ValueError(f"its pickle gives a {type(self._stack[-1]).__name__} a state")

    def outside(self, _argument: Any) -> None:
        """A class of modules is written with its source; only its name is kept."""
        match self._stack.pop():
            case ("module", Name() as name, *_):
                self._stack.append(name)
            case ("storage", *_) as found:
                self.pickle.outside.append(Outside(found))
                self._stack.append(self.pickle.outside[-1])
            case other:
                raise ValueError(f"its pickle refers to a {type(other).__name__} that is neither numbers nor a class")


def _made(maker: Any, arguments: Any) -> Made:
    if not isinstance(maker, Name) or not isinstance(arguments, tuple):
        raise ValueError(f"its pickle has an object made by a {type(maker).__name__} of a {type(arguments).__name__}")
    return Made(maker, arguments)


def _dictionary(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Python 2 wrote the pairs as the argument; later ones come after it. A default factory is of no use."""
    made: dict[Any, Any] = {}
    if arguments and isinstance(arguments[0], list):
        _update(made, arguments[0])
    return made


def _extend(target: Any, items: list[Any]) -> None:
    if isinstance(target, list):
        target.extend(items)
    elif not isinstance(target, Made):
        raise ValueError(f"its pickle appends to a {type(target).__name__}")


def _update(target: Any, items: Iterable[Any]) -> None:
    if isinstance(target, Made):
        return
    if not isinstance(target, dict):
        raise ValueError(f"its pickle sets items of a {type(target).__name__}")
    for key, value in items:
        # Nested tuples would be hashed, which can take for ever.
        if not isinstance(key, _PLAIN_KEYS):
            raise ValueError(f"its pickle has a {type(key).__name__} as a key")
        target[key] = value


_NUMBERS = ("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT")
_ARGUMENTS = frozenset((*_NUMBERS, "BINUNICODE", "BINSTRING", "SHORT_BINSTRING"))
"""Operations whose argument is the value."""
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
}
_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STEPS: dict[str, Callable[[_Reader, Any], None]] = {
    "PROTO": _Reader.nothing,
    "STOP": _Reader.stop,
    "MARK": _Reader.mark,
    "POP": _Reader.pop,
    "POP_MARK": _Reader.pop_mark,
    "PUT": _Reader.note,
    "BINPUT": _Reader.note,
    "LONG_BINPUT": _Reader.note,
    "GET": _Reader.recall,
    "BINGET": _Reader.recall,
    "LONG_BINGET": _Reader.recall,
    "GLOBAL": _Reader.name,
    "TUPLE": _Reader.tuple,
    "APPEND": _Reader.append,
    "APPENDS": _Reader.appends,
    "SETITEM": _Reader.set_item,
    "SETITEMS": _Reader.set_items,
    "REDUCE": _Reader.call,
    "NEWOBJ": _Reader.new,
    "BUILD": _Reader.build,
    "BINPERSID": _Reader.outside,
}
