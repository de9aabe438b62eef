"""Model repositories → a verified folder. Resumable, several files at once, from Hugging Face, ModelScope or AI Studio.

    transport.py    one GET: redirects, time-outs, retries; knows no hub
    listing.py      what a hub says it has; the face that every hub below shows
    hf.py  modelscope.py  aistudio.py    one hub each
    fetch.py        one file: resumed, hashed as it arrives, checked
    download.py     the whole: plan, checks before, files in parallel, lock, publication
    wish.py  fit.py  embedded.py    what was asked for; whether it fits; the model inside this package
"""
