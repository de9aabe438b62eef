"""Quantising: one ONNX graph in, the same graph with Q/DQ pairs out, and a report of what it cost.

A scheme is a file in schemes/. layers.py finds what can be quantised; codes.py turns a weight into integers and scales;
edit.py puts Q/DQ into the graph; write.py streams it to disk; quantize.py is the door. Nothing here knows a runtime's own ops.
"""
