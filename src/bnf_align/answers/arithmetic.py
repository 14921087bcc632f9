"""The value of a sum somebody wrote down, from its syntax tree.

ZeroEval hands answers with a fraction to Python's `eval`. Here the text is parsed, never run, and only numbers and
operators have a value, which is the same one.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable
from typing import Any

LONGEST = 1_000
"""Characters. No answer that is a sum is as long, and the syntax tree of a long text is deep."""
MOST_BITS = 100_000
"""Of a whole number on the way: 9**9**9 would take longer than all the rest."""

OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.BitAnd: operator.and_,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def arithmetic(text: str) -> float | None:
    """The value of `text`, or None where it is not arithmetic, has no value or would be too large.

    Example:
        >>> arithmetic("(1 + 2)/4"), arithmetic("1/0"), arithmetic("__import__('os')/1")
        (0.75, None, None)
    """
    if len(text) > LONGEST:
        return None
    try:
        with warnings.catch_warnings():  # "2(3/4)" makes the parser wonder aloud about a missing comma
            warnings.simplefilter("ignore")
            return float(_value(ast.parse(text.lstrip(" \t"), mode="eval").body))
    except (SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=int() | float() | complex() as number):
            return number
        case ast.UnaryOp():
            return OPERATORS[type(node.op)](_value(node.operand))
        case ast.BinOp():
            return _binary(type(node.op), _value(node.left), _value(node.right))
        case ast.BoolOp():  # "1/2 or 2": Python's value is the first that decides, and the rest is not looked at
            for part in node.values:
                value = _value(part)
                if bool(value) is isinstance(node.op, ast.Or):
                    break
            return value
        case ast.Compare():
            return _compared(node)
    raise ValueError("not arithmetic")


def _binary(kind: type[ast.operator], left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        bits = {ast.Pow: left.bit_length() * right, ast.LShift: left.bit_length() + right}
        if bits.get(kind, 0) > MOST_BITS:
            raise OverflowError
    value = OPERATORS[kind](left, right)
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise OverflowError
    return value


def _compared(node: ast.Compare) -> bool:
    left = _value(node.left)
    for kind, part in zip(node.ops, node.comparators, strict=True):
        right = _value(part)
        if not OPERATORS[type(kind)](left, right):
            return False
        left = right
    return True
