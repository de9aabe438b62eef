"""From an ONNX graph to a TensorRT engine with its papers, on a machine that may have no GPU. Running engines is runtime/tensorrt.py's."""
