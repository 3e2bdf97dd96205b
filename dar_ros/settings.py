"""Plain data, as a YAML file has it, as a dataclass: its annotations say what may stand where."""

import math
import re
import types
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Literal, Union, get_args, get_origin

from dar_ros.errors import UsageError

_ONE = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a text'}
_SEVERAL = {int: 'whole numbers', float: 'numbers', str: 'texts'}


def build(kind, data, where='', base=None):
    """
    Return the dataclass `kind` of a mapping, or `base` with the mapping's settings instead.

    UsageError names the setting, after `where`, that is unknown, missing or of another type.
    """
    known = {field.name: field for field in fields(kind)}
    for key in data:
        if key not in known:
            raise UsageError(f'no setting {where}{key}; there are {", ".join(known)}')
    for key in () if base else _required(kind):
        if key not in data:
            raise UsageError(f'setting {where}{key} is missing: {_expected(known[key].type)}')
    values = {key: _typed(where + key, value, known[key].type) for key, value in data.items()}
    return replace(base, **values) if base else kind(**values)


def _required(kind):
    return [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]


def _typed(name, value, kind):
    if not _matches(value, kind):
        shown = 'empty' if value is None else repr(value)
        raise UsageError(f'{name} is {shown}; {_expected(kind)} is expected{_hint(value)}')
    if is_dataclass(kind) and isinstance(value, dict):
        return build(kind, value, f'{name}.')
    if isinstance(value, (list, tuple)):
        one = get_args(kind)[0] if get_origin(kind) is tuple else None
        return tuple(
            _typed(f'{name}[{i}]', v, one) if is_dataclass(one) else v for i, v in enumerate(value)
        )
    return value


def _matches(value, kind):
    args = get_args(kind)
    if is_dataclass(kind):
        return isinstance(value, (dict, kind))
    if get_origin(kind) is Literal:
        return value in args
    if get_origin(kind) in (Union, types.UnionType):
        return any(_matches(value, one) for one in args)
    if get_origin(kind) is tuple:
        fits = isinstance(value, (list, tuple)) and (args[-1] is ... or len(value) == len(args))
        return fits and all(_matches(one, args[0]) for one in value)
    if kind in (int, float):
        number = isinstance(value, (int, kind)) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, kind)


def _expected(kind):
    args = get_args(kind)
    if get_origin(kind) is Literal:
        return f'one of {", ".join(args)}'
    if get_origin(kind) in (Union, types.UnionType):
        return ' or '.join(map(_expected, args))
    if get_origin(kind) is tuple:
        count = '' if args[-1] is ... else f'{len(args)} '
        return f'a list of {count}{_SEVERAL.get(args[0]) or _expected(args[0])}'
    if is_dataclass(kind):
        names = _required(kind) or [fields(kind)[0].name]
        return f'{{{", ".join(f"{name}: ..." for name in names)}}}'
    return _ONE[kind]


def _hint(value):
    """Return how to write what is a number to a person and text to YAML."""
    written = isinstance(value, str) and re.fullmatch(r'[-+]?[\d.]+(e[-+]?\d+)?', value.lower())
    return ': without quotes, and 1.0e-4, not 1e-4' if written else ''
