"""How good a model is, in numbers: language models on texts (language.py), graphs of other kinds against another (graphs.py).

Knows files of texts (texts.py) and opened models; no quantisation, no terminal.
"""
