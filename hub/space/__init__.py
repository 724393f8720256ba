"""The model's shop window: an app in ten languages that classifies images and searches and compares in a gallery.

It imports nothing of this repository, since it travels: on the Hub, this folder lies beside `app.py` and `handler.py`.
"""
