"""Scorers: what gives a window its number.

`ladm.py` holds LADM's configuration and arithmetic, `registry.py` the scorers beside it, a module each. `attention.py`
runs the calculator model and hooks into its attention layers, `span_mass.py` forms attention and span-to-span attention
mass in one go, `window_scores.py` makes scores of them. Importing this package, `ladm.py` or `registry.py` imports no
torch; the last three do.
"""
