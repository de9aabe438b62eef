"""Model repositories → a verified folder. Resumable, several files at once, from Hugging Face, ModelScope or AI Studio.

wish.py         what was asked for, and whether a folder is that already
listing.py      what a hub says it has; the face that every hub shows
hf.py modelscope.py aistudio.py embedded.py    one hub each, the last being this package itself
transport.py    one GET: redirects, time-outs, retries; knows no hub
fetch.py        one file: resumed, hashed as it arrives, checked
download.py     the whole: checks before, files in parallel (parallel.py), room (fit.py), lock (lock.py), publication
render.py       plans and the catalogue, laid out
"""
