"""The questions as functions: each returns a result and remarks, and prints nothing."""
