"""Which operators may compute in 16 bits and which must not, as tables. What is done about it is lower_precision.py's.

float16 ends at 65504 and has 11 significant digits of two; bfloat16 has the range of float32 and 8 digits. So squares, exponentials
and long sums stay wide, and so does what counts: positions, coordinates, sizes.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from .operators import schema

#: Hand their input on as it is.
MOVES = frozenset((
    "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Concat", "Split", "Expand", "Gather", "GatherND",
    "GatherElements", "Tile", "Pad", "DepthToSpace", "SpaceToDepth", "Compress", "ReverseSequence", "Trilu", "Dropout", "Cast",
))  # fmt: skip
#: Compute each element from one of each input.
ELEMENTWISE = frozenset((
    "Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max", "Min", "Clip", "Where", "Neg", "Abs", "Floor", "Ceil", "Round", "Sign", "Equal",
    "Less", "LessOrEqual", "Greater", "GreaterOrEqual",
))  # fmt: skip
#: Whose results, or the sums inside, leave float16's range or lose what matters in few digits: powers and their inverses, sums,
#: angles, coordinates, chance. Not here: Softmax, whose largest exponent is 0, and the normalisations with statistics inside, which are
#: computed in float32 whatever the type (stash_type).
WIDE = frozenset((
    "Pow", "Sqrt", "Exp", "Log", "Reciprocal", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh",
    "Mod", "Det", "ReduceSum", "ReduceMean", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd",
    "CumSum", "CumProd", "Range", "LpNormalization", "LpPool", "GlobalLpPool", "LRN", "MeanVarianceNormalization", "NonMaxSuppression",
    "GridSample", "AffineGrid", "RoiAlign", "MaxRoiPool", "DFT", "STFT", "MelWeightMatrix", "HannWindow", "HammingWindow",
    "BlackmanWindow", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial",
    "EyeLike", "CastLike", "RotaryEmbedding", "SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss",
))  # fmt: skip
#: Of these, the ones whose results are still in danger, so that what is computed of them next is wide, too: a variance, a sum of
#: exponentials. The others' results are small numbers, or pictures again.
HEAVY = frozenset(name for name in WIDE if name.startswith(("Reduce", "Cum"))) | {"Pow", "Sqrt", "Exp", "Log", "Reciprocal", "Range"}
#: Their nodes hold graphs whose ends keep their types; inside, the same rules hold.
CONTROL = frozenset(("If", "Loop", "Scan"))
#: Take any type and give another: nothing to do.
ANY = frozenset(("Shape", "Size", "Cast"))
#: A bound or a mask: what lies beyond the narrow type's end means "at its end".
BOUNDS = frozenset((
    "Clip", "Max", "Min", "Pad", "Where", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual",
))  # fmt: skip
#: Sums whose addend may be a mask: far below everything else.
MASKED = frozenset(("Add", "Sum"))
MASK = -1e6
#: What is added: smaller than the narrow type's least means nothing there.
ADDENDS = frozenset(("Add", "Sub", "Sum"))
#: Whose arguments are counted exactly, through whatever elementwise arithmetic and products: angles of positions.
ANGLES = frozenset(("Sin", "Cos"))
PRODUCTS = frozenset(("MatMul", "Gemm", "Einsum"))
#: Whose inputs from this one on are sizes or counts.
SIZED = {"Resize": 1, "Upsample": 1, "Range": 0}
#: Inputs and outputs that are float32 by meaning, where the standard allows more: (operator, index).
WIDE_INPUTS = frozenset((("Resize", 1), ("Resize", 2), ("Upsample", 1)))
WIDE_OUTPUTS = frozenset((("LayerNormalization", 1), ("LayerNormalization", 2)))
#: Operators that an older onnx does not know, all of whose float inputs may be narrow.
_LATER = frozenset(("Attention", "RMSNormalization", "Swish", "TensorScatter"))


def takes(node: ir.Node, index: int, opset: int, dtype: ir.DataType, *, output: bool = False) -> bool:
    """Whether the standard lets input (or output) `index` of `node` be of `dtype`. False for operators nobody knows."""
    if (node.op_type, index) in (WIDE_OUTPUTS if output else WIDE_INPUTS):
        return False
    definition: Any = schema(node.op_type, "", opset)
    if definition is None:
        return node.op_type in _LATER
    formal = list(definition.outputs if output else definition.inputs)
    if not formal:
        return False
    name = {"FLOAT16": "tensor(float16)", "BFLOAT16": "tensor(bfloat16)"}[dtype.name]
    return name in formal[min(index, len(formal) - 1)].types
