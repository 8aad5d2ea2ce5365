"""Tokens of documents, and windows of exactly so many of them."""
