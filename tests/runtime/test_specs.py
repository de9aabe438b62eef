"""`--input name:dtype:shape` as people type it."""

from __future__ import annotations

import pytest

from ernie_cli.errors import UsageError
from ernie_cli.runtime.graphs import TensorSpec
from ernie_cli.runtime.specs import as_typed, merge, parse


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("x:float32:1x3x224x224", TensorSpec("x", "float32", (1, 3, 224, 224))),
        ("x:float32:Nx3x?x?", TensorSpec("x", "float32", ("N", 3, None, None))),
        ("ids:long:batchxlength", TensorSpec("ids", "int64", ("batch", "length"))),
        ("ids:int64:2,max", TensorSpec("ids", "int64", (2, "max"))),
        ("a:b:0:fp16:4", TensorSpec("a:b:0", "float16", (4,))),
        ("flag:bool:", TensorSpec("flag", "bool", ())),
        ("h:bf16:[2,3]", TensorSpec("h", "bfloat16", (2, 3))),
    ],
)
def test_what_can_be_typed(text: str, spec: TensorSpec) -> None:
    assert parse(text) == spec
    assert parse(as_typed(spec).removeprefix("--input ")) == spec


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x", "a name, a dtype and a shape"),
        (":float32:2", "a name, a dtype and a shape"),
        ("x:float3:2", "no dtype named `float3`"),
        ("x:float32:2x-1", "`-1` is no length"),
        ("x:float32:2xx3", "no length"),
        ("x:float32:1.5", "no length"),
        ("x:float32:" + "9" * 30, "no length"),
    ],
)
def test_what_makes_no_sense(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(text)


def test_given_inputs_replace_what_the_model_tells() -> None:
    own = (TensorSpec("x", "", None), TensorSpec("y", "int64", (2,)))
    assert merge(own, ["x:float16:3xN"]) == (TensorSpec("x", "float16", (3, "N")), own[1])
    with pytest.raises(UsageError, match="no such input") as caught:
        merge(own, ["xx:float16:3"])
    assert caught.value.hint == "did you mean `x`?"
    with pytest.raises(UsageError, match="twice"):
        merge(own, ["x:float16:3", "x:float32:3"])
