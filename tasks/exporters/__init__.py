"""Exporters: one module a format behind one interface (`interface.py`); each is tested by the format's own reader."""
