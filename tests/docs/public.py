"""The public objects of earthsr, and what their docstrings owe a reader.

Public is what ``earthsr.__all__`` and the ``__all__`` of its packages and of some modules name, and the errors.
"""

import ast
import dataclasses
import importlib
import inspect
import itertools
import pkgutil
import re
import textwrap

from pydantic import BaseModel

import earthsr
import earthsr.errors
from earthsr.errors import EarthsrError

_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)
#: A shape such as (N, C, H, W), (n,) or (rows, columns), or what says that there is none to give.
_SHAPE = re.compile(r"\((?:[\w*. +/-]+|…|\.\.\.),[^()]*\)|\bscalar\b|\bany shape\b", re.IGNORECASE)

#: First words of a summary that says what comes back.
_GIVES = re.compile(r"(Return|Read|Open|Make|Whether)\b")


#: Modules that are no packages, and say what is public in them.
MODULES = {"earthsr.check.bench", "earthsr.check.parity", "earthsr.landuse.match_areas"}


def packages():
    """Names of the packages and modules with public names."""
    walked = pkgutil.walk_packages(earthsr.__path__, "earthsr.")
    inner = [module.name for module in walked if module.ispkg or module.name in MODULES]
    return ["earthsr", *(name for name in inner if name != "earthsr.cli")]


def public_names():
    """Objects by their public names, ``package.name``, those of ``earthsr`` itself first."""
    found = {}
    for package in packages():
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", ()):
            found[f"{package}.{name}"] = getattr(module, name)
    for name, value in vars(earthsr.errors).items():
        if inspect.isclass(value) and value.__module__ == "earthsr.errors":
            found[f"earthsr.errors.{name}"] = value
    return found


def public_objects():
    """Public objects, each once, by their first public name."""
    first, seen = {}, set()
    for name, value in public_names().items():
        # Plain values, such as a version, are told apart by their names.
        key = id(value) if callable(value) else name
        if key not in seen:
            seen.add(key)
            first[name] = value
    return first


def callables():
    """Functions, constructors and public methods by their public names, with their docstrings and what they are.

    Docstrings come in twos: the object's own, and that of the method that it overrides.
    """
    for name, value in public_objects().items():
        if inspect.isclass(value):
            init = vars(value).get("__init__")
            if init is not None and not dataclasses.is_dataclass(value) and init.__module__ == value.__module__:
                yield name, init, (inspect.cleandoc(value.__doc__ or ""), ""), "constructor"
            for method, function in _methods(value):
                yield f"{name}.{method}", function, _docstring(value, method, function), "method"
        elif callable(value):
            yield name, inspect.unwrap(value), (inspect.getdoc(value) or "", ""), "function"


def _methods(kind):
    for name, value in vars(kind).items():
        function = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", value)
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


def _docstring(kind, name, function):
    """Docstring of a method, and that of the one that it overrides, which it need not say again."""
    own = inspect.cleandoc(function.__doc__ or "")
    above = [vars(base).get(name) for base in kind.__mro__[1:]]
    theirs = next((inspect.cleandoc(each.__doc__) for each in above if getattr(each, "__doc__", None)), "")
    return own, theirs


def sections(docstring):
    """Sections of a docstring in NumPy's form, by their titles; what stands before them is under the empty one."""
    parts = _SECTION.split(docstring)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def documented(docstring, *titles):
    """Names that the entries of a section document."""
    found = sections(docstring)
    entries = [line for title in titles for line in found.get(title, "").splitlines() if line and line[0] != " "]
    return {name.strip().lstrip("*") for entry in entries for name in entry.partition(" : ")[0].split(",")}


def mentioned(name, text):
    """Whether a text speaks of a parameter or field: all words of its name are in it, in singular or plural."""
    words = {_stem(word) for word in re.findall(r"[a-z]+", text.lower())}
    return all(_stem(word) in words for word in re.findall(r"[a-z]+", name.lower()))


def _stem(word):
    return re.sub(r"(ies|es|s|y|e)$", "", word)


def parameters(function):
    """Parameters of a function but for the object itself."""
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def raised(function):
    """Errors of earthsr that the body of a function raises itself, or the one call that it consists of."""
    tree = _tree(function)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            target = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            error = function.__globals__.get(getattr(target, "id", None))
            if inspect.isclass(error) and issubclass(error, EarthsrError):
                found.add(error)
    body = [node for node in tree.body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    if len(body) == 1 and isinstance(body[0], ast.Return) and isinstance(body[0].value, ast.Call):
        called = function.__globals__.get(getattr(body[0].value.func, "id", None))
        for name in documented(inspect.getdoc(called) or "", "Raises") if inspect.isfunction(called) else ():
            found.add(getattr(earthsr.errors, name, EarthsrError))
    return found


def _tree(function):
    return ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]


def faults(name, function, docstrings, kind):
    """What the docstring of a callable lacks, in words."""
    own, inherited = docstrings
    text = f"{own}\n{inherited}"
    if not text.strip():
        return [f"{name} has no docstring"]
    found = []
    named = {each for part in docstrings for each in documented(part, "Parameters", "Other Parameters")}
    missing = [each for each in parameters(function) if each not in named]
    if kind == "method":
        missing = [each for each in missing if not mentioned(each, text)]
    if missing:
        where = "in a Parameters section" if kind != "method" else "by name"
        found.append(f"{name} does not document {', '.join(missing)} {where}")
    told = {each for part in docstrings for each in documented(part, "Raises")}
    for error in sorted(raised(function), key=lambda each: each.__name__):
        if not told & {each.__name__ for each in error.__mro__}:
            found.append(f"{name} raises {error.__name__}, which no Raises section says")
    gives = inspect.signature(function).return_annotation
    told = sections(own).keys() & {"Returns", "Yields"} or _GIVES.match(own)
    if kind == "function" and gives not in (None, "None", inspect.Signature.empty) and not told:
        found.append(f"{name} does not say what it returns, in a Returns section or in its first words")
    arrays = [str(each.annotation) for each in inspect.signature(function).parameters.values()] + [str(gives)]
    if any("NDArray" in each for each in arrays) and not _SHAPE.search(text):
        found.append(f"{name} takes or gives arrays and says no shape, such as (N, C, H, W)")
    return found


def field_faults(name, kind):
    """Fields of a dataclass or section that nothing says the meaning of."""
    if issubclass(kind, BaseModel):
        return [f"{name}.{key} has no description" for key, each in kind.model_fields.items() if not each.description]
    if not dataclasses.is_dataclass(kind) or "__dataclass_fields__" not in vars(kind):
        return []
    told = inspect.cleandoc(kind.__doc__ or "")
    said = documented(told, "Attributes", "Parameters")
    body = _tree(kind).body
    for entry, after in itertools.pairwise(body):
        text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(entry, ast.AnnAssign) and text:
            said.add(entry.target.id)
    own = [each.name for each in dataclasses.fields(kind) if each.name in vars(kind).get("__annotations__", {})]
    left = [key for key in own if key not in said and not mentioned(key, told)]
    return [f"{name}.{key} has no docstring below it, and the class's does not speak of it" for key in left]
