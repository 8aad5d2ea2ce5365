"""What a run leaves behind: its record, its published results, what changed, and what may be deleted again."""
