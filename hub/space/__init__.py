"""The Space: a page in ten languages that classifies images, and searches and compares in a gallery.

On the Hub, this folder is beside `app.py` and `handler.py`, without the rest of the repository: import nothing else.
"""
