"""What `import ladm` gives: runs, what they made, and scores, for notebooks and for flows of one's own."""
