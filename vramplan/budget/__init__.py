"""What every engine's budget shares: the CUDA context, verdicts, and the words they are said in."""
