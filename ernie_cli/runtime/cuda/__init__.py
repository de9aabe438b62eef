"""A thin, typed layer over cuda-python: one GPU, its memory, a stream, captured graphs, and its error codes in words.

Knows neither TensorRT nor models. Nothing is loaded before the first call.
"""
