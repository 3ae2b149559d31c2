"""What a real GPU said: readings, whole runs, and their files. Nothing here measures."""
