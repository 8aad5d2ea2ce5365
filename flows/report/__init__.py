"""`ladm report`: one run as one self-contained HTML page, made from nothing but the store.

`facts.py` asks the store, `changes.py` compares with the previous run, `heatmaps.py` measures attention again where
that was asked for, `charts.py` draws, `tables.py` and `sentences.py` write, `page.py` puts the page together.
"""
