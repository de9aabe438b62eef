"""The decoder as one portable ONNX graph: standard ops only, precision inside it. `export.py` is the door.

builder.py writes nodes; dense.py says what an ERNIE 4.5 decoder is; weights.py streams tensors into the data file.
"""
