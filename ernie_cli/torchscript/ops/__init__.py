"""One file per family of ONNX operators, each with RULES: operator → what writes it as TorchScript."""
