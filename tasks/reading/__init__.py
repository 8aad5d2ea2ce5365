"""Reading sources: listing files, decompressing them, and taking their records out."""
