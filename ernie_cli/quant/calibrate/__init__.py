"""Calibration: data in, what flows through a graph measured, ranges and scales out.

data.py opens what people give (text.py, images.py, arrays.py, noise.py read it); collect.py runs the graph; observers.py turn
values into a range; scales.py keeps the result.
"""
