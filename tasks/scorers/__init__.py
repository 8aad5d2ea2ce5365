"""Scorers: what gives a window its number.

`ladm` holds LADM's configuration and arithmetic, `attention` runs the calculator model and hooks into its attention
layers, and `focus` forms attention and span-to-span attention mass in one go. Importing this package or `ladm`
imports no torch; `attention` and `focus` do.
"""
