"""The Space: a page in ten languages that classifies images, and searches and compares in a gallery.

On the Hub it is beside `app.py` and `handler.py`, without the rest of this repository, and imports nothing of it.
"""
