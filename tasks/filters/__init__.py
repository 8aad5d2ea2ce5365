"""Filters: what tells, of a text and without a model, that its document is not worth scoring."""
